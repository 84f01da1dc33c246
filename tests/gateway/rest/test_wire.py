"""The hot decoder reads exactly the plain form and leaves everything else to the ordinary path."""

import numpy as np
import orjson
import pytest

from gateway.rest.wire import HotSignature, decode
from models.signature import Signature, TensorSpec


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),))


X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
HOT = HotSignature.of(signature(X))


def body(**changes: object) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]} | changes
    return orjson.dumps({"id": "7", "inputs": [tensor]})


def test_the_plain_body_is_read_to_flat_lists() -> None:
    assert HOT is not None
    assert decode(body(), HOT) == ([[1.0, 2.5]], 1, "7")
    assert decode(body(shape=[2, 2], data=[1, 2, 3, None]), HOT) == ([[1.0, 2.0, 3.0, None]], 2, "7")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "z"},
        {"datatype": "FP64"},
        {"shape": [1, 3]},
        {"shape": [2]},
        {"shape": [0, 2], "data": []},
        {"shape": [-1, 2]},
        {"data": [1]},
        {"data": [[1, 2]]},
        {"data": ["1", "2"]},
        {"data": [True, False]},
        {"parameters": {"binary_data_size": 8}},
    ],
)
def test_whatever_is_unusual_is_left_to_the_ordinary_path(changes: dict[str, object]) -> None:
    assert HOT is not None
    assert decode(body(**changes), HOT) is None


def test_bodies_that_are_no_request_are_left_to_the_ordinary_path() -> None:
    assert HOT is not None
    for bad in (b"", b"{", b"[]", b'{"inputs": []}', b"[" * 100_000, b'{"inputs": [{"name":"x","data":[NaN]}]}'):
        assert decode(bad, HOT) is None


def test_columns_may_come_in_any_order_but_each_once() -> None:
    hot = HotSignature.of(signature(*(TensorSpec(name=name, datatype="FP64", shape=(-1, 1)) for name in ("a", "b"))))
    assert hot is not None

    def columns(*names: str) -> bytes:
        tensors = [{"name": name, "shape": [1, 1], "datatype": "FP64", "data": [ord(name)]} for name in names]
        return orjson.dumps({"inputs": tensors})

    assert decode(columns("b", "a"), hot) == ([[97.0], [98.0]], 1, None)
    assert decode(columns("a", "a"), hot) is None
    assert decode(columns("a"), hot) is None


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec(name="x", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="x", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="x", datatype="FP32", shape=(-1, -1)),
        TensorSpec(name="x", datatype="FP32", shape=(1, 4)),
    ],
)
def test_signatures_with_anything_else_are_not_hot(spec: TensorSpec) -> None:
    assert HotSignature.of(signature(spec)) is None


def test_a_value_too_large_for_its_datatype_is_infinite_as_numpy_has_it() -> None:
    assert HOT is not None
    decoded = decode(body(data=[1e300, 0]), HOT)
    assert decoded is not None
    with np.errstate(over="ignore"):
        assert np.isinf(np.array(decoded[0][0], np.float32)[0])
