import random

import numpy as np

from gateway.evidence.paired import Outcomes, PairedTests
from routing.experiments.betting import LossTest
from routing.experiments.mcnemar import McNemar

CLASSES, LOSSES = McNemar(alpha=0.05), LossTest(alpha=0.05)


def outcomes(seed, count):
    chance = random.Random(seed)
    return columns([(n, chance.random() < 0.7, chance.random() < 0.9) for n in range(count)])


def columns(rows):
    return Outcomes(*(np.array(column) for column in zip(*rows, strict=True)))


def first(found, count):
    return Outcomes(*(column[:count] for column in found))


def test_going_on_gives_what_starting_over_gives():
    all_of_them = outcomes(1, 300)
    tests = PairedTests()
    for stop in (0, 1, 50, 50, 299, 300):
        looked = tests.test(("key",), CLASSES, first(all_of_them, stop))
    assert looked.told() == PairedTests().test(("key",), CLASSES, all_of_them).told()
    assert looked.told()["verdict"] == "better"
    assert looked.decided_at is not None


def test_an_order_that_changed_is_computed_anew():
    tests = PairedTests()
    tests.test(("key",), CLASSES, outcomes(1, 100))
    assert (
        tests.test(("key",), CLASSES, outcomes(2, 100)).told()
        == PairedTests().test((), CLASSES, outcomes(2, 100)).told()
    )


def test_no_outcome_is_inconclusive():
    told = PairedTests().test((), CLASSES, first(outcomes(1, 1), 0)).told()
    assert (told["verdict"], told["units"], told["difference"], told["live_accuracy"]) == (
        "inconclusive",
        0,
        None,
        None,
    )


def test_losses_go_on_as_they_would_from_the_start():
    chance = random.Random(7)
    found = columns([(n, abs(chance.gauss(0, 2)), abs(chance.gauss(0, 1))) for n in range(400)])
    tests = PairedTests()
    for stop in (0, 60, 60, 399, 400):
        looked = tests.test(("key",), LOSSES, first(found, stop))
    assert looked.told() == PairedTests().test(("key",), LOSSES, found).told()
    assert looked.told()["verdict"] == "better"
    assert tests.test(("key",), CLASSES, first(outcomes(1, 1), 0)).told()["test"] == "sequential_mcnemar"


def test_no_loss_is_inconclusive():
    told = PairedTests().test((), LOSSES, first(outcomes(1, 1), 0)).told()
    assert (told["verdict"], told["units"], told["difference"], told["live_loss"]) == ("inconclusive", 0, None, None)
