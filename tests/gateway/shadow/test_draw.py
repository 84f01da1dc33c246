import numpy as np
import pytest

from gateway.shadow.draw import Answered, Draw, Job, array_of, column_of
from gateway.spool.frame import Frame
from models.tensors import datatype_of
from routing.records import Column
from tests.kit.shadowed import draw_of

X = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize(
    "array",
    [
        X,
        np.array([[True], [False]]),
        np.array([["a", ""], ["ü", "b"]], dtype=object),
        np.zeros((0, 3), np.float64),
        np.arange(3),
    ],
)
def test_a_column_gives_back_the_array_it_was_made_of(array: np.ndarray) -> None:
    column = column_of("x", datatype_of(array), array)

    back = array_of(column)

    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


def test_rows_of_requests_are_taken_end_to_end_and_neighbours_without_a_copy() -> None:
    draw = draw_of({"x": X}, rows=[1, 2, 2, 1])
    x = draw.inputs["x"]

    np.testing.assert_array_equal(draw.take(x, [1, 2]), X[1:5])
    assert np.shares_memory(draw.take(x, [1, 2]), x)
    np.testing.assert_array_equal(draw.take(x, [0, 2, 3]), X[[0, 3, 4, 5]])


def test_a_tensor_without_a_row_a_row_belongs_whole_to_the_only_request() -> None:
    draw = draw_of({"image": np.zeros((3, 8, 8), np.float32)}, rows=[1])

    assert draw.is_whole
    assert draw.take(draw.inputs["image"], [0]).shape == (3, 8, 8)


def test_each_mirror_sees_the_requests_that_it_drew() -> None:
    draw = draw_of({"x": X}, rows=[1, 2, 2, 1], mirrors=("a", "b"), masks=[0b01, 0b11, 0b10, 0])

    assert draw.drawn(0) == [0, 1]
    assert draw.drawn(1) == [1, 2]


def test_values_that_do_not_fit_their_shape_make_the_draw_useless_but_known() -> None:
    draw = draw_of({"x": X}, rows=[1, 1])

    assert not draw.is_whole
    assert draw.drawn(0) == [0, 1]


def test_what_is_no_mirror_block_is_told() -> None:
    with pytest.raises(ValueError, match="mirror frame 3 of w"):
        Draw("w", Frame(3, b"\xc0", 1, 0))
    with pytest.raises(ValueError, match="has no values"):
        array_of(Column("x", "FP32", (1,), None))


def test_the_weight_of_a_request_counts_numbers_by_bytes_and_texts_by_length() -> None:
    draw = draw_of({"x": X[:3], "t": np.array(["ab", "", "xyz"], dtype=object)}, rows=[1, 2])

    assert [draw.input_bytes(index) for index in range(2)] == [10, 19]


def test_a_job_is_done_when_each_request_has_one_outcome() -> None:
    job = Job(draw_of({"x": X}, rows=[1, 2, 2, 1]), "candidate-0", [0, 2, 3])

    job.fail([2], "expired")
    assert job.waiting() == [0, 3]
    job.answer(
        Answered(
            indexes=[0, 3],
            names=["y"],
            outputs=[X[:2]],
            labels=[None] * 2,
            scores=[None] * 2,
            compute_us=1,
            batch_rows=2,
            done_unix_us=1,
        )
    )

    assert job.is_done
    assert job.waiting() == []
