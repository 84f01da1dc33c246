"""The way out: when the replies of a turn may leave, by the `durability` of their route, and the doors they leave by."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.admission import Admission
from gateway.errors import SpoolClosed
from gateway.meter import Meter
from gateway.recorder import Recorder, Written
from gateway.telemetry.log import EventLog
from gateway.ticket import Door, Ticket
from models.pool import ComputePool

log = EventLog(__name__)

LATE_S: Final = 0.1
LATE_BYTES: Final = 256 << 10
"""`durability: async`: what a kill of this process can lose, in time and in bytes; stated in docs/durability.md."""


class Group:
    """Tickets whose replies wait for one sync, and how many records of theirs it makes durable."""

    __slots__ = ("records", "tickets")

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.records = 0


class Replies:
    """`process`: a reply follows its record's write; `disk`: the sync of its group; `async`: neither. Belongs to the event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        recorder: Recorder,
        meter: Meter,
        sync_pool: ComputePool,
        admission: Admission,
    ) -> None:
        self._loop = loop
        self._recorder = recorder
        self._meter = meter
        self._sync_pool = sync_pool
        self._admission = admission
        self._unsynced = Group()
        self._is_syncing = False
        self._late: asyncio.TimerHandle | None = None
        self._is_late_failing = False

    def leave(self, written: Mapping[str, Written], groups: Mapping[str, list[Ticket]]) -> None:
        """Answers the tickets of a turn, or lets them wait; `written` and `groups` by durability."""
        for durability, tickets in groups.items():
            if durability == "process":
                self._recorded(written[durability], tickets)
                self.now(tickets)
            elif durability == "disk":
                self._after_sync(written[durability], tickets)
            else:
                self._before_write(tickets)

    def now(self, tickets: Iterable[Ticket]) -> None:
        """Every ticket to its door, then each door once."""
        doors: dict[Door, None] = {}
        for ticket in tickets:
            door = ticket.door
            doors[door] = None
            if ticket.heavy_bytes:
                self._admission.release(ticket.heavy_bytes)
            try:
                door.complete(ticket)
            except Exception as error:  # noqa: BLE001  # a door's mistake must not cost the others of this turn their replies
                log.error("reply_broke", prediction_id=ticket.prediction_id, error=error)
        for door in doors:
            try:
                door.flush()
            except Exception as error:  # noqa: BLE001  # see above
                log.error("reply_broke", error=error)

    def write_late(self) -> None:
        """Writes the records whose replies have left; called by itself, and once more before the recorder is closed."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        written = self._recorder.flush_late()
        if written.recorded or written.failed:
            self._is_late_failing = written.failed > 0
            self._recorded(written, ())

    def _recorded(self, written: Written, tickets: Iterable[Ticket]) -> None:
        """Counts the records, and does what `on_failure: closed` demands where some could not be written."""
        self._meter.records("recorded", written.recorded)
        if written.failed:
            self._meter.records("failed", written.failed)
            refuse(tickets)

    def _after_sync(self, written: Written, tickets: list[Ticket]) -> None:
        """The replies wait for a sync that begins after this; until then they count as in flight, so that a slow disk is bounded."""
        self._recorded(Written(0, written.failed), tickets)
        self._admission.inflight += len(tickets)
        for ticket in tickets:
            ticket.endpoint.inflight += 1
        self._unsynced.tickets += tickets
        self._unsynced.records += written.recorded
        self._sync()

    def _sync(self) -> None:
        """One sync at a time; what arrives meanwhile is the next group."""
        if self._is_syncing or not self._unsynced.tickets:
            return
        self._is_syncing = True
        group, self._unsynced = self._unsynced, Group()

        def work() -> None:
            try:
                self._recorder.sync()
                is_durable = True
            except OSError:
                is_durable = False
            self._loop.call_soon_threadsafe(self._synced, group, is_durable)

        self._sync_pool.submit(work)

    def _synced(self, group: Group, is_durable: bool) -> None:
        self._is_syncing = False
        self._recorded(Written(group.records, 0) if is_durable else Written(0, group.records), group.tickets)
        self._admission.inflight -= len(group.tickets)
        for ticket in group.tickets:
            ticket.endpoint.inflight -= 1
        self.now(group.tickets)
        self._sync()

    def _before_write(self, tickets: list[Ticket]) -> None:
        """The replies leave before the records are written, within LATE_S; only the turn that fills LATE_BYTES writes first."""
        if self._recorder.late_bytes >= LATE_BYTES:
            self.write_late()
        elif self._late is None and self._recorder.late_bytes:
            self._late = self._loop.call_later(LATE_S, self.write_late)
        if self._is_late_failing:
            refuse(tickets)
        self.now(tickets)


def refuse(tickets: Iterable[Ticket]) -> None:
    """`on_failure: closed`: who has no record gets no answer."""
    for ticket in tickets:
        if ticket.endpoint.route.record.on_failure == "closed":
            ticket.error = SpoolClosed()
