"""Workers die at random instants, ten times over, while every durability is asked for. `loadtests/kill9.py` is the long form."""

import pytest

from loadtests.kill9 import UP_MIN_S, run

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.timeout(300)
def test_ten_kills_at_random_lose_no_answered_record_but_the_window_of_async_and_double_none(tmp_path):
    outcome = run(tmp_path, times=10, seed=9, up_s=(UP_MIN_S, UP_MIN_S + 1))
    print(f"\n{outcome}")
    assert (outcome.lost["process"], outcome.lost["disk"], outcome.doubled) == (0, 0, 0)
    assert min(outcome.answered.values()) > 100
    assert outcome.lost["async"] <= outcome.counted_lost, "what async lost is counted"
