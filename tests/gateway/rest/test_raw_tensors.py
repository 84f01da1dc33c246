import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from gateway.rest.raw_tensors import read_raw, texts_of, write_raw
from models.errors import InputInvalid
from models.tensors import NUMPY_OF


@pytest.mark.parametrize("datatype", sorted(set(NUMPY_OF) - {"BYTES"}))
def test_every_number_survives_the_way_there_and_back(datatype):
    array = np.array([[0, 1], [1, 0]], dtype=NUMPY_OF[datatype])
    assert read_raw("x", datatype, [2, 2], write_raw(array)).tolist() == array.tolist()


@given(st.lists(st.text(max_size=20), min_size=1, max_size=20))
def test_texts_travel_as_tritons_own_client_writes_and_reads_them(texts):
    array = np.array([*texts, ""], dtype=object)[:-1]
    assert read_raw("x", "BYTES", [len(texts)], serialize_byte_tensor(array).item()).tolist() == texts
    assert [value.decode() for value in deserialize_bytes_tensor(write_raw(array))] == texts


def test_every_bit_pattern_of_a_float_survives():
    array = np.array([np.nan, np.inf, -np.inf, -0.0], dtype=np.float32)
    assert write_raw(read_raw("x", "FP32", [4], write_raw(array))) == write_raw(array)


def test_an_unaligned_view_is_copied():
    data = memoryview(b"\0" + write_raw(np.array([1.5, 2.5])))[1:]
    array = read_raw("x", "FP64", [2], data)
    assert array.flags.aligned
    assert array.tolist() == [1.5, 2.5]


def test_any_byte_but_zero_is_true():
    assert read_raw("x", "BOOL", [3], b"\0\1\7").tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [2], b"\0" * 7, "wanted 8 bytes for FP32"),
        ("FP32", [1 << 62, 1 << 62], b"", "wanted"),
        ("FP32", [1 << 62, 0], b"", "wanted a smaller shape"),
        ("BOOL", [1 << 62, 0], b"", "wanted a smaller shape"),
        ("BYTES", [1 << 62, 0], b"", "wanted a smaller shape"),
        ("BF16", [1], b"\0\0", "not taken"),
        ("BYTES", [1], b"", "wanted 1 BYTES elements, got 0"),
        ("BYTES", [1], b"\x05\0\0\0ab", "longer than the data"),
        ("BYTES", [1], b"\x05\0", "got 2 bytes"),
        ("BYTES", [1], b"\x01\0\0\0ab", "got 1 and more"),
        ("BYTES", [1 << 60], b"\0\0\0\0", "got 4 bytes"),
        ("BYTES", [1], b"\x01\0\0\0\xff", "UTF-8"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_before_anything_is_allocated(datatype, shape, data, message):
    with pytest.raises(InputInvalid, match=message):
        read_raw("x", datatype, shape, data)


def test_texts_of_nothing_is_an_empty_array():
    assert texts_of("x", []).shape == (0,)


def test_more_strings_than_there_are_lengths_are_refused_at_a_look() -> None:
    with pytest.raises(InputInvalid, match="wanted 3 BYTES elements, got 8 bytes"):
        read_raw("x", "BYTES", [3], bytes(8))
    with pytest.raises(InputInvalid, match="wanted 4611686018427387904 BYTES elements"):
        read_raw("x", "BYTES", [1 << 62], bytes(8))


@pytest.mark.parametrize("texts", [["yes", "no", "", "é"] * 500, [str(place) for place in range(2000)]])
def test_many_strings_are_written_as_a_few_are(texts: list[str]) -> None:
    array = np.array(texts, dtype=object).reshape(-1, 2)
    assert write_raw(array) == serialize_byte_tensor(array).item()
    assert read_raw("x", "BYTES", [len(texts)], write_raw(array)).tolist() == texts
