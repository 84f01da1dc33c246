import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from gateway.evidence.measures import area, binary, classification, log_loss, regression

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
    assert regression([2.0, 2.0], [1.0, 3.0]) == {"mae": 1.0, "rmse": 1.0, "r2": None}
