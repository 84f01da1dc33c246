"""The mirror folders, all of them: what workers left there is read in turn, and goes as soon as it is answered for."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.shadow.draw import Draw
from gateway.shadow.progress import Progress
from gateway.spool.reader import SegmentReader, writers
from gateway.telemetry.log import EventLog

_log: Final = EventLog(__name__)


class Inbox:
    """Reads `mirror/<writer>/`. Belongs to the loop.

    A writer is dead when the kernel has freed its lock; its folder goes once all of it is answered for.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._readers: dict[str, SegmentReader] = {}
        self._missing: dict[str, int] = {}
        self._begun: dict[str, int] = {}

    @property
    def writers(self) -> Iterable[str]:
        """The writers that have a folder, as of the last `look`."""
        return self._readers.keys()

    def look(self) -> None:
        """Looks for new writers."""
        for writer in writers(self._folder):
            if writer not in self._readers:
                after = self._progress.low(writer)
                self._readers[writer] = SegmentReader(self._folder / writer, after=after)
                self._begun[writer] = after

    def read(self, bytes_max: int) -> list[Draw]:
        """The next frames, about `bytes_max` bytes in all, from each writer its share; [] when there is nothing new."""
        draws = []
        share = max(1, bytes_max // max(1, len(self._readers)))
        for writer, reader in self._readers.items():
            for frame in reader.read(share):
                self._begun[writer] = frame.sequence
                self._progress.begin(writer, frame.sequence)
                try:
                    draws.append(Draw(writer, frame))
                except ValueError as error:
                    _log.error("mirror_frame_unreadable", problem=str(error))
                    self._progress.finish(writer, frame.sequence)
            if reader.missing > self._missing.get(writer, 0):
                _log.warning("mirror_frames_missing", frames=reader.missing - self._missing.get(writer, 0))
                self._missing[writer] = reader.missing
        return draws

    def release(self) -> None:
        """Deletes the segments that are answered for, and the folders of dead writers of which nothing is left."""
        for writer, reader in list(self._readers.items()):
            low = self._progress.low(writer)
            with suppress(OSError):  # the next call tries again
                reader.release(low)
                if reader.is_drained and low >= self._begun[writer]:
                    reader.remove()
                    del self._readers[writer], self._begun[writer]
                    self._missing.pop(writer, None)

    def close(self) -> None:
        """Closes all files; the folders stay as they are."""
        for reader in self._readers.values():
            reader.close()
