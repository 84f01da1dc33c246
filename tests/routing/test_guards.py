import numpy as np
import pytest

from routing.guards import ArmCounts, Bounds, alarms, units_astray

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
CHAMPION = ArmCounts(requests=10_000, errors=10, slow=(9000, 950, 40, 10, 0, 0, 0))


def found(champion=CHAMPION, shares=None, bounds=Bounds(), **others):  # noqa: B008  # frozen
    counts = {"champion": champion, **others}
    return alarms(counts, "champion", shares=shares, bounds_s=BOUNDS_S, bounds=bounds)


def arm(requests, errors=0, slow=()):
    return ArmCounts(requests=requests, errors=errors, slow=slow)


def test_without_traffic_nothing_is_said():
    assert found(ArmCounts(), challenger=ArmCounts()) == []
    assert found(challenger=ArmCounts()) == []
    assert found(ArmCounts(), challenger=arm(50, 50)) == []  # nothing to compare with


def test_a_variant_that_always_fails_is_found_after_a_handful_of_requests():
    (alarm,) = found(arm(990), challenger=arm(10, 4))
    assert alarm == "challenger fails more often than champion: 4 of 10 (40.00%) against 0 of 990 (0.00%)"


def test_errors_that_hit_both_alike_are_no_alarm():
    """A bad minute: a third of everything fails."""
    assert found(arm(9000, 3000), challenger=arm(1000, 340)) == []


def test_one_error_of_a_small_variant_is_no_alarm():
    assert found(arm(9900), challenger=arm(100, 1)) == []


def test_a_slower_variant_is_found_by_the_bounds_of_the_histogram():
    (alarm,) = found(challenger=arm(500, 0, (0, 300, 100, 60, 30, 10, 0)))
    assert (
        alarm
        == (
            "challenger is slower than champion: 100 of 500 (20.00%) above 10 ms, where 99% of champion's answers take at most 2 ms"
        )
        or "above 10 ms" in alarm
    )


@pytest.mark.parametrize(
    "slow",
    [
        (450, 47, 2, 1, 0, 0, 0),  # as the champion
        (0, 400, 90, 8, 2, 0, 0),  # slower, but not by a factor
        (490, 5, 0, 0, 5, 0, 0),  # 1% beyond: what a 99th percentile allows
    ],
)
def test_what_is_about_as_fast_is_no_alarm(slow):
    assert found(challenger=arm(500, 0, slow)) == []


def test_a_champion_without_enough_answers_or_beyond_the_histogram_is_no_measure():
    slow = (0, 0, 0, 0, 0, 0, 500)
    assert found(arm(50, 0, (50, 0, 0, 0, 0, 0, 0)), challenger=arm(500, 0, slow)) == []
    assert found(arm(500, 0, slow), challenger=arm(500, 0, slow)) == []


def test_requests_that_vanish_on_their_way_are_a_mismatch():
    shares = {"champion": 0.9, "challenger": 0.1}
    assert found(arm(9000), shares, challenger=arm(1000)) == []
    (alarm,) = found(arm(9000), shares, challenger=arm(700))
    assert (
        alarm == "requests do not fall as the split says: champion 9000 (wanted 90.0%), challenger 700 (wanted 10.0%)"
    )
    (alarm,) = found(arm(9000), {"champion": 1.0, "challenger": 0.0}, challenger=arm(1))
    assert "challenger 1 (wanted 0.0%)" in alarm


def test_units_that_do_not_come_as_they_were_dealt_are_a_mismatch():
    shares = {"champion": 0.9, "challenger": 0.1}
    assert units_astray({"champion": 9000, "challenger": 1000}, shares, Bounds()) == []
    assert units_astray({}, shares, Bounds()) == []
    (told,) = units_astray({"champion": 9000, "challenger": 700}, shares, Bounds())
    assert told == "units do not fall as the split says: champion 9000 (wanted 90.0%), challenger 700 (wanted 10.0%)"


def test_sound_variants_raise_no_more_alarms_than_alpha_however_often_one_looks():
    """200 sound ramps at α = 0.05, each looked at 100 times: more than 19 of them would have a probability below 0.005."""
    shares, raised = {"champion": 0.9, "challenger": 0.1}, 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        arms = np.cumsum(random.random(5000) < 0.1)
        errors = random.random(5000) < 0.02
        mine = np.cumsum(errors & (np.diff(arms, prepend=0) == 1))
        for looks in range(50, 5001, 50):
            challenger = arm(int(arms[looks - 1]), int(mine[looks - 1]))
            champion = arm(looks - challenger.requests, int(errors[:looks].sum()) - challenger.errors)
            if found(champion, shares, Bounds(alpha=0.05), challenger=challenger):
                raised += 1
                break
    assert raised <= 2 * 19  # two guards look at it


@pytest.mark.parametrize(("share", "failures"), [(0.01, 3), (0.1, 5), (0.5, 17)])
def test_so_many_failures_of_a_single_sticky_caller_are_an_alarm(share, failures):
    """The figures of docs/operations.md: counters know requests, not units."""
    requests = 100_000
    champion = arm(round(requests * (1 - share)))
    assert found(champion, challenger=arm(round(requests * share), failures)) != []
    assert found(champion, challenger=arm(round(requests * share), failures - 1)) == []
