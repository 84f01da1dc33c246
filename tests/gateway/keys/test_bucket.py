import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.bucket import TokenBucket


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_a_burst_passes_and_then_the_rate_holds(clock):
    bucket = TokenBucket(2.0, 3, clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s() == 1
    clock.now_s += 0.5
    assert [bucket.take(), bucket.take()] == [True, False]


def test_what_was_refused_took_nothing(clock):
    bucket = TokenBucket(1.0, 1, clock)
    assert bucket.take()
    for _ in range(9):
        clock.now_s += 0.1
        assert not bucket.take()
    clock.now_s += 0.11
    assert bucket.take()


def test_a_slow_quota_says_how_long_to_wait(clock):
    bucket = TokenBucket(0.1, 1, clock)
    assert bucket.take()
    assert not bucket.take()
    assert bucket.wait_s() == 10


@given(st.lists(st.floats(0, 10), max_size=60), st.floats(0.1, 100), st.integers(1, 20))
def test_no_caller_gets_more_than_burst_and_rate_times_time(pauses, rate_per_s, burst):
    clock = Clock()
    bucket = TokenBucket(rate_per_s, burst, clock)
    taken = 0
    for pause_s in pauses:
        clock.now_s += pause_s
        taken += bucket.take()
    assert taken <= burst + rate_per_s * (clock.now_s - 100.0) + 1e-6
