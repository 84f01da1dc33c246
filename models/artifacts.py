"""The content-addressed store of model versions: `artifacts/<sha256>/` holds the source as fetched, and what staging made of it.

A folder is taken in by one rename, and only when it is whole: what lies under a digest never changes. `refs/` remembers which digest a
reference had, so that a version staged once is found again without the registry.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from models.errors import ArtifactInvalid
from models.files import UNREADABLE, replace_file, sync
from models.staged import MANIFEST, ModelKey, StagedModel

SOURCE: Final = "source"
_INCOMING: Final = ".incoming-"
_DIGEST_LENGTH: Final = 64
_CHUNK: Final = 1 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's files may amount to."""

    bytes_max: int = 8 << 30
    files_max: int = 10_000


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference pointed to. `source` is where the registry keeps the files; another source means another model."""

    key: ModelKey
    uri: str
    source: str
    digest: str


class Artifacts:
    """The store at `folder`. Blocking; safe for several threads and processes. `recover` removes what a crash left half done."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self._limits = limits or Limits()
        self._refs = folder / "refs"
        self._locks = folder / "locks"
        for made in (folder, self._refs, self._locks):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        return self.folder / digest

    def find(self, digest: str) -> StagedModel | None:
        """The staged model under a digest; None when it is not there."""
        folder = self.path(digest)
        return StagedModel.read(folder) if (folder / MANIFEST).is_file() else None

    @contextlib.contextmanager
    def fetching(self, download: Callable[[Path], None]) -> Iterator["Incoming"]:
        """Downloads into a new folder and verifies it; the folder is gone at the end unless it was admitted.

        Raises ArtifactInvalid for links, foreign file kinds and files that are too many or too large.
        """
        folder = self.folder / f"{_INCOMING}{os.getpid()}-{uuid.uuid4().hex}"
        source = folder / SOURCE
        source.mkdir(mode=0o700, parents=True)
        try:
            download(source)
            yield Incoming(folder=folder, digest=digest_of(source, self._limits))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self, digest: str) -> Iterator[None]:
        """One writer a digest, over threads and processes; others wait."""
        with (self._locks / digest).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def admit(self, incoming: "Incoming", staged: StagedModel) -> StagedModel:
        """Takes the folder in under its digest, manifest last. Call it inside `writing`."""
        target = self.path(incoming.digest)
        if target.exists():
            shutil.rmtree(target)  # without a manifest: `find` did not see it, a crash left it
        for path in (*incoming.folder.rglob("*"), incoming.folder):
            path.chmod(0o700 if path.is_dir() else 0o600)
            sync(path)
        staged.write(incoming.folder)  # its folder is synced with it
        incoming.folder.rename(target)
        sync(self.folder)
        return staged

    def remember(self, ref: str, remembered: Remembered) -> None:
        replace_file(self._ref_path(ref), msgspec.json.encode(remembered), durable=False)

    def recall(self, ref: str) -> Remembered | None:
        """What `remember` stored for the reference; None when nothing, or nothing readable."""
        try:
            return msgspec.json.decode(self._ref_path(ref).read_bytes(), type=Remembered)
        except UNREADABLE:
            return None

    def digests(self) -> list[str]:
        return sorted(
            entry.name for entry in self.folder.iterdir() if _is_digest(entry.name) and (entry / MANIFEST).is_file()
        )

    def retire(self, keep: Collection[str], staged_before_unix_s: float) -> dict[str, Path]:
        """Takes staged models out of the store whose digest is not in `keep` and that were staged before that moment, and what pointed to them.

        By digest the folders that are the caller's to delete; `recover` deletes those of a process that is gone. Costs a rename each:
        whoever has a file of one open reads on. One that somebody is just staging anew is left.
        """
        retired: dict[str, Path] = {}
        for digest in self.digests():
            if digest in keep or (self.path(digest) / MANIFEST).stat().st_mtime >= staged_before_unix_s:
                continue
            with (self._locks / digest).open("w") as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder = self.folder / f"{_INCOMING}{os.getpid()}-{uuid.uuid4().hex}"
                retired[digest] = self.path(digest).rename(folder)
        for path in self._refs.glob("*.json") if retired else ():
            with contextlib.suppress(*UNREADABLE):
                if msgspec.json.decode(path.read_bytes(), type=Remembered).digest in retired:
                    path.unlink()
        return retired

    def recover(self) -> None:
        """Removes folders that a crashed process was fetching into. For the start of the one process that stages."""
        for entry in self.folder.glob(f"{_INCOMING}*"):
            owner = entry.name.removeprefix(_INCOMING).partition("-")[0]
            if not owner.isdigit() or int(owner) == os.getpid() or not Path(f"/proc/{owner}").exists():
                shutil.rmtree(entry, ignore_errors=True)

    def _ref_path(self, ref: str) -> Path:
        return self._refs / f"{hashlib.sha256(ref.encode()).hexdigest()}.json"


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """A verified folder that is not yet part of the store."""

    folder: Path
    digest: str


def digest_of(source: Path, limits: Limits | None = None) -> str:
    """SHA-256 over the files below `source`: sorted relative path, NUL, size, NUL, content of each.

    Raises ArtifactInvalid when anything but folders and plain, unshared files lies there, or too much of them.
    """
    limits = limits or Limits()
    files = list(_verified(source, limits))
    if not files:
        raise ArtifactInvalid("the model has no files")
    total = hashlib.sha256()
    for name, path, size in sorted(files):
        total.update(f"{name}\0{size}\0".encode())
        _feed(total, path, name, size)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(source: Path, limits: Limits) -> Iterator[tuple[str, Path, int]]:
    """Relative name, path and size of each file."""
    count = size = 0
    for folder, folders, names in os.walk(source):
        for name in [*folders, *names]:
            path = Path(folder) / name
            shown = path.relative_to(source).as_posix()
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactInvalid(f"file '{shown}': wanted a plain file, got {_kind(status.st_mode)}")
            if status.st_nlink != 1:
                raise ArtifactInvalid(
                    f"file '{shown}': wanted one link, got {status.st_nlink}; hard links reach outside"
                )
            count, size = count + 1, size + status.st_size
            if count > limits.files_max or size > limits.bytes_max:
                raise ArtifactInvalid(
                    f"the model has more than {limits.files_max} files or {limits.bytes_max} bytes, got {count} files and {size} bytes so far"
                )
            yield shown, path, status.st_size


def _feed(total: "hashlib._Hash", path: Path, name: str, size: int) -> None:
    """Adds a file's content, without following a link that took its place meanwhile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    read = 0
    with os.fdopen(descriptor, "rb") as file:
        while chunk := file.read(_CHUNK):
            read += len(chunk)
            total.update(chunk)
    if read != size:
        raise ArtifactInvalid(f"file '{name}': wanted {size} bytes, got {read}; it changed while it was read")


def _kind(mode: int) -> str:
    return "a symbolic link" if stat.S_ISLNK(mode) else "a device, socket or pipe"


def _is_digest(name: str) -> bool:
    return len(name) == _DIGEST_LENGTH and all(character in "0123456789abcdef" for character in name)
