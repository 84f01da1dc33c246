"""A model is measured by a process of its own, and what comes of it is a profile that a catalog takes up, or nothing at all."""

from pathlib import Path

import numpy as np
import pytest

from models import profiles
from models.catalog import Catalog
from models.errors import StagingRefused
from models.staged import Ask, Certificate
from models.tuning.int8 import certify, quantise
from models.tuning.job import TuningFailed
from models.tuning.process import measure
from tests.kit.staged import stage_linear


def test_a_measured_model_has_a_curve_and_is_served_by_it(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path, columns=4)
    profile = measure(tmp_path / staged.digest, staged, budget_s=0.5)
    assert profile.seconds_by_rows[1] > 0
    assert profiles.read(tmp_path / staged.digest) == profile
    model = Catalog(tmp_path).load(staged.digest)
    label, _ = model.run([np.ones((3, 4), np.float32)])
    assert label.tolist() == [1, 1, 1]


def test_a_model_that_cannot_be_measured_leaves_what_was_there(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    (tmp_path / staged.digest / staged.file).write_bytes(b"no model")
    with pytest.raises(TuningFailed):
        measure(tmp_path / staged.digest, staged, budget_s=0.5)
    assert profiles.read(tmp_path / staged.digest) is None


def test_an_int8_twin_is_certified_against_the_plain_file_or_refused(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path, columns=16, slope=0.05)
    source, twin = tmp_path / staged.digest / staged.file, tmp_path / "twin.onnx"
    quantise(source, twin, reduce_range=not profiles.has_integer_dot_product())
    values = np.random.default_rng(1).uniform(0.5, 2, size=(256, 16)).astype(np.float32)  # no row near the threshold

    def compare(tolerance: float) -> Certificate:
        ask = Ask(int8=True, score_tolerance=tolerance)
        return certify(source, twin, staged.signature, staged.answer, [values], ask, rows=256, recorded=100)

    certificate = compare(0.05)
    assert (certificate.rows, certificate.generated_rows, certificate.labels_equal) == (256, 156, True)
    assert 0 < certificate.score_difference_max < 0.05
    with pytest.raises(StagingRefused, match=r"is off by .* allowed is 1e-09"):
        compare(1e-9)
