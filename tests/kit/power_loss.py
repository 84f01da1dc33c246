"""A disk that loses its power: remembers every write and sync of a segment writer, and rebuilds what a disk could hold at any instant.

`kill -9` cannot see a missing sync, because the page cache outlives the process. Here nothing outlives but what POSIX promises:

- of a file, what was written before a sync of it began that has returned. Of later writes any number, in order, the last one torn at
  any byte; and of their sectors any may still be zeros, as the length of a file may reach the disk before its blocks;
- of a folder, the entries that stood there before a sync of the folder began that has returned; each later change or not, by itself.
  A file that no durable entry names is gone, however well it was synced.
"""

import errno
import os
import random
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gateway.spool.files import Files

SECTOR = 512


class Happened(NamedTuple):
    """`kind`: write, truncate, enter, leave, sync, sync_folder or acknowledge. `at`: the file's number, or the folder."""

    kind: str
    at: object
    value: object = None


class LossyDisk(Files):
    """Does everything for real, and remembers it. `ignores`: of `datasync` and `sync_folder`, which promise without keeping it.

    Folders that it did not make itself are durable. Several writers may share one; so may threads.
    """

    def __init__(self, root: Path, *, ignores: Iterable[str] = ()) -> None:
        self.root = root
        self.history: list[Happened] = []
        self.room: int | None = None
        """Bytes until it is full; None: it never is."""
        self._ignores = frozenset(ignores)
        self._numbers: dict[int, int] = {}
        self._next = 0
        self._lock = threading.Lock()

    def acknowledge(self, what: object) -> None:
        """Notes that somebody was told: from this instant on `what` must be on the disk."""
        self.history.append(Happened("acknowledge", 0, what))

    # ---------------------------------------------------------------- the seam

    def open(self, path, flags, mode=0o777):
        with self._lock:
            file = os.open(path, flags, mode)
            assert flags & os.O_EXCL, "every file of a writer is new"
            self._next += 1
            self._numbers[file] = self._next
            self.history.append(Happened("enter", Path(path), self._next))
        return file

    def close(self, file):
        with self._lock:
            os.close(file)
            self._numbers.pop(file, None)

    def write(self, file, data):
        if self.room is not None:
            data = data[: self.room]
            if not data:
                raise OSError(errno.ENOSPC, "full")
            self.room -= len(data)
        written = os.write(file, data)  # noted when it is done, so that no sync covers one that was not
        self.history.append(Happened("write", self._numbers[file], bytes(data[:written])))
        return written

    def writev(self, file, parts):
        return self.write(file, b"".join(parts))

    def truncate(self, file, size):
        os.ftruncate(file, size)
        self.history.append(Happened("truncate", self._numbers[file], size))

    def datasync(self, file):
        number, began = self._numbers[file], len(self.history)
        os.fdatasync(file)
        if "datasync" not in self._ignores:
            self.history.append(Happened("sync", number, began))

    def sync_folder(self, folder):
        began = len(self.history)
        super().sync_folder(folder)
        if "sync_folder" not in self._ignores:
            self.history.append(Happened("sync_folder", Path(folder), began))

    def mkdir(self, path, mode=0o777):
        super().mkdir(path, mode)
        self.history.append(Happened("enter", Path(path), None))

    def rename(self, old, new):
        super().rename(old, new)
        self.history.append(Happened("rename", Path(new), Path(old)))

    def unlink(self, path):
        super().unlink(path)
        self.history.append(Happened("leave", Path(path)))

    # ---------------------------------------------------------------- after the loss

    def acknowledged(self, instant: int) -> set[object]:
        """What had been acknowledged before `instant`, an index into the history."""
        return {one.value for one in self.history[:instant] if one.kind == "acknowledge"}

    def rebuild(self, instant: int, into: Path, chance: random.Random) -> None:
        """Writes to the empty folder `into` what the disk could hold of `root` if the power fails at `instant`."""
        past = self.history[:instant]
        made = {one.at for one in past if one.kind == "enter" and one.value is None}
        entries = self._entries(past, chance)
        synced: dict[object, int] = {}
        done: dict[object, list[tuple[int, Happened]]] = {}
        for at, one in enumerate(past):
            if one.kind == "sync":
                synced[one.at] = max(synced.get(one.at, 0), one.value)
            elif one.kind in {"write", "truncate"}:
                done.setdefault(one.at, []).append((at, one))
        for path, number in sorted(entries.items()):
            target = into / path.relative_to(self.root)
            if path.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.is_dir():
                continue  # a folder above it was lost, and all in it
            if number is None:
                target.mkdir(mode=0o700)
            else:
                target.write_bytes(_content(done.get(number, []), synced.get(number, 0), chance))

    def _entries(self, past: list[Happened], chance: random.Random) -> dict[Path, object]:
        """By path the file's number, None for a folder: durable changes in order, each of the others or not."""
        durable: dict[Path, int] = {}
        for one in past:
            if one.kind == "sync_folder":
                durable[one.at] = max(durable.get(one.at, 0), one.value)
        entries: dict[Path, object] = {}
        numbers: dict[Path, object] = {}
        for at, one in enumerate(past):
            if one.kind not in {"enter", "leave", "rename"} or self.root not in one.at.parents:
                continue
            happens = at < durable.get(one.at.parent, 0) or chance.random() < 0.5
            if one.kind == "rename":
                numbers[one.at] = numbers.pop(one.value)
                if happens:
                    entries.pop(one.value, None)
                    entries[one.at] = numbers[one.at]
            elif one.kind == "enter":
                numbers[one.at] = one.value
                if happens:
                    entries[one.at] = one.value
            elif happens:
                entries.pop(one.at, None)
        return entries


def _content(done: list[tuple[int, Happened]], synced: int, chance: random.Random) -> bytes:
    """What a file holds: all that was done to it before `synced`, then some of the rest."""
    data = bytearray()
    for at, one in done:
        if at < synced:
            _do(data, one)
    rest = [one for at, one in done if at >= synced]
    safe = len(data)
    kept = chance.randint(0, len(rest))
    for one in rest[:kept]:
        _do(data, one)
    if kept < len(rest) and rest[kept].kind == "write":
        data += rest[kept].value[: chance.randint(0, len(rest[kept].value))]
    if rest and chance.random() < 0.5:
        for start in range(safe // SECTOR * SECTOR, len(data), SECTOR):
            first, end = max(start, safe), min(start + SECTOR, len(data))
            if first < end and chance.random() < 0.3:
                data[first:end] = bytes(end - first)
    return bytes(data)


def _do(data: bytearray, one: Happened) -> None:
    if one.kind == "write":
        data += one.value
    else:
        del data[one.value :]
