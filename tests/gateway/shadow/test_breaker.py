from gateway.shadow.breaker import FAILURES_MAX, FIRST_S, LONGEST_S, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(FAILURES_MAX):
        assert breaker.refusal() is None
        breaker.failed("remote_timeout")
    return breaker


def test_it_opens_after_failures_in_a_row_and_gives_the_last_reason() -> None:
    assert broken(Clock()).refusal() == "remote_timeout"


def test_a_success_begins_the_count_anew() -> None:
    breaker = Breaker(Clock())
    for _ in range(5):
        for _ in range(FAILURES_MAX - 1):
            breaker.failed("remote_error")
        breaker.succeeded()
    assert breaker.refusal() is None


def test_after_its_pause_one_call_may_try_and_its_success_closes_it() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += FIRST_S

    assert breaker.refusal() is None
    assert breaker.refusal() == "remote_timeout"
    breaker.succeeded()
    assert breaker.refusal() is None


def test_each_failed_trial_doubles_the_pause_up_to_the_longest() -> None:
    clock = Clock()
    breaker = broken(clock)
    pauses = []
    for _ in range(8):
        waited = 0.0
        while breaker.refusal() is not None:
            clock.now += 0.5
            waited += 0.5
        pauses.append(waited)
        breaker.failed("remote_error")
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_S, LONGEST_S, LONGEST_S]
