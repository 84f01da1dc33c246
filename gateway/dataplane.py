"""The corridor: the one place that knows the order of a request's rooms. Whoever changes the path changes its page in ARCHITECTURE.md.

A request is decoded by its door while the sockets of a turn of the event loop are read; the rest of its way is one turn:

    submit    waits with the others that this turn's reads bring        (called by a door, during the reads)
    _turn     5 split → 6 lease → 7 admission → queued                  (called once, after all sockets of this turn were read)
              8 run what is queued → 9 record → reply

So the requests of one turn share ids, a run, a spool write and a clock, and nobody waits for a timer.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway.admission import Admission
from gateway.assignment import assign, miss_unit
from gateway.errors import INTERNAL, Cancelled, DeadlinePassed, EndpointUnknown, NotReady, translate
from gateway.ids import Minter
from gateway.live import LiveTable, ServedEndpoint
from gateway.meter import Meter
from gateway.recorder import Recorder
from gateway.replies import Replies, refuse
from gateway.runs import Queue, by_endpoint, fits, insert_by_priority, run
from gateway.spans import trace
from gateway.telemetry.log import EventLog
from gateway.telemetry.trace import Tracer
from gateway.threaded import ThreadedRuns
from gateway.ticket import Batch, Ticket
from models.catalog import LoadedModel
from models.pool import ComputePool
from routing.split import canonical_unit

log = EventLog(__name__)

INLINE_S: Final = 0.001
"""What one turn may spend in models on the loop, and the longest single run there; longer runs go to the pool's threads."""
_OTHERS_MAX: Final = 64
"""So many tickets that do not fit are passed over to fill a batch."""
_EARLY_NS: Final = 1_000_000
"""By how much a timer of the loop may fire too early: uvloop's count in milliseconds."""


class Dataplane:
    """Rooms 4 to 9 of one worker. Everything runs on the event loop but `runs.run`, which may run on a pool thread (`threaded`)."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        recorder: Recorder,
        meter: Meter,
        admission: Admission,
        pool: ComputePool,
        sync_pool: ComputePool,
        tracer: Tracer | None = None,
        minter: Minter | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.table = LiveTable()
        self.meter = meter
        self.admission = admission
        self.is_draining = False
        self._loop = loop
        self._recorder = recorder
        self._replies = Replies(loop, recorder, meter, sync_pool, admission)
        self._threads = ThreadedRuns(loop, pool, clock_ns, self._land, self._expire)
        self._tracer = tracer
        self._minter = minter or Minter()
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._arrived: list[Ticket] = []
        self._queues: dict[LoadedModel, Queue] = {}
        self._landed: list[Batch] = []
        self._failed: list[Batch] = []
        self._is_scheduled = False

    def submit(self, ticket: Ticket) -> None:
        """Takes a decoded request whose `endpoint` comes from the present `table`. Exactly one `door.complete` follows, never at once.

        A request that is refused before a variant is assigned is answered with its error, counted, and not recorded; any other leaves
        exactly one record.
        """
        self._arrived.append(ticket)
        if not self._is_scheduled:
            self._schedule()

    def cancel(self, ticket: Ticket) -> None:
        """The caller has gone: the ticket is dropped before its run if that has not begun yet. Its record says so, also when it has.

        Who goes when its deadline has passed went for that: it is recorded as late.
        """
        if not ticket.deadline_ns or self._clock_ns() < ticket.deadline_ns - _EARLY_NS:
            ticket.cancelled = True

    def _schedule(self) -> None:
        self._is_scheduled = True
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Admits what has arrived, runs what is queued within the turn's budget; records and answers what has run, here or on a thread."""
        self._is_scheduled = False
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            self._admit(arrived)
        finished, self._landed = self._landed, []
        budget_s = INLINE_S
        running = self._threads.running
        waiting = list(self._queues)
        while waiting:  # round robin over the models, one batch each: a model with a long queue takes no other's turn
            left: list[LoadedModel] = []
            for model in waiting:
                if running.get(model, 0) >= model.runs_max:
                    continue
                queue = self._queues[model]
                batch = self._cut(model, queue)
                if batch is None:
                    del self._queues[model]
                    continue
                predicted_s = model.predicted_s(batch.rows)
                if predicted_s > INLINE_S:
                    self._threads.start(batch)
                elif predicted_s > budget_s and budget_s < INLINE_S:
                    queue.extendleft(reversed(batch.tickets))
                    queue.rows += batch.rows
                    self._go_on_with(model)
                    left = []
                    break
                else:
                    budget_s -= predicted_s
                    finished += run(batch, self._clock_ns)
                    if not queue:
                        del self._queues[model]
                        continue
                left.append(model)
            waiting = left
        if finished or self._failed:
            self._finish(finished)

    def _go_on_with(self, model: LoadedModel) -> None:
        """The next turn begins where this one's budget ended: else who stands first has all of it for as long as his queue lasts."""
        order = list(self._queues)
        place = order.index(model)
        self._queues = {one: self._queues[one] for one in order[place:] + order[:place]}
        if not self._is_scheduled:
            self._schedule()

    # ── rooms 5 to 7: into a queue ───────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, tickets: list[Ticket]) -> None:
        """Gives every ticket an id and a variant and puts it into its model's queue, or refuses it."""
        now_ns = self._clock_ns()
        admission, queues, tracer = self.admission, self._queues, self._tracer
        refused: list[Ticket] = []
        for ticket, minted in zip(tickets, self._minter.mint(len(tickets)), strict=True):
            endpoint = ticket.endpoint
            ticket.prediction_bytes, ticket.prediction_id = minted
            ticket.decoded_ns = ticket.submitted_ns = now_ns
            try:
                if self.is_draining:
                    raise NotReady("this process is draining", "draining")
                if endpoint.is_plain and ticket.pin_variant is None and ticket.pin_version is None:
                    table = endpoint.table
                    if endpoint.unit_header is not None:
                        unit = ticket.headers.get(endpoint.unit_header)
                        if unit:
                            ticket.unit = unit.encode() if unit.isascii() else canonical_unit(unit)
                        else:
                            miss_unit(ticket, self.meter)
                    place, ticket.bucket = table.draw(ticket.unit, minted[0])
                    arm = ticket.arm = ticket.answered = endpoint.arms[place]
                    ticket.propensity = table.shares[place]
                else:
                    arm = assign(ticket, self.table, self.meter)
                model = arm.model
                queue = queues.get(model)
                admission.enter(endpoint, model, queue)
                if endpoint.mirror_names:
                    ticket.mirrors = endpoint.mirrors_drawn(minted[0])
                timeout_ns = endpoint.timeout_ns
                if ticket.timeout_s is not None:
                    timeout_ns = int(min(timeout_ns, ticket.timeout_s * 1e9))  # the caller's may be larger than any int
                ticket.deadline_ns = ticket.received_ns + timeout_ns
                if tracer is not None and (tracer.is_on or ticket.traceparent is not None):
                    ticket.trace = tracer.sample(ticket.traceparent, ticket.tracestate)
                    if ticket.trace is not None:
                        ticket.submitted_ns = self._clock_ns()
                if ticket.heavy_bytes:
                    admission.hold(ticket.heavy_bytes)
            except Exception as error:  # noqa: BLE001  # one request that nobody expected must not cost the turn its others
                self._turn_away(ticket, error)
                refused.append(ticket)
                continue
            endpoint.inflight += 1
            admission.inflight += 1
            model.leases += 1
            if queue is None:
                queue = queues[model] = Queue()
            queue.rows += ticket.rows
            if ticket.priority:
                insert_by_priority(queue, ticket)
            else:
                queue.append(ticket)
        self.meter.assigned(len(tickets) - len(refused))
        if refused:
            self._replies.now(refused)

    def _turn_away(self, ticket: Ticket, error: Exception) -> None:
        """Refused before a variant was assigned: counted, not recorded."""
        wire = translate(error)
        if wire is INTERNAL:
            log.error("request_broke", endpoint=ticket.endpoint.name, error=error)
        self.meter.refused(ticket.endpoint.name, wire.code)
        ticket.error = error
        ticket.prediction_id, ticket.heavy_bytes = "", 0

    # ── room 8: runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _cut(self, model: LoadedModel, queue: Queue) -> Batch | None:
        """The next batch of a queue: at most `rows_max` rows, without the cancelled and the expired. None: the queue is empty.

        Who is first runs, and with him whoever fits; the others keep their order, so that callers of several sizes share runs, each with his own.
        """
        now_ns = self._clock_ns()
        rows_max = model.rows_max
        tickets: list[Ticket] = []
        others: list[Ticket] = []
        rows = 0
        while queue and len(others) < _OTHERS_MAX:
            ticket = queue[0]
            if ticket.cancelled or now_ns > ticket.deadline_ns:
                queue.popleft()
                queue.rows -= ticket.rows
                self._drop(ticket)
                continue
            if tickets and rows + ticket.rows > rows_max:
                break
            queue.popleft()
            if tickets and not fits(tickets[0], ticket):
                others.append(ticket)
                continue
            tickets.append(ticket)
            rows += ticket.rows
        queue.rows -= rows
        if others:
            queue.extendleft(reversed(others))
        return Batch(model, tickets, rows) if tickets else None

    def _drop(self, ticket: Ticket) -> None:
        """A cancelled or expired ticket will not run: it is recorded and answered with the others of this turn."""
        ticket.answered.model.leases -= 1
        late = "the deadline passed before the model ran"
        ticket.error = Cancelled("the caller has gone") if ticket.cancelled else DeadlinePassed(late)
        self._failed.append(Batch(ticket.answered.model, [ticket], ticket.rows))

    def _land(self, batches: list[Batch]) -> None:
        """A thread's results join the next turn, which is now."""
        self._landed += batches
        self._turn()

    def _expire(self, late: list[Batch]) -> None:
        """Deadlines that have passed during runs on threads, and those that pass behind such runs."""
        now_ns = self._clock_ns()
        for queue in (queue for model, queue in self._queues.items() if model in self._threads.running):
            waiting = list(queue)
            queue.clear()
            for ticket in waiting:
                if ticket.cancelled or now_ns > ticket.deadline_ns:
                    queue.rows -= ticket.rows
                    self._drop(ticket)
                else:
                    queue.append(ticket)
        self._failed += late
        if self._failed:
            self._turn()

    # ── room 9: records, and the way out ─────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, batches: list[Batch]) -> None:
        """Room 9 and the way out: record, count, write once, then let every door reply."""
        now_ns = self._clock_ns()
        wall_ns = self._wall_ns()
        offset_us, unix_ms = wall_ns // 1000 - now_ns // 1000, wall_ns // 1_000_000
        groups: dict[str, list[Ticket]] = {}
        failed, self._failed = self._failed, []
        for batch in [*batches, *failed]:
            kept = self._settle(batch)
            for tickets in by_endpoint(kept):
                tickets[0].endpoint.inflight -= len(tickets)
                self.admission.inflight -= len(tickets)
                try:
                    self._recorder.add(batch, tickets, offset_us, now_ns)
                    self.meter.finished(batch, tickets, now_ns, unix_ms)
                except Exception as error:  # noqa: BLE001  # a mistake of ours must not cost the turn its replies
                    log.error("record_broke", endpoint=tickets[0].endpoint.name, records=len(tickets), error=error)
                    self.meter.records("failed", len(tickets))
                    refuse(tickets)
                if self._tracer is not None:
                    trace(self._tracer, batch, tickets, offset_us, now_ns)
                groups.setdefault(tickets[0].endpoint.route.record.durability, []).extend(tickets)
            batch.tickets = []  # tickets know their batch: without this each request would leave a cycle to the collector
        written = self._recorder.flush()
        self._count_unrecorded()
        self._replies.leave(written, groups)

    def _settle(self, batch: Batch) -> list[Ticket]:
        """Gives the leases back and sets every ticket's outcome; those whose champion takes over go round again."""
        if batch.outputs is not None or batch.error is not None:
            batch.model.leases -= len(batch.tickets)
        offset = 0
        for ticket in batch.tickets:
            ticket.batch = batch
            ticket.offset = offset
            offset += ticket.rows
        tickets = batch.tickets if batch.is_whole else [ticket for ticket in batch.tickets if not ticket.has_left]
        if batch.outputs is not None:
            return tickets
        kept: list[Ticket] = []
        for ticket in tickets:
            if batch.error is not None:
                if self._falls_back(ticket, batch.error):
                    continue
                ticket.error = batch.error
            assert ticket.error is not None
            wire = translate(ticket.error)
            ticket.status, ticket.code = wire.status, wire.code
            ticket.mirrors = 0  # there is no live answer to compare with
            if type(ticket.error) is Cancelled:
                self.meter.count("runoff_cancelled_total", {"endpoint": ticket.endpoint.name})
            kept.append(ticket)
        return kept

    def _falls_back(self, ticket: Ticket, error: Exception) -> bool:
        """The champion answers for a failed challenger, inside what is left of the deadline. A refusal counts too: the champion may not refuse."""
        champion = ticket.endpoint.champion
        if not ticket.arm.fallback or ticket.answered is champion:
            return False
        ticket.code = translate(error).code
        ticket.answered = champion
        self.meter.count("runoff_fallbacks_total", {"endpoint": ticket.endpoint.name, "variant": ticket.arm.name})
        champion.model.leases += 1
        queue = self._queues.setdefault(champion.model, Queue())
        queue.rows += ticket.rows
        insert_by_priority(queue, ticket)
        if not self._is_scheduled:
            self._schedule()
        return True

    def _count_unrecorded(self) -> None:
        """What the recorder left out, or could not write for mirrors."""
        for (endpoint, mirror, size), count in self._recorder.mirror_overflow.items():
            labels = {"endpoint": endpoint, "variant": mirror}
            self.meter.count("runoff_mirrored_total", labels | {"outcome": "overflow"}, count)
            self.meter.count("runoff_mirror_dropped_total", labels | {"reason": "overflow", "size": size}, count)
        self._recorder.mirror_overflow.clear()
        for name, count in self._recorder.inputs_too_large.items():
            self.meter.count("runoff_inputs_too_large_total", {"endpoint": name}, count)
        self._recorder.inputs_too_large.clear()
        sampled_out, self._recorder.sampled_out = self._recorder.sampled_out, 0
        if sampled_out:
            self.meter.records("sampled_out", sampled_out)

    # ── the rest of a worker's life ──────────────────────────────────────────────────────────────────────────────────────────

    def write_late(self) -> None:
        """Before the recorder is closed: writes what `durability: async` has put off."""
        self._replies.write_late()

    def tick(self, now_unix_s: float) -> None:
        """About once a second: what depends on the wall clock alone."""
        for endpoint in self.table.endpoints.values():
            endpoint.mirrors_running = endpoint.table.mirrors_running(now_unix_s)

    @property
    def inflight(self) -> int:
        """Requests between `submit` and their reply."""
        return len(self._arrived) + self.admission.inflight

    def endpoint(self, name: str | None) -> ServedEndpoint:
        """The endpoint of a name, or the default one; raises EndpointUnknown."""
        if name is None:
            name = self.table.default
            if name is None:
                raise EndpointUnknown("no default endpoint: name one in X-Runoff-Endpoint")
        return self.table.endpoint(name)
