"""Labels that control fetches itself, from tables that `labels_file` names: what the lake has not yet goes to a spool, and so to the lake.

A look compares the whole table with the lake, so it may end at any point, be repeated, or be done by a successor: a label is stored
again only if its process ended between spool and lake, and a repetition changes no figure. Only labels of predictions that the lake
holds are taken: what was forgotten does not come back, and what is too early comes with a later look.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from gateway.evidence.evidence import Evidence
from gateway.privacy import label_blocks, routes_of_labels
from gateway.rest.labels import Rejected, decode
from gateway.spool.segment import SegmentWriter
from gateway.streams import labels as label_rows
from gateway.streams.table import CommitFailed
from gateway.streams.truth_tables import TruthTable, TruthUnreadable, read, truth_tables
from gateway.streams.upkeep import cutoff
from gateway.telemetry.log import EventLog
from routing.records import LabelBlock, LabelRow
from routing.traffic import Route

_log: Final = EventLog(__name__)
_BLOCK_LABELS: Final = 2_000
_AT_ONCE: Final = 100_000

Sent = set[tuple[object, ...]]
"""What the look before sent on its way."""


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found: rows read, labels stored, rows that are no labels, and why the first of these is none."""

    rows: int = 0
    new: int = 0
    rejected: int = 0
    reason: str | None = None


class Pulls:
    """`spool` makes the writer, at the first label: a writer without labels would be a folder for nothing. Looks block, on threads.

    `routes`, by endpoint, say which attributes are masked or kept apart; `unit_key` is what they are masked with.
    """

    def __init__(
        self,
        file: Path,
        evidence: Callable[[], Evidence],
        spool: Callable[[], SegmentWriter],
        count: Callable[[str, int], None],
        *,
        routes: Callable[[], Mapping[str, Route]],
        unit_key: bytes,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._evidence = evidence
        self._make = spool
        self._writer: SegmentWriter | None = None
        self._count = count
        self._routes = routes
        self._unit_key = unit_key
        self._wall = wall
        self._writing = asyncio.Lock()
        self._under_way: dict[TruthTable, Sent] = {}
        self._rejected: dict[TruthTable, int] = {}
        self._is_ending = False

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
                look = asyncio.create_task(asyncio.to_thread(self.look, truth), name="pull labels")
                try:
                    self._tell(truth, await asyncio.shield(look))
                except asyncio.CancelledError:
                    self._is_ending = True
                    await asyncio.wait([look])  # its thread goes on, and the writer must not be closed below it
                    raise
                except (TruthUnreadable, CommitFailed, OSError) as error:
                    _log.warning("label_pull_failed", endpoint=truth.endpoint, table=truth.table, reason=str(error))
                except Exception as error:  # noqa: BLE001  # a torn file, no memory: one table must end neither the others nor control
                    _log.error("label_pull_failed", endpoint=truth.endpoint, table=truth.table, error=error)
            await asyncio.sleep(truth.every_s)

    def look(self, truth: TruthTable) -> Pulled:
        """One look at a table; on return what is new is in the spool, synced. Raises TruthUnreadable, CommitFailed and OSError."""
        now_us = int(self._wall() * 1e6)
        sent, self._under_way[truth] = self._under_way.get(truth, set()), set()
        total, held, back = Pulled(), list[LabelRow](), list[LabelRow]()
        for rows, rejected, read_rows in self._portions(truth, now_us):
            reason = rejected[0].message if rejected else None
            total = msgspec.structs.replace(
                total,
                rows=total.rows + read_rows,
                rejected=total.rejected + len(rejected),
                reason=total.reason or reason,
            )
            held += rows
            if len(held) >= _AT_ONCE:
                total, held = msgspec.structs.replace(total, new=total.new + self._store(truth, held, sent, back)), []
        stored = self._store(truth, held, sent, back) + self._give_back(truth, back, sent, now_us)
        return msgspec.structs.replace(total, new=total.new + stored)

    def _portions(self, truth: TruthTable, now_us: int) -> Iterator[tuple[list[LabelRow], list[Rejected], int]]:
        """What the table holds now: labels, rows that are none, and how many rows were read."""
        for portion in read(truth, dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC)):
            if self._is_ending:
                return
            yield *decode(msgspec.json.encode(portion), now_us, keyed=True), len(portion)

    def _store(self, truth: TruthTable, rows: list[LabelRow], sent: Sent, back: list[LabelRow]) -> int:
        """Writes those of the labels that the lake has not; how many. Those that held once, and do not any more, go to `back`."""
        table = label_rows.rows([LabelBlock(rows)]) if rows else None
        if table is None:
            return 0
        found = self._evidence().unknown_labels(table, self._since_unix_us(truth))
        back += [rows[place] for place in found.back]
        return self._write(truth, [(rows[place], rows[place]) for place in found.new], sent)

    def _since_unix_us(self, truth: TruthTable) -> int:
        """Labels of older predictions have gone, or are about to."""
        route = self._routes().get(truth.endpoint)
        if route is None:
            return 0
        kept_s = route.record.retention.kept_s("labels")
        return max(0, int(cutoff(int(self._wall() * 1e6), kept_s).timestamp() * 1e6))

    def _give_back(self, truth: TruthTable, back: list[LabelRow], sent: Sent, now_us: int) -> int:
        """A table without moments that says again what it said before: that holds from now on. One that says both says nothing new."""
        if not back:
            return 0
        said: dict[tuple[object, ...], set[str]] = {_about(row): set() for row in back}
        for rows, _, _ in self._portions(truth, now_us):
            for row in rows:
                if (of := said.get(_about(row))) is not None:
                    of.add(repr(row.label))
        sure = [row for row in back if len(said[_about(row)]) == 1]
        return self._write(truth, [(row, msgspec.structs.replace(row, at_unix_us=now_us)) for row in sure], sent)

    def _write(self, truth: TruthTable, labels: list[tuple[LabelRow, LabelRow]], sent: Sent) -> int:
        """Spools those that the look before did not send on their way; how many. With each, as the table says it and as it is stored."""
        new = [stored for told, stored in labels if _said(told) not in sent]
        self._under_way[truth].update(_said(told) for told, _ in labels)
        if new:
            self._writer = self._writer or self._make()
            concerned = routes_of_labels(new, self._routes())
            for start in range(0, len(new), _BLOCK_LABELS):
                part = slice(start, start + _BLOCK_LABELS)
                self._writer.append(label_blocks(new[part], concerned[part], self._unit_key))
            self._writer.sync()
        return len(new)

    def _tell(self, truth: TruthTable, pulled: Pulled) -> None:
        """Rows that are no labels are met at every look: they count, and are told of, when they become more."""
        more = max(0, pulled.rejected - self._rejected.get(truth, 0))
        self._rejected[truth] = pulled.rejected
        self._count("accepted", pulled.new)
        self._count("rejected", more)
        if pulled.new or more:
            _log.info("labels_pulled", endpoint=truth.endpoint, table=truth.table, **msgspec.structs.asdict(pulled))


def _about(row: LabelRow) -> tuple[object, ...]:
    return row.prediction_id, row.request_id, row.row


def _said(row: LabelRow) -> tuple[object, ...]:
    """What a label says, whenever it was received."""
    return *_about(row), repr(row.label), row.at_unix_us
