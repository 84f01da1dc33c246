import numpy as np
import pytest

from gateway.evidence import intervals
from gateway.evidence.intervals import Units
from gateway.evidence.measures import area, binary, classification, regression

CHANCE = np.random.default_rng(11)


def answered(chance, units, rows_each):
    """Truths, scores and units; rows of a unit share their fate: a unit is easy or hard."""
    unit = np.repeat(np.arange(units), rows_each)
    hard = np.repeat(chance.random(units) < 0.3, rows_each)
    truth = (chance.random(len(unit)) < 0.5).astype(int)
    right = np.where(hard, chance.random(len(unit)) < 0.55, chance.random(len(unit)) < 0.95)
    scores = np.clip(np.where(right, truth, 1 - truth) * 0.6 + chance.random(len(unit)) * 0.4, 0, 1)
    return truth, scores, unit


@pytest.fixture(scope="module")
def true():
    """What the measures come to with very many units."""
    truth, scores, _ = answered(np.random.default_rng(1), 200_000, 2)
    names = np.array(["0", "1"])
    answer = (scores >= 0.5).astype(int)
    counts = {(names[t], names[a]): int(np.sum((truth == t) & (answer == a))) for t in (0, 1) for a in (0, 1)}
    return classification(counts, "1") | binary(truth, scores)


@pytest.mark.parametrize("rows_each", [1, 5])
def test_the_true_value_is_inside_at_one_look_nearly_always_also_where_units_come_often(true, rows_each):
    """A look costs what all looks together may cost, so one alone misses far less than 5%."""
    missed = dict.fromkeys(("accuracy", "precision", "recall", "f1", "auc", "log_loss", "brier"), 0)
    width = 0.0
    for _ in range(200):
        truth, scores, unit = answered(CHANCE, 800, rows_each)
        units = Units(unit)
        found = intervals.of_classes(truth, (scores >= 0.5).astype(int), 1, units)
        found |= intervals.of_probabilities(truth, scores, units)
        for name in missed:
            low, high = found[name]
            missed[name] += not low <= true[name] <= high
        width += (found["accuracy"][1] - found["accuracy"][0]) / 200
    assert max(missed.values()) <= 3, missed
    assert width < 0.1


def test_the_width_without_units_is_that_of_the_textbook_times_a_factor():
    y, p = CHANCE.normal(0, 1, 1000), np.zeros(1000)
    low, high = intervals.of_regression(y, p, Units(np.arange(1000)))["bias"]
    textbook = np.std(y) / np.sqrt(1000)
    assert (high - low) / 2 == pytest.approx(textbook * 3.03, rel=0.01)


def test_looking_after_every_row_misses_the_mean_no_oftener_than_it_says():
    """What a pointwise interval does in every second run."""
    missed = 0
    for seed in range(100):
        y = np.random.default_rng(seed).normal(0, 1, 2000)
        looks = range(60, 2001, 20)
        found = [intervals.of_regression(y[:n], np.zeros(n), Units(np.arange(n)))["bias"] for n in looks]
        missed += any(low > 0 or high < 0 for low, high in found)
    assert missed <= 12


def test_the_influence_on_the_area_adds_up_to_nothing_and_gives_delongs_variance():
    truth, scores, _ = answered(np.random.default_rng(2), 500, 1)
    value = area(truth.astype(float), scores)
    influence = intervals.area_influence(truth.astype(float), scores, value)
    assert influence.sum() == pytest.approx(0, abs=1e-9)
    resampled = []
    for _ in range(400):
        drawn = CHANCE.integers(0, 500, 500)
        resampled.append(area(truth[drawn].astype(float), scores[drawn]))
    assert np.sqrt(np.sum(influence**2)) == pytest.approx(np.std(resampled), rel=0.15)


def test_too_little_data_has_no_interval():
    few = Units(np.arange(29))
    assert intervals.of_regression(np.ones(29), np.zeros(29), few)["mae"] is None
    one_unit = Units(np.zeros(500))
    assert intervals.of_mean(np.ones(500), one_unit) is None
    all_right = intervals.of_classes(np.ones(100), np.ones(100), 1, Units(np.arange(100)))
    assert set(all_right.values()) == {None}


def test_what_did_not_vary_is_not_sure_for_that():
    found = intervals.of_regression(np.arange(50.0), np.arange(50.0), Units(np.arange(50)))
    assert set(found.values()) == {None}
    assert regression(np.arange(50.0), np.arange(50.0))["rmse"] == 0.0
    truth = np.arange(100) % 2
    assert intervals.of_probabilities(truth, truth * 0.5, Units(np.arange(100)))["auc"] is None
