"""What is loaded is whole, warm and held open as long as somebody needs it."""

from pathlib import Path
from shutil import copyfile

import msgspec
import numpy as np
import pytest

from models import profiles
from models.artifacts import file_digest
from models.catalog import Catalog
from models.errors import ArtifactInvalid, InputInvalid
from models.runtime.onnx import VERSION
from models.staged import ModelKey, Profile, Setting, StagedModel
from tests.kit.staged import stage_linear


def test_a_model_is_loaded_once_and_answers(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    catalog = Catalog(tmp_path)
    model = catalog.load(staged.digest)
    assert catalog.load(staged.digest) is model
    label, probabilities = model.run([np.array([[1, 2], [-3, 1]], np.float32)])
    assert label.tolist() == [1, 0]
    assert probabilities.shape == (2, 2)


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    path = tmp_path / staged.digest / staged.file
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactInvalid, match="does not have the digest of its manifest"):
        Catalog(tmp_path).load(staged.digest)


def test_a_model_that_fails_while_it_is_warmed_is_not_kept(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path, check_row=True)
    folder = tmp_path / staged.digest
    np.savez(folder / "samples.npz", x=np.array([[666, 1]], np.float32))
    broken = StagedModel(
        **{name: getattr(staged, name) for name in staged.__struct_fields__} | {"samples_file": "samples.npz"}
    )
    broken.write(folder)
    catalog = Catalog(tmp_path)
    with pytest.raises(InputInvalid):
        catalog.load(staged.digest)
    assert catalog.loaded() == []


def test_a_leased_model_is_let_go_only_after_the_last_lease(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    catalog = Catalog(tmp_path)
    model = catalog.load(staged.digest)
    model.leases += 1
    assert catalog.retain(set()) == []
    model.leases -= 1
    assert catalog.retain(set()) == [model]
    assert catalog.get(staged.digest) is None


def test_the_curve_predicts_between_and_beyond_what_was_measured(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    ticks = iter(range(1, 10_000))
    model = Catalog(tmp_path).load(staged.digest)
    model.warm([np.zeros((1, 2), np.float32)], clock=lambda: float(next(ticks)))
    # Every run takes one second, so a row gets cheaper all the way until a run over 50 ms ends the measuring.
    assert model.predicted_s(1) == 1.0
    assert model.predicted_s(10) == pytest.approx(10.0)
    model.observe(1, 2.0)
    assert model.predicted_s(1) == pytest.approx(1.1)


def test_versions_with_the_same_files_share_a_session_and_keep_their_names(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    catalog = Catalog(tmp_path)
    first = catalog.load(staged.digest)
    again = catalog.get(staged.digest, ModelKey("line", "2"))
    assert again is not None
    assert (str(again.staged.key), again.session) == ("line/2", first.session)
    assert catalog.get(staged.digest, ModelKey("line", "2")) is again
    again.leases += 1
    assert catalog.retain(set()) == []
    again.leases -= 1
    assert catalog.retain(set()) == [first]


ROW = [np.zeros((1, 2), np.float32)]


def profile(**fields: object) -> Profile:
    known = {"processor": profiles.processor(), "onnxruntime": VERSION, "rows_max": 16}
    return Profile(**known | {"seconds_by_rows": {1: 1.0, 16: 1.0}} | fields)  # type: ignore[arg-type]


def measured(folder: Path) -> Profile:
    """A profile that is true here: its times come from this very machine, a moment ago."""
    model = Catalog(folder.parent).load(folder.name)
    return profile(seconds_by_rows={rows: model.predicted_s(rows) for rows in (1, 16)})


def test_a_profile_that_runs_confirm_gives_batch_and_curve(tmp_path: Path) -> None:
    model = Catalog(tmp_path).load(stage_linear(tmp_path).digest)
    ticks = iter(range(1, 10_000))
    assert model.adopt(profile(), ROW, clock=lambda: float(next(ticks)))  # every run takes one second
    assert (model.rows_max, model.is_tuned, model.predicted_s(16)) == (16, True, 1.0)


@pytest.mark.parametrize("said_s", [0.4, 2.5])
def test_a_profile_that_runs_contradict_decides_nothing(tmp_path: Path, said_s: float) -> None:
    model = Catalog(tmp_path).load(stage_linear(tmp_path).digest)
    before = (model.rows_max, model.predicted_s(16))
    ticks = iter(range(1, 10_000))
    assert not model.adopt(profile(seconds_by_rows={1: 1.0, 16: said_s}), ROW, clock=lambda: float(next(ticks)))
    assert (model.rows_max, model.predicted_s(16), model.is_tuned) == (*before, False)


def test_a_wrong_profile_beside_the_artifact_cannot_hurt(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    profiles.write(tmp_path / staged.digest, profile(seconds_by_rows={1: 1e-12, 16: 1e-12}))
    model = Catalog(tmp_path).load(staged.digest)
    assert not model.is_tuned
    assert model.predicted_s(1) > 1e-9


def test_a_profile_with_more_threads_than_a_session_may_have_is_not_taken(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    profiles.write(tmp_path / staged.digest, profile(setting=Setting(threads=2)))
    assert not Catalog(tmp_path, intra_threads=1).load(staged.digest).is_tuned


def twinned(folder: Path, sha256: str | None = None) -> None:
    """The int8 file, here a copy: what matters is which file is opened."""
    copyfile(folder / "model.onnx", folder / "twin.onnx")
    digest = sha256 or file_digest(folder / "twin.onnx")
    profiles.write(folder, profile(setting=Setting(form="int8"), rows_max=1, twin_file="twin.onnx", twin_sha256=digest))


def test_the_int8_form_never_shares_a_run_also_when_its_times_are_not_believed(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    twinned(tmp_path / staged.digest)
    model = Catalog(tmp_path).load(staged.digest)
    assert (model.shares_runs, model.rows_max) == (False, 1)


def test_an_int8_file_with_another_digest_leaves_the_plain_form(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    twinned(tmp_path / staged.digest, sha256="0" * 64)
    model = Catalog(tmp_path).load(staged.digest)
    assert model.shares_runs
    assert model.staged.profile is None


def test_what_was_tuned_anew_takes_the_place_of_the_session_under_every_name(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    folder = tmp_path / staged.digest
    catalog = Catalog(tmp_path)
    model = catalog.load(staged.digest)
    other = catalog.get(staged.digest, ModelKey("line", "2"))
    model.leases = 1
    old = model.session
    assert catalog.outdated() == []
    profiles.write(folder, measured(folder))
    assert catalog.outdated() == [staged.digest]
    assert catalog.outdated() == []  # named once, so that what cannot be renewed is not tried for ever
    catalog.take(catalog.renewed(staged.digest))
    assert other is not None
    assert model.session is other.session is not old
    assert (str(model.staged.key), str(other.staged.key), model.leases) == ("line/1", "line/2", 1)


def test_a_renewed_model_that_was_let_go_meanwhile_stays_gone(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    catalog = Catalog(tmp_path)
    catalog.load(staged.digest)
    renewed = catalog.renewed(staged.digest)
    catalog.retain(set())
    catalog.take(renewed)
    assert catalog.loaded() == []


def test_a_model_may_be_loaded_on_its_thread_while_profiles_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(tmp_path)
    catalog.load(stage_linear(tmp_path, version="1").digest)
    others = [stage_linear(tmp_path, version=version, slope=2.0).digest for version in ("2", "3")]
    stamp = profiles.stamp

    def interrupted(folder: Path) -> int:
        if others:
            catalog.load(others.pop())
        return stamp(folder)

    monkeypatch.setattr(profiles, "stamp", interrupted)
    assert catalog.outdated() == []
    assert len(catalog.loaded()) > 1


def test_a_model_that_mixes_rows_never_shares_a_run_whatever_its_profile_says(tmp_path: Path) -> None:
    staged = msgspec.structs.replace(stage_linear(tmp_path), keeps_rows_apart=False)
    staged.write(tmp_path / staged.digest)
    model = Catalog(tmp_path).load(staged.digest)
    assert (model.shares_runs, model.rows_max) == (False, 1)
    ticks = iter(range(1, 10_000))
    assert model.adopt(profile(), ROW, clock=lambda: float(next(ticks)))
    assert model.rows_max == 1


def test_a_run_that_ends_while_another_session_takes_over_moves_no_wrong_point(tmp_path: Path) -> None:
    model = Catalog(tmp_path).load(stage_linear(tmp_path).digest)
    model._curve_rows, model._curve = [1], [1.0, 2.0, 3.0]  # as a thread may see it in the middle of `take`
    model.observe(64, 1.0)
    model._curve_rows, model._curve = [1, 8, 64], [1.0]
    model.observe(64, 1.0)
