import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.streams.arrow import BlockInvalid, choices, expanded, id_floor, id_unix_s, tensors, times, uuids
from models.tensors import NUMPY_OF
from routing.records import Column


@given(st.lists(st.uuids()))
def test_uuids_are_written_as_the_standard_library_writes_them(ids):
    assert uuids([one.bytes for one in ids]).to_pylist() == [str(one) for one in ids]


def test_an_id_of_another_length_is_invalid():
    with pytest.raises(BlockInvalid):
        uuids([uuid.uuid4().bytes, b"short", b"x" * 27])


@pytest.mark.parametrize("datatype", [name for name in NUMPY_OF if name != "BYTES"])
def test_every_datatype_keeps_its_extreme_values(datatype):
    dtype = NUMPY_OF[datatype]
    if dtype.kind == "b":
        values = np.array([True, False])
    elif dtype.kind == "f":
        values = np.array([np.finfo(dtype).max, np.nan], dtype)
    else:
        values = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    (found,) = tensors([[Column("x", datatype, (), values.astype(dtype.newbyteorder("<")).tobytes())]], [2])
    plain = [int(value) if datatype == "UINT64" else value for value in found.values.to_pylist()]
    np.testing.assert_array_equal(plain, values.tolist())


def test_columns_of_many_blocks_are_joined_end_to_end():
    blocks = [
        [Column("a", "BYTES", (2,), ["x", "y"]), Column("b", "FP32", (1,), None)],
        [Column("a", "BYTES", (2,), ["z", "ä", "", "ü"]), Column("b", "FP32", (1,), None)],
    ]
    (found,) = tensors(blocks, [1, 2])
    assert found.values.to_pylist() == [["x", "y"], ["z", "ä"], ["", "ü"]]


def test_a_block_that_is_short_is_not_made_up_for_by_another_that_is_long():
    blocks = [[Column("a", "INT8", (), b"\x01")], [Column("a", "INT8", (), b"\x01\x02\x03")]]
    with pytest.raises(BlockInvalid, match="column 'a'"):
        tensors(blocks, [2, 2])


def test_a_tensor_without_a_row_a_row_is_a_list_of_its_only_request():
    (found,) = tensors([[Column("a", "INT8", (), b"\x01\x02\x03")]], [1])
    assert found.values.to_pylist() == [[1, 2, 3]]


def test_requests_become_their_rows():
    found = expanded({"id": pa.array(["a", "b", "c"])}, [1, 0, 2])
    assert {name: values.to_pylist() for name, values in found.items()} == {
        "id": ["a", "c", "c"],
        "row": [0, 0, 1],
        "rows": [1, 2, 2],
    }


def test_what_names_nothing_is_null():
    assert choices(["a", "b"], [1, -1, 0, 2]).to_pylist() == ["b", None, "a", None]


def test_dates_are_utc_days():
    instants, dates = times([0, 86_400_000_000 - 1, 86_400_000_000, -1])
    assert [str(day) for day in dates.to_pylist()] == ["1970-01-01", "1970-01-01", "1970-01-02", "1969-12-31"]
    assert instants.type == pa.timestamp("us", "UTC")


@pytest.mark.parametrize("unix_s", [0.0, 1.001, 1_800_000_000.123, 32_503_680_000.0])
def test_the_moment_of_the_least_id_of_a_moment_is_that_moment(unix_s):
    assert id_unix_s(id_floor(unix_s)) == pytest.approx(unix_s, abs=1e-3)
    assert id_unix_s(str(uuid.UUID(id_floor(unix_s)))) == int(unix_s * 1000) / 1000
