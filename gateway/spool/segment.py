"""The writer of a spool: one gathering write a turn of the event loop into append-only segment files, and nothing else there.

Everything that may stall (opening the next file, closing or syncing the last, adding up the folder) happens on one helper thread.
A folder belongs to one writer process for ever: its name is never reused, so neither is a sequence number. While the writer lives it
holds a lock on the folder's lock file, which the kernel lets go of however the process ends.
"""

import errno
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.spool.files import Files
from gateway.spool.frame import HEADER_BYTES, join, mark

LOCK_FILE: Final = "writer.lock"
_GATHER_MAX: Final = 1024  # IOV_MAX on Linux; more parts than this are joined first
_SCAN_PAUSE_S: Final = 0.2
_RETRY_S: Final = 1.0
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpoolFull(OSError):
    """The spool takes nothing now: its own bound, the disk, a quota or a file size limit. Later appends try again.

    `sequence` is the last one that is in the spool: of the refused payloads those up to it were written before the disk ended.
    """

    def __init__(self, number: int, message: str, sequence: int) -> None:
        super().__init__(number, message)
        self.sequence = sequence


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` (from 1) of a writer lies."""
    return folder / f"{number:08d}.seg"


class SegmentWriter:
    """Appends frames for one writer; used from one thread (the event loop's), except for `sync`.

    `bytes_max` bounds what readers have not released yet. `durable` is for segments that are synced: folder entries are synced
    as files are made, and a file is synced before it is closed. `clock` is monotonic, in seconds. `files` is the system's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 32 << 20,
        segment_s: float = 10.0,
        bytes_max: int,
        clock: Callable[[], float] = time.monotonic,
        durable: bool = False,
        files: Files | None = None,
    ) -> None:
        self._folder = folder
        self._segment_bytes = max(
            1, min(segment_bytes, bytes_max // 4)
        )  # a full spool then has sealed segments to release
        self._segment_s = segment_s
        self._bytes_max = bytes_max
        self._clock = clock
        self._durable = durable
        self._files = files or Files()
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._sequence = 0
        self._number = 1
        self._size = 0
        self._sealed_bytes = 0
        self._is_torn = False
        self._is_closed = False
        self._retired: deque[int] = deque()
        self._unsynced: OSError | None = None
        self._broken = -1
        self._scan: tuple[int, Future[int]] | None = None
        self._scan_at = 0.0
        self._lock = self._claim()
        self._file = self._open(1)
        self._roll_at = clock() + segment_s
        self._mark()
        self._ahead: Future[int] = self._helper.submit(self._open, 2)

    @property
    def sequence(self) -> int:
        """The sequence of the last frame that is wholly in the spool; 0 before the first."""
        return self._sequence

    def append(self, payloads: list[bytes]) -> int:
        """Writes one frame a payload and returns the last sequence; on return a kill of this process loses none of them.

        Raises SpoolFull where there is no room and OSError for any other trouble of the disk; both may pass, and the frames
        written before and after are not affected.
        """
        if self._size >= self._segment_bytes or self._clock() >= self._roll_at:
            self._roll()
        parts = join(self._sequence, payloads)
        size = sum(map(len, parts))
        pending = self._sealed_bytes + self._size + size
        if pending > self._bytes_max >> 1:
            pending = self._rescan() + self._size + size
        if pending > self._bytes_max:
            self._roll()  # seals what was written, so that it can be released
            raise SpoolFull(errno.ENOSPC, f"spool: the bound of {self._bytes_max} bytes is reached", self._sequence)
        if self._is_torn:
            raise SpoolFull(errno.EIO, "spool: the segment is torn and the next one is not open yet", self._sequence)
        try:
            if not self._size:
                self._mark()
            written = (
                self._files.writev(self._file, parts)
                if len(parts) <= _GATHER_MAX
                else self._files.write(self._file, b"".join(parts))
            )
            if written != size:
                self._finish(b"".join(parts), written)
        except OSError as error:
            self._roll_at = self._clock() + (0.0 if self._size > HEADER_BYTES or self._is_torn else _RETRY_S)
            if error.errno in _FULL:
                raise SpoolFull(error.errno or 0, os.strerror(error.errno or 0), self._sequence) from error
            raise
        self._size += size
        self._sequence += len(payloads)
        return self._sequence

    def sync(self) -> int:
        """Blocks until all frames written before the call are on the disk; returns the last of them. For a thread, never the loop.

        One call at a time: it stands for every frame since the call before. Raises OSError: some of them may not be on the disk, and
        never will be said to be. The segment is then left, because the kernel tells of lost pages once only; the next one may be well.
        """
        return self._helper.submit(self._sync).result()

    def pending_bytes(self) -> int:
        """Bytes written and, as of the last look at the folder, not released; costs no system call."""
        return self._sealed_bytes + self._size

    def close(self) -> None:
        """Ends the writer. Frames stay until a reader has taken them; after this the readers know that no more will come."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._helper.submit(self._sync if self._durable else self._retire).result()
        finally:
            self._helper.shutdown(wait=True)
            if self._ahead.exception() is None:
                self._files.close(self._ahead.result())
                with suppress(FileNotFoundError):
                    self._files.unlink(segment_path(self._folder, self._number + 1))
            self._files.close(self._file)
            os.close(self._lock)

    def _finish(self, data: bytes, written: int) -> None:
        """Writes what a short write left; if that fails, cuts the file after its last whole frame, which is then kept.

        Readers may have taken whole frames already, so those must stay where they are; a torn one they cannot have taken.
        """
        try:
            while written < len(data):
                written += self._files.write(self._file, data[written:])
        except OSError:
            whole, frames = _whole(data, written)
            self._size, self._sequence = self._size + whole, self._sequence + frames
            self._cut()
            raise

    def _cut(self) -> None:
        """Cuts what stands behind the last whole frame. If even that fails the segment is left: readers skip a torn tail."""
        try:
            self._files.truncate(self._file, self._size)
        except OSError:
            self._is_torn = True

    def _mark(self) -> None:
        """Writes the mark of a new segment. A disk that is full now is no harm: the next append tries again."""
        try:
            self._size = self._files.write(self._file, mark(self._sequence))
        except OSError:
            return
        if self._size != HEADER_BYTES:
            self._size = 0
            self._cut()

    def _roll(self) -> None:
        """Moves to the file that was opened ahead. Where that is not ready, or failed, the present one goes on."""
        now = self._clock()
        if not self._ahead.done():
            return
        if self._ahead.exception() is not None:
            self._roll_at = now + _RETRY_S
            self._ahead = self._helper.submit(self._open, self._number + 1)
            return
        self._roll_at = now + self._segment_s
        if self._size <= HEADER_BYTES and not self._is_torn:
            return
        self._retired.append(self._file)  # before the switch, so that a sync which sees the next file sees this one too
        self._sealed_bytes += self._size
        self._file, self._number, self._size, self._is_torn = self._ahead.result(), self._number + 1, 0, False
        self._helper.submit(self._retire)
        self._ahead = self._helper.submit(self._open, self._number + 1)
        self._mark()
        self._scan_at = now
        self._rescan()

    def _rescan(self) -> int:
        """The bytes in sealed segments, looked at again by the helper at most every 0.2 s; returns what is known now."""
        if self._scan is not None and self._scan[1].done():
            number, found = self._scan
            self._scan = None
            if number == self._number and found.exception() is None:
                self._sealed_bytes = found.result()
        now = self._clock()
        if self._scan is None and now >= self._scan_at:
            self._scan_at = now + _SCAN_PAUSE_S
            self._scan = self._number, self._helper.submit(self._sealed, self._number)
        return self._sealed_bytes

    # Everything below runs on the helper thread (and in __init__, before it has work).

    def _claim(self) -> int:
        """Makes the folder and its lock file, locked before it bears its name: a reader never sees it without its lock."""
        self._files.make_folder(self._folder, durable=self._durable)
        new = self._folder / (LOCK_FILE + ".new")
        lock = self._files.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._files.rename(new, self._folder / LOCK_FILE)
        return lock

    def _open(self, number: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        path = segment_path(self._folder, number)
        file = self._files.open(path, flags, 0o600)
        try:
            if self._durable:
                self._files.sync_folder(self._folder)  # the lock file's name too, when it is the first segment
        except OSError:
            self._files.close(file)
            self._files.unlink(path)  # it will be tried again
            raise
        return file

    def _retire(self) -> None:
        while self._retired:
            file = self._retired.popleft()
            try:
                if self._durable:
                    self._sync_file(file)
            finally:
                self._broken = -1 if file == self._broken else self._broken  # the number will be another file's
                self._files.close(file)

    def _sync(self) -> int:
        sequence = self._sequence  # read first: what is appended meanwhile may be synced too, but is not promised
        self._sync_file(self._file)
        self._retire()
        error, self._unsynced = self._unsynced, None
        if error is not None:
            raise error
        return sequence

    def _sync_file(self, file: int) -> None:
        """Syncs, and keeps the error for whoever waits. A file that failed once is never asked again: it would say that all is well."""
        if file == self._broken:
            self._unsynced = OSError(errno.EIO, "spool: this segment could not be synced before")
            return
        try:
            self._files.datasync(file)
        except OSError as error:
            self._unsynced, self._broken = error, file
            self._roll_at = 0.0

    def _sealed(self, number: int) -> int:
        size_bytes = 0
        for entry in self._folder.glob("*.seg"):
            if int(entry.stem) < number:
                with suppress(FileNotFoundError):  # released meanwhile
                    size_bytes += entry.stat().st_size
        return size_bytes


def _whole(data: bytes, written: int) -> tuple[int, int]:
    """Of `written` bytes of `data`, how many make whole frames, and how many frames that is."""
    at, frames = 0, 0
    while at + HEADER_BYTES <= written:
        stop = at + HEADER_BYTES + int.from_bytes(data[at : at + 4], "little")
        if stop > written:
            break
        at, frames = stop, frames + 1
    return at, frames
