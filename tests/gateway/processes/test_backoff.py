from gateway.processes.backoff import FAILURES_MAX, LONGEST_S, STEADY_S, Backoff


def test_pauses_double_up_to_the_longest():
    backoff = Backoff()
    pauses = [backoff.failed(up_s=0) for _ in range(10)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == LONGEST_S


def test_a_place_is_hopeless_after_so_many_failures_in_a_row():
    backoff = Backoff()
    for _ in range(FAILURES_MAX):
        assert not backoff.is_hopeless
        backoff.failed(up_s=1)
    assert backoff.is_hopeless


def test_a_steady_life_clears_the_record():
    backoff = Backoff()
    for _ in range(FAILURES_MAX):
        backoff.failed(up_s=0)
    assert backoff.failed(up_s=STEADY_S) == 0.1
    assert not backoff.is_hopeless
