"""Files of models are untrusted: what is not plain is refused, and what is kept never changes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.artifacts import Artifacts, Limits, Remembered, digest_of
from models.errors import ArtifactInvalid
from models.signature import Answer, Signature
from models.staged import ModelKey, StagedModel


def staged(digest: str) -> StagedModel:
    return StagedModel(
        key=ModelKey("m", "1"),
        digest=digest,
        uri="models:/m/1",
        flavor="onnx",
        file="model.onnx",
        file_sha256="0" * 64,
        size_bytes=1,
        signature=Signature(inputs=(), outputs=()),
        answer=Answer(),
    )


def writes(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "a.txt").write_text(text) and None


def keep(artifacts: Artifacts, text: str) -> str:
    with artifacts.fetching(writes(text)) as incoming, artifacts.writing(incoming.digest):
        artifacts.admit(incoming, staged(incoming.digest))
    return incoming.digest


def test_what_is_admitted_is_found_by_its_digest_and_private(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    digest = keep(artifacts, "one")

    found = artifacts.find(digest)
    assert found is not None
    assert found.key == ModelKey("m", "1")
    assert (artifacts.path(digest) / "source" / "a.txt").read_text() == "one"
    assert artifacts.path(digest).stat().st_mode & 0o777 == 0o700
    assert (artifacts.path(digest) / "staged.json").stat().st_mode & 0o777 == 0o600
    assert artifacts.digests() == [digest]


def test_what_is_not_admitted_leaves_nothing(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    with pytest.raises(RuntimeError, match="conversion"), artifacts.fetching(writes("one")):
        raise RuntimeError("conversion failed")

    assert artifacts.digests() == []
    assert not list(tmp_path.glob(".incoming*"))


def test_a_digest_depends_on_names_and_contents_and_on_nothing_else(tmp_path: Path) -> None:
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for folder, name in ((first, "b"), (second, "b"), (third, "c")):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / name).write_text("x")
        (folder / "a").write_text("y")
    os.utime(second / "a", (1, 1))
    (second / "empty").mkdir()

    assert digest_of(first) == digest_of(second) != digest_of(third)


def link(folder: Path) -> None:
    (folder / "a").symlink_to("/etc/hostname")


def folder_link(folder: Path) -> None:
    (folder / "a").symlink_to("/etc")


def hard_link(folder: Path) -> None:
    outside = folder.parent.parent / "outside"
    outside.write_text("secret")
    (folder / "a").hardlink_to(outside)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a")


@pytest.mark.parametrize("make", [link, folder_link, hard_link, pipe])
def test_files_that_reach_outside_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    artifacts = Artifacts(tmp_path / "artifacts")

    with pytest.raises(ArtifactInvalid, match="file 'a': wanted"), artifacts.fetching(make):
        pass

    assert not list((tmp_path / "artifacts").glob(".incoming*"))


@pytest.mark.parametrize("limits", [Limits(bytes_max=2), Limits(files_max=0)])
def test_too_much_is_refused(tmp_path: Path, limits: Limits) -> None:
    with pytest.raises(ArtifactInvalid, match="more than"), Artifacts(tmp_path, limits).fetching(writes("one")):
        pass


def test_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid, match="no files"), Artifacts(tmp_path).fetching(lambda folder: None):
        pass


def test_what_is_not_kept_is_retired_with_what_pointed_to_it(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    old, new = keep(artifacts, "old"), keep(artifacts, "new")
    for version, digest in (("1", old), ("2", new)):
        uri = f"models:/m/{version}"
        artifacts.remember(uri, Remembered(key=ModelKey("m", version), uri=uri, source="s", digest=digest))

    assert artifacts.retire({new}, 0.0) == {}, "it was staged after that"
    with artifacts.writing(old):
        assert artifacts.retire({new}, 1e12) == {}, "somebody stages it anew"
    retired = artifacts.retire({new}, 1e12)

    assert list(retired) == [old]
    assert (retired[old] / "source" / "a.txt").read_text() == "old"
    assert artifacts.digests() == [new]
    assert artifacts.recall("models:/m/1") is None
    assert artifacts.recall("models:/m/2") is not None


def test_a_folder_without_a_manifest_does_not_count_and_is_replaced(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    digest = keep(artifacts, "one")
    (artifacts.path(digest) / "staged.json").unlink()

    assert artifacts.find(digest) is None
    assert keep(artifacts, "one") == digest
    assert artifacts.find(digest) is not None


def test_recovery_removes_what_a_dead_process_was_fetching_and_spares_the_living(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    dead, living = tmp_path / ".incoming-999999999-x", tmp_path / f".incoming-{os.getppid()}-x"
    dead.mkdir()
    living.mkdir()

    artifacts.recover()

    assert not dead.exists()
    assert living.exists()
    shutil.rmtree(living)


def test_a_version_has_its_name_only_once_all_its_files_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def sync(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name.partition(".json.")[0])
        fsync(file)

    def renamed(folder: Path, target: Path) -> Path:
        missing = {path.name.partition(".json")[0] for path in (folder, *folder.rglob("*"))} - set(synced)
        assert not missing, "an empty manifest or model under a digest would be refused for ever"
        return rename(folder, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", renamed)
    keep(Artifacts(tmp_path), "one")
    assert synced[-1] == tmp_path.name, "and the name is there before it is told of"
