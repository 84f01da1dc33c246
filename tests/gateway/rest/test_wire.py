"""The hot decoder reads exactly the plain form and leaves everything else to the ordinary path."""

import numpy as np
import orjson
import pytest

from gateway.rest.wire import LARGE_BYTES, HotSignature, decode
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


WIDE = TensorSpec(name="x", datatype="FP32", shape=(-1, 3, 100))
VALUES = [round(0.1 * number, 3) for number in range(600)]
NESTED = [[[*VALUES[300 * row + 100 * part : 300 * row + 100 * part + 100]] for part in range(3)] for row in range(2)]


def wide(**changes: object) -> bytes:
    made = body(**({"shape": [2, 3, 100], "data": VALUES} | changes))
    assert len(made) > LARGE_BYTES
    return made


def test_a_large_body_is_read_to_arrays_of_the_same_values() -> None:
    hot = HotSignature.of(signature(WIDE))
    assert hot is not None
    for given in (wide(), bytearray(wide()), wide(data=[*map(int, VALUES)])):
        found = decode(given, hot)
        assert found is not None
        (array,), rows, wire_id = found
        assert isinstance(array, np.ndarray)
        assert (rows, wire_id, array.dtype, array.shape) == (2, "7", np.float32, (2, 3, 100))
        np.testing.assert_array_equal(array.ravel(), np.array(orjson.loads(given)["inputs"][0]["data"], np.float32))


def test_a_large_body_with_null_is_read_by_the_typed_decoder() -> None:
    hot = HotSignature.of(signature(WIDE))
    assert hot is not None
    found = decode(wide(data=[*VALUES[:-1], None]), hot)
    assert found is not None
    assert found[0][0][-1] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "z"},
        {"datatype": "FP64"},
        {"shape": [2, 100, 3]},
        {"shape": [2.0, 3, 100]},
        {"shape": [0, 3, 100]},
        {"shape": [-2, 3, 100]},
        {"shape": []},
        {"shape": "2"},
        {"data": VALUES[:-1]},
        {"data": NESTED},
        {"data": [[value] for value in VALUES]},
        {"data": [*VALUES[:-1], "1"]},
        {"data": [*VALUES[:-1], True]},
        {"data": [*VALUES[:-1], {}]},
        {"data": "1" * 1000},
        {"parameters": {"binary_data_size": 8}},
        {"extra": "x"},
    ],
)
def test_large_or_small_the_same_is_read(changes: dict[str, object]) -> None:
    """The typed decoder judges what simdjson leaves: it has no extra keys to look at, so that one is read, by it."""
    hot = HotSignature.of(signature(WIDE))
    assert hot is not None
    found = decode(wide(**changes), hot)
    assert found is None or (type(found[0][0]) is list and "extra" in changes)


@pytest.mark.parametrize(
    "given",
    [
        wide()[:-1],
        wide() + b"]",
        wide().replace(b'"id":"7"', b'"id":7'),
        wide().replace(b'"id":"7"', b'"outputs":[]'),
        wide().replace(b'"inputs":[', b'"inputs":[1,'),
        b"[" + wide() + b"]",
        wide().replace(b"0.1", b"NaN"),
        wide().replace(b"0.1", b"\xff"),
        b"9" * 2 * LARGE_BYTES,
    ],
)
def test_a_large_body_that_is_no_request_is_left_to_the_ordinary_path(given: bytes) -> None:
    hot = HotSignature.of(signature(WIDE))
    assert hot is not None
    found = decode(given, hot)
    assert found is None or b'"outputs":[]' in given  # an empty list asks for all of them


def test_bodies_that_are_no_request_are_left_to_the_ordinary_path() -> None:
    assert HOT is not None
    for bad in (
        b"",
        b"{",
        body().replace(b"x", b"\xff"),
        b"[]",
        b'{"inputs": []}',
        b"[" * 100_000,
        b'{"inputs": [{"name":"x","data":[NaN]}]}',
    ):
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


def test_outputs_without_a_row_for_each_of_the_inputs_are_not_hot() -> None:
    for shape in ((4,), ()):
        outputs = (TensorSpec(name="y", datatype="FP32", shape=shape),)
        assert HotSignature.of(Signature(inputs=(X,), outputs=outputs)) is None


def test_a_value_too_large_for_its_datatype_is_infinite_as_numpy_has_it() -> None:
    assert HOT is not None
    decoded = decode(body(data=[1e300, 0]), HOT)
    assert decoded is not None
    with np.errstate(over="ignore"):
        assert np.isinf(np.array(decoded[0][0], np.float32)[0])
