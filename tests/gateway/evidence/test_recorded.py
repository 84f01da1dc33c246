import time

import numpy as np
import pytest

from gateway.evidence.query import Queries
from gateway.evidence.recorded import recorded_rows
from models.signature import Signature, TensorSpec
from routing.records import Column
from tests.kit.spooled import Place, predictions, request


def signature(*inputs):
    return Signature(inputs=tuple(TensorSpec(name=n, datatype=d, shape=s) for n, d, s in inputs), outputs=())


@pytest.fixture
def stored(tmp_path):
    """Two rows of a scalar, a text and a wider input, received now."""
    place = Place(tmp_path)
    now_us = int(time.time() * 1e6)
    inputs = [
        Column("age", "INT64", (1,), np.array([31, 47], "<i8").tobytes()),
        Column("city", "BYTES", (1,), ["Bern", "Genève"]),
        Column("x", "FP32", (3,), np.arange(6, dtype="<f4").tobytes()),
    ]
    place.store(predictions([request(n, received_unix_us=now_us + n) for n in range(2)], [0.1, 0.2], inputs=inputs))
    return Queries(place.uri)


def test_rows_come_back_as_the_model_takes_them(stored):
    wanted = signature(("age", "INT64", (-1, 1)), ("city", "BYTES", (-1, 1)), ("x", "FP32", (-1, 3)))
    rows = recorded_rows(stored, "phishing", wanted)
    assert {name: values.shape for name, values in rows.items()} == {"age": (2, 1), "city": (2, 1), "x": (2, 3)}
    order = np.argsort(rows["age"].ravel())
    assert rows["city"].ravel()[order].tolist() == ["Bern", "Genève"]
    assert rows["x"][order].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert rows["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("endpoint", "inputs"),
    [
        ("phishing", [("height", "INT64", (-1, 1))]),
        ("spam", [("age", "INT64", (-1, 1))]),
        ("phishing", [("city", "FP64", (-1, 1))]),
        ("phishing", [("x", "FP32", (-1, 2))]),
        ("phishing", [("x", "FP32", (-1, -1))]),
    ],
)
def test_what_was_not_recorded_so_is_not_there(stored, endpoint, inputs):
    assert recorded_rows(stored, endpoint, signature(*inputs)) == {}


def test_an_empty_lake_has_no_rows(tmp_path):
    assert recorded_rows(Queries(str(tmp_path)), "phishing", signature(("age", "INT64", (-1, 1)))) == {}
