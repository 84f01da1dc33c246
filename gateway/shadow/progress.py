"""Exactly once: which drawn requests have their outcome in the spool, so that a process that follows a killed one goes on behind it.

A pair is proven by its own frame, which names the mirror frame it came from. Two things would make that proof vanish too early: the
streams unlink what they have stored, also a dead writer's last segment; and nobody may read the whole spool at each start. So
`shadow/` holds

- `<writer>/<n>.seg`: a second hard link to each segment that this process writes, made when the file is opened, ahead of its use;
- `offsets.json`: per mirror writer the sequence up to which every frame is answered for, replaced by rename, at least each second.

A link goes once the offsets cover all it proves. A start reads the offsets and the links that are left, so at most what was written since
the last offsets, and answers again for nothing that it finds there.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gateway.shadow.draw import Draw
from gateway.spool.frame import parse
from gateway.spool.segment import segment_path
from gateway.telemetry.log import EventLog
from models.files import replace_file

_log: Final = EventLog(__name__)
_OFFSETS: Final = "offsets.json"

Frames = dict[str, int]
"""Mirror writer → the highest sequence of it."""


class ShadowRuns(Exception):
    """Another shadow process holds this state directory."""


class _ProofRow(msgspec.Struct, array_like=True):
    prediction_id: bytes


class _Proof(msgspec.Struct, array_like=True, tag="s"):
    """The few fields of a ShadowBlock that prove something; the rest is stepped over, not decoded."""

    endpoint: msgspec.Raw
    revision: msgspec.Raw
    variants: msgspec.Raw
    mirror: str
    model: msgspec.Raw
    version: msgspec.Raw
    live_model: msgspec.Raw
    live_version: msgspec.Raw
    requests: list[_ProofRow]
    labels: msgspec.Raw
    scores: msgspec.Raw
    live_labels: msgspec.Raw
    live_scores: msgspec.Raw
    outputs: msgspec.Raw
    source_writer: str
    source_sequence: int


class Progress:
    """Belongs to the loop. `own` is the name of this process's spool writer, below `spool`."""

    def __init__(self, folder: Path, spool: Path, own: str) -> None:
        """Reads what predecessors left. Raises ShadowRuns while one of them lives."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._spool = spool / own
        self._own = folder / own
        self._lock = _claim(folder)
        self._low = self._stored_offsets()
        self._stored = dict(self._low)
        self._open: dict[str, deque[int]] = {}
        self._finished: dict[str, set[int]] = {}
        self._proven: dict[tuple[str, int, str], set[bytes]] = {}
        self._proofs: dict[Path, Frames] = {}
        self._current = self._newest = 0
        for path in sorted(folder.glob("*/*.seg")):
            self._proofs[path] = self._read_back(path)
        if not self._can_link():  # then what the streams have left of the spool is the only proof
            for path in sorted(spool.glob("shadow-*/*.seg")):
                self._read_back(path)

    def low(self, writer: str) -> int:
        """Up to which sequence every frame of this mirror writer is answered for."""
        return self._low.get(writer, 0)

    def answered(self, draw: Draw, mirror: str) -> set[bytes]:
        """The prediction ids of this draw and mirror that a predecessor answered for. Told once."""
        return self._proven.pop((draw.writer, draw.sequence, mirror), set())

    def begin(self, writer: str, sequence: int) -> None:
        """The frame was read; frames of one writer begin in their order."""
        self._open.setdefault(writer, deque()).append(sequence)

    def finish(self, writer: str, sequence: int) -> None:
        """All that came of the frame is in the spool."""
        begun, finished = self._open[writer], self._finished.setdefault(writer, set())
        finished.add(sequence)
        while begun and begun[0] in finished:
            self._low[writer] = begun.popleft()
            finished.discard(self._low[writer])

    def link(self) -> None:
        """Links segments that were opened since the last call; called around each append, so that the next file is linked before its use."""
        # No more than one is opened ahead; the folder may hold thousands.
        for number in (self._newest + 1, self._newest + 2):
            path = segment_path(self._spool, number)
            if path.exists():
                link = segment_path(self._own, number)
                self._own.mkdir(mode=0o700, exist_ok=True)
                with suppress(OSError):  # a file system without links: `_can_link` has said so
                    os.link(path, link)
                self._proofs[link] = {}
                self._newest = number
        for number in range(self._current + 1, self._newest + 1):
            with suppress(FileNotFoundError):  # released meanwhile
                if segment_path(self._spool, number).stat().st_size:
                    self._current = number

    def appended(self, draws: Iterable[Draw]) -> None:
        """Jobs of these draws were just written into the segment that is in use."""
        self.link()
        if self._current:
            proven = self._proofs[segment_path(self._own, self._current)]
            for draw in draws:
                proven[draw.writer] = max(proven.get(draw.writer, 0), draw.sequence)

    def checkpoint(self, writers: Iterable[str]) -> None:
        """Stores the offsets of the mirror writers that still have a folder, then lets go of the links that they cover."""
        alive = set(writers)
        low = {writer: sequence for writer, sequence in self._low.items() if writer in alive}
        if low != self._stored:
            # Not durable: a sync a second would be felt by workers.
            replace_file(self._folder / _OFFSETS, msgspec.json.encode(low), durable=False)
            self._low, self._stored = low, dict(low)
        for link, proven in list(self._proofs.items()):
            is_own = link.parent == self._own
            in_use = is_own and link >= segment_path(self._own, self._current)
            if not in_use and all(writer not in alive or low.get(writer, 0) >= last for writer, last in proven.items()):
                link.unlink(missing_ok=True)
                del self._proofs[link]
                if not is_own and not any(link.parent.iterdir()):
                    link.parent.rmdir()
        if self._proven:
            self._proven = {
                key: ids for key, ids in self._proven.items() if key[0] in alive and key[1] > low.get(key[0], 0)
            }

    def close(self) -> None:
        """Lets the next process in."""
        os.close(self._lock)

    def _stored_offsets(self) -> Frames:
        try:
            return msgspec.json.decode((self._folder / _OFFSETS).read_bytes(), type=Frames)
        except FileNotFoundError:
            return {}
        except msgspec.DecodeError as error:  # a power loss may spoil it; what the links prove still holds
            _log.warning("shadow_offsets_spoilt", reason=str(error))
            return {}

    def _can_link(self) -> bool:
        probe = self._folder / "probe"
        probe.unlink(missing_ok=True)
        try:
            os.link(self._folder / "lock", probe)
        except OSError as error:
            _log.warning("shadow_links_missing", reason=error.strerror)
            return False
        probe.unlink()
        return True

    def _read_back(self, path: Path) -> Frames:
        """What a segment proves. Frames that were torn by a kill prove nothing: nobody else reads them either."""
        proven: Frames = {}
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return proven
        for frame in parse(data, 0, 0)[0]:
            if not frame.payload:
                continue
            proof = msgspec.msgpack.decode(frame.payload, type=_Proof)
            writer, sequence = proof.source_writer, proof.source_sequence
            proven[writer] = max(proven.get(writer, 0), sequence)
            if sequence > self._low.get(writer, 0):
                ids = self._proven.setdefault((writer, sequence, proof.mirror), set())
                ids.update(row.prediction_id for row in proof.requests)
        return proven


def _claim(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ShadowRuns(f"another shadow process holds {folder}") from None
    return lock
