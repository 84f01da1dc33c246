import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.files import replace_file


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the disk, in order: syncs by the name that the file has then, and the renaming."""
    told: list[str] = []
    fsync, rename = os.fsync, os.replace

    def synced(file: int) -> None:
        name = Path(f"/proc/self/fd/{file}").readlink().name
        told.append(f"sync {'draft' if name.endswith('.new') else name}")
        fsync(file)

    def replaced(self: Path, target: Path) -> Path:
        told.append(f"replace {target.name}")
        rename(self, target)
        return target

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    return told


def test_a_durable_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_call_returns(
    tmp_path: Path, done: list[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    replace_file(folder / "place", b"2", durable=True)
    assert done == ["sync draft", "replace place", "sync folder"]
    replace_file(folder / "place", b"3", durable=False)
    assert done[3:] == ["replace place"]
    assert (folder / "place").read_bytes() == b"3"


@pytest.mark.parametrize("durable", [True, False])
def test_the_file_is_its_owners_alone_whatever_the_umask_and_nothing_else_is_left(
    tmp_path: Path, *, durable: bool
) -> None:
    before = os.umask(0)
    try:
        replace_file(tmp_path / "place", b"1", durable=durable)
    finally:
        os.umask(before)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_what_fails_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "place", b"old", durable=True)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "place", b"new", durable=True)
    assert (tmp_path / "place").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_writers_of_one_file_at_the_same_time_do_not_mix(tmp_path: Path) -> None:
    texts = [bytes([65 + one]) * 50_000 for one in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda text: replace_file(tmp_path / "place", text, durable=False), texts * 10))
    assert (tmp_path / "place").read_bytes() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
