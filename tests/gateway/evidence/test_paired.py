import random

from gateway.evidence.paired import PairedTests


def outcomes(seed, count):
    chance = random.Random(seed)
    return [(n, chance.random() < 0.7, chance.random() < 0.9) for n in range(count)]


def test_going_on_gives_what_starting_over_gives():
    all_of_them = outcomes(1, 300)
    tests = PairedTests()
    for stop in (0, 1, 50, 50, 299, 300):
        looked = tests.test(("key",), 0.05, all_of_them[:stop])
    assert looked.told() == PairedTests().test(("key",), 0.05, all_of_them).told()
    assert looked.told()["verdict"] == "better"
    assert looked.decided_at is not None


def test_an_order_that_changed_is_computed_anew():
    tests = PairedTests()
    tests.test(("key",), 0.05, outcomes(1, 100))
    assert tests.test(("key",), 0.05, outcomes(2, 100)).told() == PairedTests().test((), 0.05, outcomes(2, 100)).told()


def test_no_outcome_is_inconclusive():
    told = PairedTests().test((), 0.05, []).told()
    assert (told["verdict"], told["units"], told["difference"], told["live_accuracy"]) == (
        "inconclusive",
        0,
        None,
        None,
    )
