import numpy as np
import pytest

from gateway.shadow.reading import read_remote
from models.runtime.target import RemoteAnswer
from models.signature import Answer

CLASSIFIER = Answer(kind="classification", label_output="label", score_output="probabilities", classes=("no", "yes"))
SCORER = Answer(kind="classification", score_output="probabilities", classes=("no", "yes"))
REGRESSOR = Answer(kind="regression", score_output="value")
LABELS = np.array(["yes", "no"], dtype=object)
MATRIX = np.array([[0.25, 0.75], [0.5, 0.5]])


def read(how: Answer, *outputs: tuple[str, np.ndarray], is_prediction: bool = True):
    found = read_remote(how, RemoteAnswer("1", list(outputs), is_prediction=is_prediction), 2)
    return None if found is None else (found[0], found[2], found[3])


@pytest.mark.parametrize("how", [CLASSIFIER, SCORER])
def test_a_bare_prediction_of_a_classifier_is_its_label(how: Answer) -> None:
    names, labels, scores = read(how, ("", LABELS))
    assert names == [how.label_output or "predictions"]
    assert (labels, scores) == (["yes", "no"], [None, None])


@pytest.mark.parametrize("how", [CLASSIFIER, SCORER])
def test_a_bare_matrix_of_a_classifier_is_its_probabilities(how: Answer) -> None:
    names, labels, scores = read(how, ("", MATRIX))
    assert names == ["probabilities"]
    assert (labels, scores) == (["yes", "no"], [0.75, 0.5])


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_a_bare_prediction_of_a_regression_is_its_value(shape: tuple[int, ...]) -> None:
    assert read(REGRESSOR, ("", np.array([1.5, 2.5]).reshape(shape))) == (["value"], [None, None], [1.5, 2.5])


def test_a_prediction_may_lack_what_the_models_outputs_may_not() -> None:
    assert read(CLASSIFIER, ("label", LABELS)) == (["label"], ["yes", "no"], [None, None])
    assert read(CLASSIFIER, ("label", LABELS), is_prediction=False) is None
    assert read(CLASSIFIER, ("label", LABELS), ("probabilities", MATRIX), is_prediction=False) is not None


def test_what_holds_nothing_that_production_decides_by_cannot_stand_beside_it() -> None:
    assert read(CLASSIFIER, ("other", LABELS)) is None
    assert read(CLASSIFIER) is None
    assert read(CLASSIFIER, ("", LABELS[:1])) is None
    assert read(CLASSIFIER, ("", np.zeros(0))) is None


def test_a_model_that_is_neither_has_its_outputs_kept() -> None:
    names, labels, _ = read(Answer(), ("", MATRIX))
    assert names == ["predictions"]
    assert labels == [None, None]
