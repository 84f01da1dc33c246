"""Requests joined end to end keep their rows and their order, whatever form each arrived in."""

from pathlib import Path

import numpy as np

from models.batching import fill_samples, gather, to_array
from models.signature import TensorSpec
from tests.kit.staged import stage_linear

SPEC = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))


def test_flat_lists_of_several_requests_become_one_array() -> None:
    joined = gather([[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]], SPEC)
    assert joined.dtype == np.float32
    assert joined.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_null_is_not_a_number() -> None:
    assert np.isnan(gather([[1.0, None]], SPEC)[0, 1])


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
