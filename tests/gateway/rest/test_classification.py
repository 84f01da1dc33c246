import numpy as np
import pytest

from gateway.rest.classification import classify
from models.errors import InputInvalid
from tests.kit.onnx_models import classifier, columns, spec
from tests.kit.small_corridor import Loaded


@pytest.fixture(scope="module")
def model():
    return Loaded("m", "1", classifier()).staged


def test_the_best_classes_come_first_with_value_index_and_label(model):
    scores = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
    best = classify(model.signature.outputs[1], scores, 2, model)
    assert best.tolist() == [["0.750000:1:1", "0.250000:0:0"], ["1.000000:0:0", "0.000000:1:1"]]


def test_at_most_the_classes_there_are(model):
    scores = np.array([[0.25, 0.75]], dtype=np.float32)
    assert classify(model.signature.outputs[1], scores, 1, model).shape == (1, 1)
    assert classify(model.signature.outputs[1], scores, 99, model).shape == (1, 2)


def test_equal_values_keep_their_order_and_nan_sorts_last(model):
    scores = np.array([[0.5, 0.5], [np.nan, 0.1]], dtype=np.float32)
    assert classify(model.signature.outputs[1], scores, 2, model).tolist() == [
        ["0.500000:0:0", "0.500000:1:1"],
        ["0.100000:1:1", "nan:0:0"],
    ]


def test_an_output_that_is_not_the_score_has_no_labels(model):
    labels = np.array([1, 0], dtype=np.int64)
    assert classify(model.signature.outputs[0], labels, 1, model).tolist() == [["1:0"], ["0:0"]]


def test_text_has_no_order():
    model = Loaded("m", "1", columns()).staged
    with pytest.raises(InputInvalid, match="no classification of BYTES"):
        classify(spec("plan_out", "BYTES", -1), np.array(["a"], dtype=object), 1, model)
