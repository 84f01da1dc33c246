"""Requests joined end to end keep their rows and their order, whatever form each arrived in."""

from pathlib import Path

import numpy as np
import pytest

from models.batching import FlatRows, fill_samples, gather, to_array
from models.signature import TensorSpec
from models.tensors import NUMPY_OF
from tests.kit.staged import stage_linear

SPEC = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))


def test_flat_lists_of_several_requests_become_one_array() -> None:
    joined = gather([[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]], SPEC)
    assert joined.dtype == np.float32
    assert joined.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_null_is_not_a_number() -> None:
    assert np.isnan(gather([[1.0, None]], SPEC)[0, 1])


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_packed_values_are_numpys(datatype: str) -> None:
    spec = TensorSpec(name="x", datatype=datatype, shape=(-1, 2))
    parts: list[FlatRows] = [[0.1, -1e-300], [1e38, 16_777_217.0]]
    np.testing.assert_array_equal(gather(parts, spec), np.array(parts, NUMPY_OF[datatype]))


def test_a_double_beyond_a_float_is_infinite() -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 1))
    assert gather([[1e39], [-1e39]], spec).tolist() == [[np.inf], [-np.inf]]


def test_lists_and_arrays_share_a_batch() -> None:
    joined = gather([[1.0, 2.0], np.array([[3, 4]], np.float32)], SPEC)
    assert joined.tolist() == [[1, 2], [3, 4]]


def test_one_array_is_taken_without_a_copy() -> None:
    array = np.array([[3, 4]], np.float32)
    assert gather([array], SPEC) is array
    assert to_array(array, SPEC) is array


def test_without_stored_samples_a_model_is_warmed_with_zeros(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path, columns=3)
    (sample,) = fill_samples(staged, tmp_path / staged.digest)
    assert sample.tolist() == [[0, 0, 0]]
