"""The lake as a sink: what all writers spooled becomes rows of its Delta tables, each exactly once.

Frames are read and held; a commit covers the held frames of all writers for one table, and carries each writer's last sequence as an
application transaction. Segments are released only when every table has committed what it was due. So a crash at any point repeats
reading and converting, never a row: what a table already holds of a writer is skipped by its sequence.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from gateway.spool.frame import Frame
from gateway.spool.reader import SegmentReader, writers
from gateway.streams import upkeep
from gateway.streams.arrow import BlockInvalid
from gateway.streams.conversion import Conversion, Held, tables_of
from gateway.streams.fold import NUMBERED, fold, numbered
from gateway.streams.letters import DeadLetters, Letter, only_table
from gateway.streams.predictions import Answers
from gateway.streams.schema import PARTITIONS, SCHEMAS, Naming
from gateway.streams.table import CommitFailed, LakeTable
from gateway.streams.upkeep import Deleted, Request
from routing.traffic import Retention

TABLES: Final = tuple(name for name in SCHEMAS if name not in ("metrics", "dead_letters"))
"""Those that frames become rows of; `metrics` is made of `metric_parts`."""
_HELD_BYTES_MAX: Final = 64 << 20
_READ_BYTES: Final = 4 << 20
_TRIES: Final = 5
_STEP_OVER: Final = 1 << 23
"""More rows than are committed between two syncs: so many numbers are left out after a power loss took commits, lest one be given twice."""


class Tally:
    """What was done so far, by table, and what readers could not read; outlives a Lake that had to start over.

    `lag_us` is the age that the oldest record of the last commit had by then.
    """

    def __init__(self) -> None:
        self.rows = dict.fromkeys((*TABLES, "metrics"), 0)
        self.commits = dict.fromkeys(TABLES, 0)
        self.lag_us = 0
        self.expired = 0
        self.torn_bytes = 0
        self.missing = 0


class Lake:
    """Belongs to one thread. `answers` tells how a model's prediction is read, by digest; `clock` is monotonic, `clock_us` the wall clock.

    `failure` is the last trouble of a table, None when all is well; `is_behind`: the last `read` left something in the spool. After any
    exception a Lake is done for: what it had read and not committed is in the segments still, and a new one starts from there.
    """

    def __init__(
        self,
        uri: str,
        spool: Path,
        *,
        answers: Answers,
        letters: DeadLetters,
        clock: Callable[[], float],
        clock_us: Callable[[], int],
        tally: Tally,
    ) -> None:
        """Opens or makes the tables; raises CommitFailed."""
        self._spool = spool
        self._answers = answers
        self._letters = letters
        self._clock = clock
        self._clock_us = clock_us
        self._tables = {
            name: LakeTable(f"{uri}/{name}", schema, PARTITIONS)
            for name, schema in SCHEMAS.items()
            if name != "dead_letters"
        }
        self._numbers_from = 0
        if any(table.is_set_back for table in self._tables.values()):
            self._numbers_from = self._numbered_to() + _STEP_OVER
        self._readers: dict[str, SegmentReader] = {}
        self._committed: dict[tuple[str, str], int] = {}
        self._looked: upkeep.Looked = {}
        self._held: dict[str, list[Held]] = {name: [] for name in TABLES}
        self.held_bytes = 0
        self.is_behind = False
        self.failure: str | None = None
        self._tally = tally

    @property
    def held_frames(self) -> int:
        return sum(map(len, self._held.values()))

    @property
    def held_since_s(self) -> float | None:
        """When the oldest of what waits was read, by the monotonic clock; None when nothing waits."""
        return min((held[0].at_s for held in self._held.values() if held), default=None)

    def read(self) -> int:
        """Takes what writers have added, as far as there is room to hold it; returns how many frames. Raises OSError."""
        for writer in writers(self._spool):
            if writer not in self._readers:
                self._committed |= {(writer, name): self._tables[name].committed(f"{writer}:{name}") for name in TABLES}
                self._readers[writer] = SegmentReader(self._spool / writer)
        taken = 0
        self.is_behind = False
        for writer, reader in self._readers.items():
            if self.held_bytes >= _HELD_BYTES_MAX:
                self.is_behind = True
                break
            for frame in reader.read(_READ_BYTES):
                taken += 1
                self._hold(writer, frame)
            self.is_behind |= not reader.is_at_end
        return taken

    def commit(self) -> bool:
        """Commits what is held, then releases what was read; False when a table failed, whose frames then stay held."""
        self.failure = self._each(self._commit)
        if self.failure is None and any(reader.is_releasable for reader in self._readers.values()):
            self.failure = self._each(lambda name: self._tables[name].sync())
        if self.failure is None:
            self._release()
        return self.failure is None

    def fold(self, *, everything: bool = False) -> None:
        """Makes rows of `metrics` of what has come for minutes that are over (`everything`: for all); raises CommitFailed."""
        parts, metrics = self._tables["metric_parts"], self._tables["metrics"]
        done = fold(parts, metrics, self._clock_us(), self._numbered_to, everything=everything)
        self._tally.rows["metrics"] += done

    def _numbered_to(self) -> int:
        """The last number that was given to a row."""
        return max(self._numbers_from, *(one.committed(NUMBERED) for one in self._tables.values()))

    def join(self) -> None:
        """Joins small files of all tables; raises CommitFailed."""
        for table in self._tables.values():
            table.join()

    def compact(self, vacuum_after_h: int) -> None:
        """Maintenance of all tables; raises CommitFailed."""
        for table in self._tables.values():
            table.compact(vacuum_after_h)
        self._letters.compact(vacuum_after_h)

    def expire(self, retention: Mapping[str, Retention]) -> Deleted:
        """Deletes what is older than `retention` says by endpoint; raises CommitFailed."""
        return upkeep.expire(self._tables, self._letters, retention, self._clock_us(), self._looked)

    def requests_of(self, units: Sequence[str], before_unix_us: int) -> list[Request]:
        """The predictions of these units that were received before that moment; raises CommitFailed."""
        return upkeep.requests_of(self._tables, units, before_unix_us)

    def forget(self, units: Sequence[str], before_unix_us: int | None = None, gone: Sequence[Request] = ()) -> Deleted:
        """Deletes all that is about these units in the tables and was received before that moment (None: at all), and what came of `gone`,
        predictions of theirs that were deleted before; raises CommitFailed.
        """
        return upkeep.forget(self._tables, self._letters, units, before_unix_us, gone)

    def close(self) -> None:
        """Gives back the files; what is held is read again by the next process."""
        for reader in self._readers.values():
            reader.close()

    def _hold(self, writer: str, frame: Frame) -> None:
        held = Held(writer, frame.sequence, frame.payload, self._clock_us(), self._clock())
        try:
            only = only_table(writer)
            meant = [name for name in tables_of(frame.payload) if only in (None, name)]
        except BlockInvalid as error:
            self._refuse(None, held, str(error))
            return
        due = [name for name in meant if frame.sequence > self._committed[writer, name]]
        for name in due:
            self._held[name].append(held)
        self.held_bytes += len(frame.payload) * len(due)

    def _refuse(self, table: str | None, held: Held, reason: str) -> None:
        letter = Letter(
            writer=held.writer,
            sequence=held.sequence,
            reason=reason,
            table=table,
            at_unix_us=self._clock_us(),
        )
        self._letters.put(letter, held.payload)

    def _each(self, act: Callable[[str], None]) -> str | None:
        """Does it for every table; answers the last trouble, None for none."""
        failure = None
        for name in TABLES:
            try:
                act(name)
            except CommitFailed as error:
                failure = f"{name}: {error}"
        return failure

    def _commit(self, name: str) -> None:
        """Appends the held frames of one table; after a failure asks again what is committed, and appends the rest."""
        table = self._tables[name]
        for attempt in range(_TRIES):
            held = self._held[name]
            if not held:
                return
            rows = Conversion(name, Naming(table.fields), self._answers).rows(held, partial(self._refuse, name))
            last = {one.writer: one.sequence for one in held}
            if rows is not None:
                done = {f"{writer}:{name}": sequence for writer, sequence in last.items()}
                after = self._numbered_to()
                done[NUMBERED] = after + rows.num_rows
                try:
                    table.append(numbered(rows, after), done)
                except CommitFailed:
                    table.reload()
                    self._drop_committed(name)
                    if attempt == _TRIES - 1:
                        raise
                    continue
                self._count(name, rows)
            self._committed |= {(writer, name): sequence for writer, sequence in last.items()}
            self._keep(name, [])
            return

    def _count(self, name: str, rows: pa.Table) -> None:
        self._tally.rows[name] += rows.num_rows
        self._tally.commits[name] += 1
        if "received_at" in rows.column_names:
            self._tally.lag_us = max(0, self._clock_us() - pc.min(rows["received_at"]).value)

    def _drop_committed(self, name: str) -> None:
        """After a failure: a commit whose reply was lost counts as done, so that nothing is appended twice."""
        for writer in {one.writer for one in self._held[name]}:
            self._committed[writer, name] = self._tables[name].committed(f"{writer}:{name}")
        self._keep(name, [one for one in self._held[name] if one.sequence > self._committed[one.writer, name]])

    def _keep(self, name: str, rest: list[Held]) -> None:
        self.held_bytes -= sum(len(one.payload) for one in self._held[name]) - sum(len(one.payload) for one in rest)
        self._held[name] = rest

    def _release(self) -> None:
        """Lets go of segments that are wholly in the tables, and of writers that are gone and drained."""
        for writer, reader in list(self._readers.items()):
            reader.release(reader.sequence)
            self._tally.torn_bytes += reader.torn_bytes
            self._tally.missing += reader.missing
            reader.torn_bytes = reader.missing = 0
            if reader.is_drained:
                reader.remove()
                del self._readers[writer]
                for name in TABLES:
                    del self._committed[writer, name]
