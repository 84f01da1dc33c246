"""What is loaded is whole, warm and held open as long as somebody needs it."""

from pathlib import Path

import numpy as np
import pytest

from models.catalog import Catalog
from models.errors import ArtifactInvalid, InputInvalid
from models.staged import ModelKey, StagedModel
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
