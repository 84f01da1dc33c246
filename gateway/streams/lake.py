"""The lake as a sink: what all writers spooled becomes rows of four Delta tables, each exactly once.

A frame is read, decoded and held; a commit covers the held frames of all writers for one table, and carries each writer's last
sequence as an application transaction. Segments are released only when every table has committed what it was due. So a crash at any
point repeats reading and converting, never a row: what a table already holds of a writer is skipped by its sequence.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from gateway.spool.reader import SegmentReader, writers
from gateway.streams import labels, minutes, predictions, shadows
from gateway.streams.letters import DeadLetters
from gateway.streams.predictions import Answers
from gateway.streams.schema import PARTITIONS, SCHEMAS, Naming
from gateway.streams.table import CommitFailed, LakeTable
from routing.records import Block, LabelBlock, MetricBlock, PredictionBlock, ShadowBlock

TABLES: Final = tuple(SCHEMAS)
_NUMBERED: Final = "labels"
"""The transaction that counts labels: its version is the last number given out."""
_DECODER: Final[msgspec.msgpack.Decoder[Block]] = msgspec.msgpack.Decoder(Block)
_HELD_BYTES_MAX: Final = 64 << 20
_READ_BYTES: Final = 4 << 20
_TRIES: Final = 5


class Held(msgspec.Struct, frozen=True, gc=False):
    """A decoded frame that waits for its commit. `unix_us`: when it was read."""

    writer: str
    sequence: int
    block: Block
    payload: bytes
    unix_us: int


class Lake:
    """Belongs to one thread. `answers` tells how a model's prediction is read, by digest; `clock_us` is the wall clock.

    `rows` counts what was committed, by table. `failure` is the last trouble of a table, None when all is well.
    """

    def __init__(
        self, uri: str, spool: Path, *, answers: Answers, letters: DeadLetters, clock_us: Callable[[], int]
    ) -> None:
        """Opens or makes the tables; raises CommitFailed."""
        self._spool = spool
        self._answers = answers
        self._letters = letters
        self._clock_us = clock_us
        self._tables = {name: LakeTable(f"{uri}/{name}", schema, PARTITIONS) for name, schema in SCHEMAS.items()}
        self._readers: dict[str, SegmentReader] = {}
        self._committed: dict[tuple[str, str], int] = {}
        self._held: dict[str, list[Held]] = {name: [] for name in TABLES}
        self._held_bytes = 0
        self.rows = dict.fromkeys(TABLES, 0)
        self.commits = dict.fromkeys(TABLES, 0)
        self.torn_bytes = 0
        self.missing = 0
        self.failure: str | None = None

    @property
    def held_records(self) -> int:
        """Requests, labels and minutes that wait for a commit."""
        return sum(len(_records(one.block)) for held in self._held.values() for one in held)

    @property
    def held_since_us(self) -> int | None:
        """When the oldest of what waits was read; None when nothing waits."""
        return min((held[0].unix_us for held in self._held.values() if held), default=None)

    def read(self) -> int:
        """Takes what writers have added, as far as there is room to hold it; returns the bytes taken. Raises OSError."""
        taken = 0
        for writer in writers(self._spool):
            if writer not in self._readers:
                self._readers[writer] = SegmentReader(self._spool / writer)
                for name, table in self._tables.items():
                    self._committed[writer, name] = table.committed(f"{writer}:{name}")
        for writer, reader in self._readers.items():
            if self._held_bytes >= _HELD_BYTES_MAX:
                break
            for frame in reader.read(_READ_BYTES):
                taken += len(frame.payload)
                self._hold(writer, frame.sequence, frame.payload)
        return taken

    def commit(self) -> bool:
        """Commits what is held, then releases what was read; False when a table failed, whose frames then stay held."""
        self.failure = None
        for name in TABLES:
            try:
                self._commit(name)
            except CommitFailed as error:
                self.failure = f"{name}: {error}"
        if self.failure is None:
            self._release()
        return self.failure is None

    def compact(self, vacuum_after_h: int) -> None:
        """Maintenance of all tables; raises CommitFailed."""
        for table in self._tables.values():
            table.compact(vacuum_after_h)

    def close(self) -> None:
        """Gives back the files; what is held is read again by the next process."""
        for reader in self._readers.values():
            reader.close()

    def _hold(self, writer: str, sequence: int, payload: bytes) -> None:
        try:
            block = _DECODER.decode(payload)
        except msgspec.MsgspecError as error:
            self._letters.put(writer, sequence, payload, str(error))
            return
        held = Held(writer, sequence, block, payload, self._clock_us())
        due = [name for name in _tables_of(block) if sequence > self._committed[writer, name]]
        for name in due:
            self._held[name].append(held)
        self._held_bytes += len(payload) * len(due)
        if not _tables_of(block):
            self._letters.put(writer, sequence, payload, f"{type(block).__name__} does not belong in this spool")

    def _commit(self, name: str) -> None:
        """Appends the held frames of one table, asking again what is committed after each failure."""
        table = self._tables[name]
        for attempt in range(_TRIES):
            held = self._held[name]
            if not held:
                return
            rows = self._rows(name, held)
            last = {one.writer: one.sequence for one in held}
            transactions = {f"{writer}:{name}": sequence for writer, sequence in last.items()}
            if name == "labels" and rows is not None:
                transactions[_NUMBERED] = table.committed(_NUMBERED) + rows.num_rows
            try:
                if rows is not None:
                    table.append(rows, transactions)
            except CommitFailed:
                table.reload()
                self._drop_committed(name)
                if attempt == _TRIES - 1:
                    raise
                continue
            self.rows[name] += 0 if rows is None else rows.num_rows
            self.commits[name] += 1
            self._committed |= {(writer, name): sequence for writer, sequence in last.items()}
            self._let_go(name, [])
            return

    def _drop_committed(self, name: str) -> None:
        """After a failure: a commit whose reply was lost counts as done, and nothing is appended twice."""
        table = self._tables[name]
        for writer in {one.writer for one in self._held[name]}:
            self._committed[writer, name] = table.committed(f"{writer}:{name}")
        self._let_go(name, [one for one in self._held[name] if one.sequence > self._committed[one.writer, name]])

    def _let_go(self, name: str, rest: list[Held]) -> None:
        before, self._held[name] = self._held[name], rest
        self._held_bytes += sum(len(one.payload) for one in rest) - sum(len(one.payload) for one in before)

    def _rows(self, name: str, held: Sequence[Held]) -> pa.Table | None:
        """The rows of the held frames; where they cannot be converted together, each alone, and what fails is a dead letter."""
        try:
            return self._converted(name, held)
        except Exception:  # noqa: BLE001  # a block comes from another process: whatever it breaks must cost only itself
            good = [one for one in held if self._is_convertible(name, one)]
            return self._converted(name, good) if good else None

    def _is_convertible(self, name: str, one: Held) -> bool:
        try:
            self._converted(name, [one])
        except Exception as error:  # noqa: BLE001  # see _rows
            self._letters.put(one.writer, one.sequence, one.payload, f"{type(error).__name__}: {error}")
            return False
        return True

    def _converted(self, name: str, held: Sequence[Held]) -> pa.Table | None:
        table = self._tables[name]
        naming = Naming(table.fields)
        found: list[pa.Table] = []
        if name == "predictions":
            blocks = [one.block for one in held if isinstance(one.block, PredictionBlock) and one.block.requests]
            found = predictions.tables(blocks, naming, self._answers)
        elif name == "shadows":
            found = shadows.tables([one.block for one in held if isinstance(one.block, ShadowBlock)], naming)
        elif name == "labels":
            numbered = [one.block for one in held if isinstance(one.block, LabelBlock)]
            rows = labels.rows(numbered, table.committed(_NUMBERED))
            found = [] if rows is None else [rows]
        else:
            told = [
                minutes.Told(one.writer, one.block, one.unix_us)
                for one in held
                if isinstance(one.block, MetricBlock | ShadowBlock)
            ]
            rows = minutes.rows(told)
            found = [] if rows is None else [rows]
        return pa.concat_tables(found, promote_options="default") if found else None

    def _release(self) -> None:
        """Lets go of segments that are wholly in the tables, and of writers that are gone and drained."""
        for writer, reader in list(self._readers.items()):
            reader.release(reader.sequence)
            if reader.is_drained:
                self.torn_bytes += reader.torn_bytes
                self.missing += reader.missing
                reader.remove()
                del self._readers[writer]
                for name in TABLES:
                    del self._committed[writer, name]


def _tables_of(block: Block) -> tuple[str, ...]:
    match block:
        case PredictionBlock():
            return ("predictions",)
        case ShadowBlock():
            return ("shadows", "metrics") if block.dropped else ("shadows",)
        case LabelBlock():
            return ("labels",)
        case MetricBlock():
            return ("metrics",)
    return ()


def _records(block: Block) -> Sequence[object]:
    match block:
        case LabelBlock():
            return block.labels
        case MetricBlock():
            return block.minutes
    return block.requests
