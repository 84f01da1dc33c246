"""The reader of one writer's segments: whole frames in order, resumable, and the release of what has been read."""

import fcntl
import os
import shutil
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from gateway.spool.frame import HEADER_BYTES, PAYLOAD_BYTES_MAX, Frame, Torn, parse, stated_length
from gateway.spool.segment import LOCK_FILE, segment_path

_CHUNK_BYTES: Final = 1 << 20


def writers(spool: Path) -> list[str]:
    """The names of all writers that have a folder under `spool` (or the mirror folder), living and dead, sorted."""
    try:
        return sorted(
            entry.name for entry in os.scandir(spool) if entry.is_dir() and (spool / entry.name / LOCK_FILE).exists()
        )
    except FileNotFoundError:
        return []


class Expired(NamedTuple):
    """What `expire` deleted and nobody had read."""

    segments: int
    bytes: int


def expire(folder: Path, age_s: float, now_unix_s: float, read: int = 0) -> Expired:
    """Deletes the segments that were last written more than `age_s` ago; those with nothing above the sequence `read` are not told of.

    For mirrored rows, which must not outlive their reader. Any process may call it; a reader that has the file open goes on with it.
    `age_s` is above the time after which a writer goes to its next segment, so that a living one's last file may go as well: its
    writer leaves that file before it appends again. Files that it would not leave stay: one that holds nothing but its mark, and one
    after which it could open no other.
    """
    segments = deleted = 0
    filled = _filled(folder, 0)
    if filled and not segment_path(folder, filled[-1] + 1).exists() and not is_writer_dead(folder):
        filled.pop()
    for number in filled:
        path = segment_path(folder, number)
        with suppress(FileNotFoundError):
            status = path.stat()
            if now_unix_s - status.st_mtime > age_s and status.st_size > HEADER_BYTES:
                is_read = read > 0 and _last_sequence(path) <= read
                path.unlink()
                if not is_read:
                    segments, deleted = segments + 1, deleted + status.st_size
    return Expired(segments, deleted)


def is_writer_dead(folder: Path) -> bool:
    """Whether the process that writes this folder is gone: the kernel frees its lock with it."""
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)


class SegmentReader:
    """Reads the frames after `after` of one writer, from one thread. One process alone reads and releases a folder.

    The end of a segment is believed only once a later one holds something or the writer is dead: until then what cannot be read
    may still be on its way. What can then not be read is stepped over and counted: `torn_bytes` (the torn tail of a writer that
    was killed, corruption) and `missing` (frames whose sequence numbers never came).
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        self._folder = folder
        self._sequence = after
        self._is_started = False
        self._segment = 0
        self._offset = 0
        self._file = -1
        self._is_final = False
        self._is_drained = False
        self._is_at_end = False
        self._ends: dict[int, int] = {}
        self._listed: deque[int] = deque()
        self.torn_bytes = 0
        self.missing = 0

    @property
    def sequence(self) -> int:
        """The last sequence that was read (at first `after`)."""
        return self._sequence

    @property
    def is_at_end(self) -> bool:
        """Whether the last `read` came to the end of what was there then, and did not stop for its bound."""
        return self._is_at_end

    @property
    def is_drained(self) -> bool:
        """Whether the writer is dead and `read` has come to the end of all that it wrote."""
        return self._is_drained

    @property
    def is_releasable(self) -> bool:
        """Whether `release` or `remove` would delete anything, were all that was read taken."""
        return bool(self._ends) or self._is_drained

    def read(self, bytes_max: int = 8 << 20) -> list[Frame]:
        """The next whole frames, about `bytes_max` bytes of them (at least one, if there is one); [] when there is none now.

        Raises OSError.
        """
        frames: list[Frame] = []
        taken = 0
        while taken < bytes_max and (self._file >= 0 or self._open_next()):
            found, torn = self._parse(min(_CHUNK_BYTES, bytes_max - taken + HEADER_BYTES))
            if found:
                due = self._due(found)
                taken += found[-1].end_offset - self._offset if due else 0
                self._offset = found[-1].end_offset
                frames += due
            elif not self._is_final:
                if not self._is_sealed():
                    break
                self._is_final = True  # it may have been written to between the read and this look, so read once more
            elif torn is None or torn.wanted is not None or not self._step_over():
                self._leave()
        self._is_at_end = taken < bytes_max
        return frames

    def release(self, sequence: int) -> None:
        """Deletes the segments that were read to their end and hold nothing above `sequence`. Raises OSError."""
        for number in [number for number, last in self._ends.items() if last <= sequence]:
            segment_path(self._folder, number).unlink(missing_ok=True)
            del self._ends[number]

    def close(self) -> None:
        """Gives back the open file; the folder stays as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Deletes the folder of a dead writer, after all of it was taken. Raises OSError."""
        self.close()
        shutil.rmtree(self._folder)

    def _parse(self, size_bytes: int) -> tuple[list[Frame], Torn | None]:
        data = os.pread(self._file, size_bytes, self._offset)
        found, torn = parse(data, self._segment, self._offset)
        if not found and torn is not None and torn.wanted is not None and torn.wanted > len(data):
            return parse(os.pread(self._file, torn.wanted, self._offset), self._segment, self._offset)
        return found, torn

    def _due(self, found: list[Frame]) -> list[Frame]:
        """Of the frames found, those above what was read before, without marks; jumps of the sequence are counted."""
        due: list[Frame] = []
        for frame in found:
            wanted = self._sequence + 1 if frame.payload else self._sequence
            if frame.sequence >= wanted:
                self.missing += frame.sequence - wanted if self._is_started else 0
                self._sequence = frame.sequence
                if frame.payload:
                    due.append(frame)
            self._is_started = True  # what stood before the first frame was released long ago
        return due

    def _step_over(self) -> bool:
        """Steps over a frame whose checksum fails if a whole one follows where it says it ends: then one frame is lost, not the rest."""
        after = self._offset + stated_length(os.pread(self._file, HEADER_BYTES, self._offset))
        head = os.pread(self._file, HEADER_BYTES, after)
        if len(head) < HEADER_BYTES or stated_length(head) > PAYLOAD_BYTES_MAX:
            return False
        found, _ = parse(os.pread(self._file, stated_length(head), after), 0, 0)
        if found:
            self.torn_bytes += after - self._offset
            self._offset = after
        return bool(found)

    def _is_sealed(self) -> bool:
        return self._has_later() or is_writer_dead(self._folder)

    def _leave(self) -> None:
        """Goes from the segment; what stands behind the last whole frame is torn."""
        self.torn_bytes += os.fstat(self._file).st_size - self._offset
        self._ends[self._segment] = self._sequence
        self.close()

    def _open_next(self) -> bool:
        """Opens the first segment above the present one that holds something; False when there is none."""
        is_dead = is_writer_dead(self._folder)  # asked first: the dead add nothing after this
        while self._has_later():
            self._segment, self._offset, self._is_final = self._listed.popleft(), 0, False
            with suppress(FileNotFoundError):  # expired meanwhile
                self._file = os.open(segment_path(self._folder, self._segment), os.O_RDONLY | os.O_CLOEXEC)
                return True
        self._is_drained = is_dead
        return False

    def _has_later(self) -> bool:
        """Whether a later segment holds something. The folder is listed again only when all that were found are used up: it may hold thousands."""
        if not self._listed:
            self._listed.extend(_filled(self._folder, self._segment))
        return bool(self._listed)


def _last_sequence(path: Path) -> int:
    found, _ = parse(path.read_bytes(), 0, 0)
    return found[-1].sequence if found else 0


def _filled(folder: Path, after: int) -> list[int]:
    """The numbers of the segments above `after` that hold something, ascending."""
    filled = []
    for path in folder.glob("*.seg"):
        number = int(path.stem)
        with suppress(FileNotFoundError):  # released meanwhile
            if number > after and path.stat().st_size:
                filled.append(number)
    return sorted(filled)
