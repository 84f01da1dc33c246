"""Tuning in its own process: what it leaves beside the artifact, and what stays when it fails."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models import profiles
from models.artifacts import file_digest
from models.staged import Ask, Traffic
from models.tuning.job import Request, TuningFailed, tune
from models.tuning.process import measure
from tests.kit.staged import stage_dense, stage_linear


def test_the_profile_of_this_machine_lies_beside_the_artifact(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    folder = tmp_path / staged.digest
    profile = measure(folder, staged, threads_max=2, budget_s=1.0)
    assert profiles.read(folder) == profile
    assert (profile.processor, profile.threads_max) == (profiles.processor(), 2)
    assert profile.rows_max in profile.seconds_by_rows
    assert profile.trials
    assert profiles.path(folder).stat().st_mode & 0o777 == 0o600
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "staged.json", "profiles"}


def test_a_model_that_fails_on_its_rows_has_no_profile_and_keeps_the_one_it_had(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path, check_row=True)
    folder = tmp_path / staged.digest
    before = measure(folder, staged, budget_s=0.5)
    poisoned = {"x": np.array([[666, 1]], np.float32)}
    with pytest.raises(TuningFailed, match="InputInvalid"):
        measure(folder, staged, recorded=poisoned, budget_s=0.5)
    assert profiles.read(folder) == before


def test_a_process_that_dies_is_a_failure_like_any_other(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    (tmp_path / staged.digest / staged.file).write_bytes(b"no model")
    with pytest.raises(TuningFailed, match="cannot load"):
        measure(tmp_path / staged.digest, staged)


def test_recorded_rows_and_their_number_a_request_are_what_is_measured(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    traffic = Traffic(endpoint="e", requests=9, rows_p50=3, rows_p95=5, rows_max=7)
    recorded = {"x": np.ones((50, 2), np.float32)}
    profile = measure(tmp_path / staged.digest, staged, traffic=traffic, recorded=recorded, budget_s=1.0)
    assert profile.traffic == msgspec.structs.replace(traffic, inputs=50)
    assert {3, 5} <= profile.seconds_by_rows.keys()


def test_rows_recorded_for_other_inputs_are_left_aside(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    traffic = Traffic(endpoint="e", requests=9, rows_p50=1, rows_p95=1, rows_max=1)
    profile = measure(tmp_path / staged.digest, staged, traffic=traffic, recorded={"z": np.ones((5, 2))}, budget_s=0.5)
    assert profile.traffic is not None
    assert profile.traffic.inputs == 0


def test_int8_is_made_only_where_it_is_allowed_and_why_it_is_not_taken_is_said(tmp_path: Path) -> None:
    staged = stage_dense(tmp_path, width=64, layers=2)
    folder = tmp_path / staged.digest
    recorded = {"x": np.random.default_rng(3).normal(size=(40, 64)).astype(np.float32)}
    assert measure(folder, staged, recorded=recorded, budget_s=0.5).certificate is None
    ask = Ask(int8=True, score_tolerance=1e-9)
    profile = measure(folder, staged, ask=ask, recorded=recorded)
    assert profile.setting.form == "plain"
    assert any(text.startswith("form int8: output 'y' is off by") for text in profile.skipped)


def test_a_twin_that_wins_is_kept_beside_the_profile(tmp_path: Path) -> None:
    """One layer of 8 MB and a target that only one row meets: a quarter of the bytes to read is a quarter of the time."""
    staged = stage_dense(tmp_path, width=2048, layers=2)
    folder = tmp_path / staged.digest
    rows = np.random.default_rng(3).normal(size=(40, 2048)).astype(np.float32)
    ask = Ask(int8=True, score_tolerance=0.5, target_s=1e-5)
    profile = measure(folder, staged, ask=ask, recorded={"x": rows}, budget_s=10.0)
    assert profile.certificate is not None
    assert (profile.setting.form, profile.rows_max) == ("int8", 1)
    assert file_digest(folder / profile.twin_file) == profile.twin_sha256


def test_the_job_names_what_it_was_asked_for(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    ask = Ask(target_s=0.01)
    request = Request(artifact=str(tmp_path / staged.digest), into=str(tmp_path), staged=staged, ask=ask, budget_s=0.3)
    profile = tune(request)
    assert (profile.ask, profile.target_met, profile.twin_file) == (ask, True, "")
    assert profile.took_s > 0


def test_a_profile_that_cannot_be_kept_is_a_failure_in_words(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    (tmp_path / staged.digest / profiles.FOLDER).write_bytes(b"in the way")
    with pytest.raises(TuningFailed, match="the profile cannot be made or kept: File exists"):
        measure(tmp_path / staged.digest, staged, budget_s=0.2)
