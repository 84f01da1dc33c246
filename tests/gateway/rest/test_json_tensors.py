import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rest.json_tensors import RANK_MAX, depth_of, read_json
from models.errors import InputInvalid


@pytest.mark.parametrize(
    ("datatype", "raw", "wanted"),
    [
        ("FP32", b"[[1, 2.5], [3, 4]]", [[1, 2.5], [3, 4]]),
        ("FP16", b"[0.5]", [0.5]),
        ("INT8", b"[-128, 127]", [-128, 127]),
        ("UINT64", b"[18446744073709551615]", [2**64 - 1]),
        ("BOOL", b"[true, false]", [True, False]),
        ("BYTES", '["ä", "b"]'.encode(), ["ä", "b"]),
        ("BYTES", b'[["aGVsbG8="]]', [["aGVsbG8="]]),
        ("FP64", b" [ [ ] ] ", [[]]),
        ("FP64", b"7", 7.0),
    ],
)
def test_values_are_read_in_the_shape_of_their_nesting(datatype, raw, wanted):
    assert read_json("x", datatype, raw).tolist() == wanted


def test_null_is_nan_in_a_floating_tensor_only():
    assert np.isnan(read_json("x", "FP32", b"[null]")).all()
    for datatype in ("INT64", "BOOL", "BYTES"):
        with pytest.raises(InputInvalid, match=f"wanted {datatype} data"):
            read_json("x", datatype, b"[null]")


@pytest.mark.parametrize(
    ("datatype", "raw", "message"),
    [
        ("FP32", b"[NaN]", "send null for a missing value"),
        ("FP32", b"[-Infinity]", "send null for a missing value"),
        ("FP32", b"[1e999]", "out of range"),
        ("FP32", b"[1e300]", "outside the range of FP32"),
        ("FP16", b"[1e6]", "outside the range of FP16"),
        ("INT8", b"[128]", "outside the range of INT8"),
        ("UINT8", b"[-1]", "outside the range of UINT8"),
        ("INT64", b"[9223372036854775808]", "outside the range of INT64"),
        ("INT64", b"[1.5]", "Expected `int`"),
        ("FP32", b'["1"]', "Expected `float"),
        ("FP32", b"[[1], [2, 3]]", "unequal length"),
        ("BYTES", b'[["a"], ["b", "c"]]', "unequal length"),
        ("FP32", b"[1, [2]]", "Expected `float"),
        ("FP32", b"[" * (RANK_MAX + 1), "nested deeper"),
        ("BF16", b"[1]", "'BF16' is not taken"),
        ("BYTES", b'["\xff"]', "not UTF-8"),
    ],
)
def test_what_is_no_tensor_is_refused_by_name(datatype, raw, message):
    with pytest.raises(InputInvalid, match=message) as caught:
        read_json("x", datatype, raw)
    assert "'x'" in str(caught.value)


def test_base64_is_read_only_where_it_is_allowed():
    raw = b'[{"b64": "w6Q="}, "plain"]'
    assert read_json("x", "BYTES", raw, base64_allowed=True).tolist() == ["ä", "plain"]
    with pytest.raises(InputInvalid):
        read_json("x", "BYTES", raw)
    for bad in (b'[{"b64": "%"}]', b'[{"b64": "/w=="}]'):
        with pytest.raises(InputInvalid, match="base64"):
            read_json("x", "BYTES", bad, base64_allowed=True)


def test_reading_stops_at_the_first_value_of_another_kind():
    bomb = b"[1," + b"[]," * 1_000_000 + b"[]]"
    with pytest.raises(InputInvalid, match=r"\$\[1\]"):
        read_json("x", "INT64", bomb)


@given(st.binary(max_size=40))
def test_any_bytes_give_an_array_or_a_refusal(raw):
    for datatype in ("FP32", "INT64", "BYTES", "BOOL"):
        with contextlib.suppress(InputInvalid):
            read_json("x", datatype, raw)


def test_the_depth_stops_counting_above_the_highest_rank():
    assert depth_of(b" [ [ 1") == 2
    assert depth_of(b"[" * 1000) == RANK_MAX + 1
