"""Candidates that take the process down with them: a model may crash or hang its process, and must not do so for ever.

Which candidate is running stands in a memory-mapped file, which outlives the process however it ends. A start that finds a mark counts it
against that candidate; after a few in a short time it is not loaded any more, and the others go on.
"""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.telemetry.log import EventLog
from models.files import replace_file

_log: Final = EventLog(__name__)

STRIKES_MAX: Final = 3
WITHIN_S: Final = 600.0
QUARANTINE_S: Final = 3600.0
_SLOT_BYTES: Final = 64  # a digest in hex
_PLACES: Final = ("load", "run")


class Suspects:
    """Marks are made on any thread, each place by one; the rest belongs to the loop."""

    def __init__(self, folder: Path, *, wall: Callable[[], float] = time.time) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._wall = wall
        self._file = folder / "strikes.json"
        size = _SLOT_BYTES * len(_PLACES)
        marks = os.open(folder / "marks.bin", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(marks, size)
            self._marks = mmap.mmap(marks, size)
        finally:
            os.close(marks)
        self._strikes = self._stored()
        self._count_marks()

    def is_quarantined(self, digest: str) -> bool:
        """Whether this candidate ended the process so often, so lately, that it is left out."""
        strikes = self._strikes.get(digest, [])[-STRIKES_MAX:]
        return (
            len(strikes) == STRIKES_MAX
            and strikes[-1] - strikes[0] < WITHIN_S
            and self._wall() - strikes[-1] < QUARANTINE_S
        )

    @contextmanager
    def mark(self, place: Literal["load", "run"], digest: str) -> Iterator[None]:
        """Says what is about to happen, for as long as it happens."""
        at = _PLACES.index(place) * _SLOT_BYTES
        self._marks[at : at + _SLOT_BYTES] = digest.encode()[:_SLOT_BYTES].ljust(_SLOT_BYTES, b"\0")
        try:
            yield
        finally:
            self._marks[at : at + _SLOT_BYTES] = bytes(_SLOT_BYTES)

    def close(self) -> None:
        self._marks.close()

    def _count_marks(self) -> None:
        now = self._wall()
        found = [
            self._marks[at : at + _SLOT_BYTES].rstrip(b"\0").decode("ascii", "replace")
            for at in range(0, len(self._marks), _SLOT_BYTES)
        ]
        for digest in {digest for digest in found if digest}:
            strikes = self._strikes.setdefault(digest, [])
            strikes.append(now)
            _log.warning("candidate_suspected", digest=digest[:12], strikes=len(strikes))
        self._strikes = {
            digest: strikes[-STRIKES_MAX:]
            for digest, strikes in self._strikes.items()
            if now - strikes[-1] < QUARANTINE_S
        }
        replace_file(self._file, msgspec.json.encode(self._strikes), durable=False)
        self._marks[:] = bytes(len(self._marks))

    def _stored(self) -> dict[str, list[float]]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, list[float]])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}
