"""The int8 twin is made where there is something to quantise, and certified row by row and in batches, or refused with the reason."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.errors import StagingRefused
from models.staged import Ask, Certificate, StagedModel
from models.tuning import int8
from tests.kit.staged import stage_dense, stage_linear

ROWS = np.random.default_rng(3).normal(size=(40, 64)).astype(np.float32)


def certified(folder: Path, staged: StagedModel, rows: np.ndarray, tolerance: float) -> Certificate:
    model, twin = folder / staged.digest / staged.file, folder / "twin.onnx"
    int8.quantise(model, twin, reduce_range=True)
    ask = Ask(int8=True, score_tolerance=tolerance)
    return int8.certify(model, twin, staged.signature, staged.answer, [rows], ask, rows=len(rows), recorded=0)


def test_a_twin_is_smaller_and_its_certificate_says_how_near_it_answers(tmp_path: Path) -> None:
    staged = stage_dense(tmp_path, width=64, layers=2)
    certificate = certified(tmp_path, staged, ROWS, 0.2)
    assert (certificate.rows, certificate.labels_equal) == (40, True)
    assert 0 < certificate.score_difference_max <= 0.2 * (1 + 10)
    assert (tmp_path / "twin.onnx").stat().st_size < 0.5 * staged.size_bytes


def test_scores_outside_the_tolerance_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StagingRefused, match=r"output 'y' is off by .* allowed is 1e-06"):
        certified(tmp_path, stage_dense(tmp_path, width=64, layers=2), ROWS, 1e-6)


def test_another_label_is_refused_whatever_the_scores_are(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path, columns=64)
    beside = (
        ROWS - ROWS.sum(axis=1, keepdims=True) / 64 + np.float32(1e-5)
    )  # sums just above nought: any change flips the label
    with pytest.raises(StagingRefused, match="output 'label' differs"):
        certified(tmp_path, staged, beside, 1.0)


def test_a_row_alone_must_answer_as_well_as_in_its_batch(tmp_path: Path) -> None:
    """One row a thousand times as large takes the scale of the batch: its mates are rounded to nothing."""
    rows = ROWS.copy()
    rows[20] *= 1000
    with pytest.raises(StagingRefused, match="is off by"):
        certified(tmp_path, stage_dense(tmp_path, width=64, layers=2), rows, 0.2)


def test_a_model_without_weights_to_quantise_is_refused(tmp_path: Path) -> None:
    staged = stage_dense(tmp_path, width=64, layers=0)
    with pytest.raises(StagingRefused, match="no weights that can be quantised"):
        certified(tmp_path, staged, ROWS, 0.2)


def test_few_rows_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(StagingRefused, match="wanted at least 32 rows"):
        certified(tmp_path, stage_dense(tmp_path, width=64, layers=2), ROWS[:5], 0.2)


def test_classes_that_are_decided_by_the_largest_score_must_be_the_same(tmp_path: Path) -> None:
    staged = stage_dense(tmp_path, width=64, layers=2)
    answer = msgspec.structs.replace(staged.answer, kind="classification", label_output=None, score_output="y")
    level = {"y": np.array([[0.5, 0.5001]], np.float32)}
    with pytest.raises(StagingRefused, match="decides otherwise"):
        int8._compared(level, {"y": np.array([[0.5001, 0.5]], np.float32)}, answer, Ask(score_tolerance=0.1), 0)
