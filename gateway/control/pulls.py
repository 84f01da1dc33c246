"""Labels that control fetches itself, from tables that `labels_file` names: what the lake has not yet goes to a spool, and so to the lake.

A look compares the whole table with the lake, so it may end at any point, be repeated, or be done by a successor: a label is stored
again only if its process ended between spool and lake, and a repetition changes no figure.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from gateway.evidence.evidence import Evidence
from gateway.rest.labels import decode
from gateway.spool.segment import SegmentWriter
from gateway.streams import labels as label_rows
from gateway.streams.table import CommitFailed
from gateway.streams.truth_tables import TruthTable, TruthUnreadable, read, truth_tables
from gateway.telemetry.log import EventLog
from routing.records import LabelBlock, LabelRow

_log: Final = EventLog(__name__)
_ENCODER: Final = msgspec.msgpack.Encoder()
_BLOCK_LABELS: Final = 2_000
_AT_ONCE: Final = 100_000


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found: rows read, labels new to the lake, rows that are no labels, and why the first of these is none."""

    rows: int = 0
    new: int = 0
    rejected: int = 0
    reason: str | None = None


class Pulls:
    """`spool` makes the writer, at the first label: a writer without labels would be a folder for nothing. Looks block, on threads."""

    def __init__(
        self,
        file: Path,
        evidence: Callable[[], Evidence],
        spool: Callable[[], SegmentWriter],
        count: Callable[[str, int], None],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._evidence = evidence
        self._make = spool
        self._writer: SegmentWriter | None = None
        self._count = count
        self._wall = wall
        self._writing = asyncio.Lock()
        self._under_way: dict[TruthTable, set[tuple[object, ...]]] = {}

    async def run(self) -> None:
        """Until it is cancelled. A file that cannot be read is told of, and looked at again."""
        try:
            while True:
                try:
                    found = await asyncio.to_thread(truth_tables, self._file)
                except TruthUnreadable as error:
                    _log.warning("label_tables_unreadable", reason=str(error))
                    await asyncio.sleep(60.0)
                    continue
                async with asyncio.TaskGroup() as tasks:
                    for truth in found:
                        tasks.create_task(self._follow(truth))
        finally:
            if self._writer is not None:
                self._writer.close()

    async def _follow(self, truth: TruthTable) -> None:
        while True:
            async with self._writing:  # the writer is one thread's at a time
                try:
                    pulled = await asyncio.to_thread(self.look, truth)
                except (TruthUnreadable, CommitFailed, OSError) as error:
                    _log.warning("label_pull_failed", endpoint=truth.endpoint, table=truth.table, reason=str(error))
                else:
                    self._tell(truth, pulled)
            await asyncio.sleep(truth.every_s)

    def look(self, truth: TruthTable) -> Pulled:
        """One look at a table; on return what is new is in the spool, synced. Raises TruthUnreadable, CommitFailed and OSError."""
        now = self._wall()
        sent, self._under_way[truth] = self._under_way.get(truth, set()), set()
        total, held = Pulled(), list[LabelRow]()
        for portion in read(truth, dt.datetime.fromtimestamp(now, dt.UTC)):
            rows, rejected = decode(msgspec.json.encode(portion), int(now * 1e6), keyed=True)
            reason = rejected[0].message if rejected else None
            total = msgspec.structs.replace(
                total,
                rows=total.rows + len(portion),
                rejected=total.rejected + len(rejected),
                reason=total.reason or reason,
            )
            held += rows
            if len(held) >= _AT_ONCE:
                total, held = msgspec.structs.replace(total, new=total.new + self._store(truth, held, sent)), []
        return msgspec.structs.replace(total, new=total.new + self._store(truth, held, sent))

    def _store(self, truth: TruthTable, rows: list[LabelRow], sent: set[tuple[object, ...]]) -> int:
        """Writes those of the labels that the lake has not, and that the look before did not send on their way; how many."""
        table = label_rows.rows([LabelBlock(rows)]) if rows else None
        if table is None:
            return 0
        absent = [rows[place] for place in self._evidence().unknown_labels(table)]
        new = [row for row in absent if _said(row) not in sent]
        self._under_way[truth].update(map(_said, absent))
        if new:
            self._writer = self._writer or self._make()
            for start in range(0, len(new), _BLOCK_LABELS):
                self._writer.append([_ENCODER.encode(LabelBlock(new[start : start + _BLOCK_LABELS]))])
            self._writer.sync()
        return len(new)

    def _tell(self, truth: TruthTable, pulled: Pulled) -> None:
        self._count("accepted", pulled.new)
        self._count("rejected", pulled.rejected)
        if pulled.new or pulled.rejected:
            _log.info("labels_pulled", endpoint=truth.endpoint, table=truth.table, **msgspec.structs.asdict(pulled))


def _said(row: LabelRow) -> tuple[object, ...]:
    """What a label says, whenever it was received."""
    return row.prediction_id, row.request_id, row.row, repr(row.label), row.at_unix_us
