import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputInvalid
from models.signature import Signature, TensorSpec
from models.signature_check import check, refuse_nonfinite
from models.tensors import FLOATING, INTEGRAL, NUMPY_OF


def spec(name, datatype, *shape, optional=False):
    return TensorSpec(name=name, datatype=datatype, shape=shape, optional=optional)


TENSOR = Signature(inputs=(spec("x", "FP32", -1, 30),), outputs=(spec("y", "FP32", -1),))
COLUMNS = Signature(
    inputs=(spec("age", "FP64", -1, 1), spec("plan", "BYTES", -1, 1), spec("extra", "FP64", -1, 1, optional=True)),
    outputs=(spec("y", "FP32", -1),),
    columns=True,
)


def test_arrays_come_back_in_the_order_of_the_signature_with_their_rows():
    plan = np.array(["a", "b"], dtype=object)
    arrays, rows = check(COLUMNS, {"plan": plan, "extra": np.ones(2), "age": np.array([1.0, 2.0])})
    assert rows == 2
    assert [array.shape for array in arrays] == [(2, 1)] * 3
    assert arrays[0].ravel().tolist() == [1.0, 2.0]
    assert arrays[1].ravel().tolist() == ["a", "b"]


def test_the_message_names_the_input_what_was_wanted_and_what_was_got():
    with pytest.raises(InputInvalid, match=r"^input 'x': wanted FP32 \[-1, 30\], got FP64 \[1, 29\]$"):
        check(TENSOR, {"x": np.zeros((1, 29))})


@pytest.mark.parametrize("shape", [(30,), (1, 29), (1, 1, 30), ()])
def test_a_shape_that_does_not_fit_is_refused(shape):
    with pytest.raises(InputInvalid, match="wanted FP32"):
        check(TENSOR, {"x": np.zeros(shape, dtype=np.float32)})


def test_no_rows_are_refused():
    with pytest.raises(InputInvalid, match="at least one row"):
        check(TENSOR, {"x": np.zeros((0, 30), dtype=np.float32)})


def test_inputs_of_unequal_rows_are_refused():
    with pytest.raises(InputInvalid, match="'plan': wanted 2 rows"):
        check(COLUMNS, {"age": np.ones(2), "plan": np.array(["a"], dtype=object)})


def test_missing_inputs_are_named_and_optional_ones_are_filled():
    with pytest.raises(InputInvalid, match="missing input 'plan'"):
        check(COLUMNS, {"age": np.ones(2)})
    arrays, _ = check(COLUMNS, {"age": np.ones(2), "plan": np.array(["a", "b"], dtype=object)})
    assert arrays[2].shape == (2, 1)
    assert np.isnan(arrays[2]).all()


def test_an_optional_text_is_filled_with_the_empty_string_and_an_optional_integer_cannot_be():
    text = Signature(
        inputs=(spec("a", "FP32", -1, 1), spec("t", "BYTES", -1, 1, optional=True)), outputs=(), columns=True
    )
    assert check(text, {"a": np.ones(2, np.float32)})[0][1].ravel().tolist() == ["", ""]
    number = Signature(
        inputs=(spec("a", "FP32", -1, 1), spec("n", "INT64", -1, 1, optional=True)), outputs=(), columns=True
    )
    with pytest.raises(InputInvalid, match="'n' is missing"):
        check(number, {"a": np.ones(2, np.float32)})


def test_all_inputs_optional_and_none_given_is_refused():
    signature = Signature(inputs=(spec("a", "FP32", -1, 1, optional=True),), outputs=(), columns=True)
    with pytest.raises(InputInvalid, match="no input at all"):
        check(signature, {})


def test_unknown_inputs_are_named_briefly():
    with pytest.raises(InputInvalid, match="unknown input 'zz'"):
        check(TENSOR, {"x": np.zeros((1, 30), np.float32), "zz": np.ones(1)})
    many = {f"u{place}": np.ones(1) for place in range(100)}
    with pytest.raises(InputInvalid, match="and 92 more") as caught:
        check(TENSOR, {"x": np.zeros((1, 30), np.float32), **many})
    assert len(str(caught.value)) < 300


def test_a_column_may_come_flat_and_a_tensor_may_not():
    single = Signature(inputs=(spec("x", "FP32", -1, 1),), outputs=())
    with pytest.raises(InputInvalid):
        check(single, {"x": np.ones(3, np.float32)})
    assert check(Signature(inputs=single.inputs, outputs=(), columns=True), {"x": np.ones(3, np.float32)})[1] == 3


def test_a_signature_without_a_free_first_dimension_is_one_row():
    fixed = Signature(inputs=(spec("x", "FP32", 2, 3),), outputs=())
    assert check(fixed, {"x": np.ones((2, 3), np.float32)})[1] == 1


@pytest.mark.parametrize(
    ("got", "wanted", "is_taken"),
    [
        ("FP32", "FP64", True),
        ("FP16", "FP32", True),
        ("INT32", "INT64", True),
        ("INT32", "FP64", True),
        ("UINT8", "INT16", True),
        ("FP64", "FP32", False),
        ("INT64", "FP64", False),
        ("INT32", "FP32", False),
        ("INT64", "INT32", False),
        ("BOOL", "INT64", False),
        ("INT64", "BOOL", False),
        ("BYTES", "FP32", False),
        ("FP32", "BYTES", False),
    ],
)
def test_only_what_loses_nothing_is_widened(got, wanted, is_taken):
    signature = Signature(inputs=(spec("x", wanted, -1),), outputs=())
    array = np.array(["a"], dtype=object) if got == "BYTES" else np.ones(1, dtype=NUMPY_OF[got])
    if is_taken:
        assert check(signature, {"x": array})[0][0].dtype == NUMPY_OF[wanted]
    else:
        with pytest.raises(InputInvalid, match=rf"wanted {wanted} \[-1\], got {got} \[1\]"):
            check(signature, {"x": array})


@given(st.sampled_from(sorted(FLOATING | INTEGRAL)), st.sampled_from(sorted(FLOATING | INTEGRAL)), st.data())
def test_a_widened_value_survives(got, wanted, data):
    dtype = NUMPY_OF[got]
    if got in INTEGRAL:
        value = data.draw(st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max))
    else:
        value = data.draw(st.floats(width={"FP16": 16, "FP32": 32, "FP64": 64}[got], allow_nan=False))
    signature = Signature(inputs=(spec("x", wanted, -1),), outputs=())
    try:
        arrays, _ = check(signature, {"x": np.array([value], dtype=dtype)})
    except InputInvalid:
        return
    assert arrays[0].tolist() == [value]


def test_a_transposed_array_becomes_contiguous():
    arrays, _ = check(Signature(inputs=(spec("x", "FP32", -1, 2),), outputs=()), {"x": np.ones((2, 3), np.float32).T})
    assert arrays[0].flags.c_contiguous


def test_nonfinite_values_are_refused_where_the_route_says_so():
    arrays, _ = check(COLUMNS, {"age": np.array([1.0, np.nan]), "plan": np.array(["a", "b"], dtype=object)})
    with pytest.raises(InputInvalid, match="'age': wanted finite values"):
        refuse_nonfinite(COLUMNS, arrays)
