import numpy as np
import pytest

from models.answer import read, text_of, texts
from models.signature import Answer

BINARY = Answer(kind="classification", label_output="label", score_output="probabilities", classes=(0, 1))


def test_a_binary_score_is_the_probability_of_the_last_class():
    labels, scores = read(
        BINARY, ["label", "probabilities"], [np.array([0, 1]), np.array([[0.75, 0.25], [0.5, 0.5]], np.float32)]
    )
    assert labels == ["0", "1"]
    assert scores == [0.25, 0.5]


def test_without_a_label_output_the_largest_score_decides():
    answer = Answer(kind="classification", score_output="p", classes=("cat", "dog", "eel"))
    assert read(answer, ["p"], [np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])]) == (["eel", "cat"], [0.7, 0.6])


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_score_a_row_is_the_probability_of_the_second_class(shape):
    answer = Answer(kind="classification", score_output="p", classes=(False, True))
    assert read(answer, ["p"], [np.array([0.1, 0.5, 0.9]).reshape(shape)]) == (
        ["false", "true", "true"],
        [0.1, 0.5, 0.9],
    )


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_a_regression_has_a_score_and_no_label(shape):
    answer = Answer(kind="regression", score_output="variable")
    assert read(answer, ["variable"], [np.array([1.5, -2.0], np.float32).reshape(shape)]) == ([None, None], [1.5, -2.0])


def test_a_regression_of_several_values_has_no_single_score():
    answer = Answer(kind="regression", score_output="variable")
    assert read(answer, ["variable"], [np.zeros((2, 3))]) == ([None, None], [None, None])


def test_what_is_not_finite_is_no_score_and_decides_nothing():
    answer = Answer(kind="classification", score_output="p", classes=("a", "b"))
    assert read(answer, ["p"], [np.array([[np.nan, np.nan], [0.2, 0.8]])]) == ([None, "b"], [None, 0.8])
    regression = Answer(kind="regression", score_output="v")
    assert read(regression, ["v"], [np.array([np.inf, 1.0])]) == ([None, None], [None, 1.0])


def test_without_named_classes_the_label_is_the_column():
    assert read(Answer(kind="classification", score_output="p"), ["p"], [np.array([[0.1, 0.9]])])[0] == ["1"]


def test_outputs_that_are_absent_or_text_read_as_none():
    assert read(BINARY, ["other"], [np.zeros(2)]) == ([None, None], [None, None])
    assert read(Answer(score_output="t"), ["t"], [np.array(["x"], object)]) == ([None], [None])
    assert read(Answer(), ["x"], [np.zeros((1, 4))]) == ([None], [None])
    assert read(BINARY, [], []) == ([], [])


def test_no_rows_read_as_no_answers():
    assert read(BINARY, ["label", "probabilities"], [np.zeros(0, np.int64), np.zeros((0, 2))]) == ([], [])
    assert read(Answer(kind="regression", score_output="v"), ["v"], [np.zeros((0, 1))]) == ([], [])


def test_equal_labels_have_one_text_whatever_their_type():
    assert {text_of(value) for value in (1, 1.0, "1", np.int64(1), np.float32(1), b"1")} == {"1"}
    assert text_of(True) == "true"
    assert text_of(0.25) == "0.25"
    assert text_of(1e300) == "1e+300"


def test_texts_of_every_kind_of_array():
    assert texts(np.array(["a", "b"], object)) == ["a", "b"]
    assert texts(np.array(["a"])) == ["a"]
    assert texts(np.array([True])) == ["true"]
    assert texts(np.array([1.0, np.nan])) == ["1", None]
    assert texts(np.array([None, "x"], object)) == [None, "x"]
