import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from gateway.evidence.measures import area, binary, calibration, classification, log_loss, multiclass, regression

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10).map(lambda n: n / 10)), min_size=1, max_size=60)


@given(PAIRS)
def test_the_area_is_scikit_learns_and_none_for_one_class(pairs):
    y, p = (np.array(values, np.float64) for values in zip(*pairs, strict=True))
    found = area(y, p)
    if len(set(y)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(metrics.roc_auc_score(y, p))


@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), st.integers(1, 9), min_size=1))
def test_means_over_classes_are_scikit_learns(confusion):
    truth = [t for (t, _), count in confusion.items() for _ in range(count)]
    answer = [a for (_, a), count in confusion.items() for _ in range(count)]
    found = classification(confusion, None)
    wanted = metrics.precision_recall_fscore_support(truth, answer, average="macro", zero_division=0)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(list(wanted[:3]))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, answer))
    assert found["error"] == pytest.approx(1 - found["accuracy"])


def test_margins_have_an_area_and_no_probability():
    assert binary([0, 1], [-2.0, 3.0]) == {"log_loss": None, "brier": None, "auc": 1.0}


def test_nothing_is_measured_of_nothing():
    assert set(classification({}, None).values()) == {None}
    assert set(binary([], []).values()) == {None}
    assert set(regression([], []).values()) == {None}
    assert log_loss(np.array([])) is None


def test_a_truth_that_does_not_vary_has_no_explained_share():
    found = regression([2.0, 2.0], [1.0, 3.0])
    assert (found["mae"], found["rmse"], found["bias"], found["r2"]) == (1.0, 1.0, 0.0, None)


def test_the_quantile_loss_is_scikit_learns_and_least_at_the_quantile():
    y = np.random.default_rng(1).exponential(1.0, 2000)
    for at in (0.1, 0.5, 0.9):
        of = lambda answer, at=at: regression(y, np.full(2000, answer))["quantile_loss"][str(at)]
        best = float(np.quantile(y, at))
        assert of(best) == pytest.approx(metrics.mean_pinball_loss(y, np.full(2000, best), alpha=at))
        assert of(best) < min(of(best + 0.2), of(best - 0.2))


def test_several_classes_are_measured_as_scikit_learn_does():
    chance = np.random.default_rng(3)
    p = chance.dirichlet([1, 2, 3], 300)
    y = np.array([chance.choice(3, p=row) for row in p])
    found = multiclass(y, p)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, p))
    assert found["brier"] == pytest.approx(np.mean(np.sum((p - np.eye(3)[y]) ** 2, axis=1)))
    assert multiclass([0, 1, 0], p[:3])["auc"] is None
    assert set(multiclass([], p[:0]).values()) == {None}


def test_scores_that_are_shares_are_calibrated_and_others_are_not():
    chance = np.random.default_rng(4)
    p = chance.random(20_000)
    y = chance.random(20_000) < p
    found = calibration(y, p)
    assert found["calibration_error"] < 0.02
    assert [one["from"] for one in found["calibration"]] == [n / 10 for n in range(10)]
    assert sum(one["rows"] for one in found["calibration"]) == 20_000
    assert calibration(y, p**3)["calibration_error"] > 0.15
    assert calibration([1], [1.0])["calibration"] == [{"from": 0.9, "rows": 1, "mean_score": 1.0, "share": 1.0}]
    assert calibration([1], [3.0]) == {"calibration_error": None, "calibration": []}
