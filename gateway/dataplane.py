"""The corridor: the one place that knows the order of a request's rooms. Whoever changes the path changes its page in ARCHITECTURE.md.

A request is decoded by its door while the sockets of a turn of the event loop are read; the rest of its way is one turn:

    submit    waits with the others that this turn's reads bring        (called by a door, during the reads)
    _turn     5 split → 6 lease → 7 admission → queued                  (called once, after all sockets of this turn were read)
              8 run what is queued → 9 record → reply

So the requests of one turn share ids, a run, a spool write and a clock, and nobody waits for a timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.admission import Admission
from gateway.errors import (
    INTERNAL,
    Cancelled,
    DeadlinePassed,
    EndpointUnknown,
    NotReady,
    translate,
)
from gateway.ids import Minter
from gateway.live import Arm, LiveTable, ServedEndpoint
from gateway.meter import Meter
from gateway.recorder import Recorder
from gateway.replies import Replies, refuse
from gateway.runs import by_endpoint, fits, insert_by_priority, run
from gateway.telemetry.log import EventLog
from gateway.telemetry.trace import Span, Tracer
from gateway.ticket import Batch, Ticket
from models.catalog import LoadedModel
from models.pool import ComputePool
from routing.errors import PinRefused
from routing.records import ASSIGNED_BY
from routing.split import canonical_unit

log = EventLog(__name__)

INLINE_S: Final = 0.001
"""What one turn may spend in models on the loop, and the longest single run there; longer runs go to the pool's threads."""
_BY_PIN: Final = ASSIGNED_BY.index("pin")


class Dataplane:
    """Rooms 4 to 9 of one worker. Everything runs on the event loop but `runs.run`, which may run on a pool thread."""

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
        self.is_draining = False
        self._loop = loop
        self._recorder = recorder
        self._replies = Replies(loop, recorder, meter, sync_pool, admission)
        self._admission = admission
        self._pool = pool
        self._tracer = tracer
        self._minter = minter or Minter()
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._arrived: list[Ticket] = []
        self._queues: dict[LoadedModel, deque[Ticket]] = {}
        self._running: dict[LoadedModel, int] = {}
        self._landed: list[Batch] = []
        self._failed: list[Ticket] = []
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
        """The caller has gone: the ticket is dropped before its run if it has not run yet. Its record says so."""
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
        waiting = list(self._queues)
        while waiting:  # round robin over the models, one batch each: a model with a long queue takes no other's turn
            left: list[LoadedModel] = []
            for model in waiting:
                if self._running.get(model, 0) >= model.runs_max:
                    continue
                queue = self._queues[model]
                batch = self._cut(model, queue)
                if batch is None:
                    del self._queues[model]
                    continue
                predicted_s = model.predicted_s(batch.rows)
                if predicted_s > INLINE_S:
                    self._running[model] = self._running.get(model, 0) + 1
                    self._pool.submit(lambda batch=batch: self._run_on_thread(batch))  # type: ignore[misc]
                elif predicted_s > budget_s and budget_s < INLINE_S:
                    queue.extendleft(reversed(batch.tickets))
                    if not self._is_scheduled:
                        self._schedule()
                    waiting = []
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

    # ── rooms 5 to 7: into a queue ───────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, tickets: list[Ticket]) -> None:
        """Gives every ticket an id and a variant and puts it into its model's queue, or refuses it."""
        now_ns = self._clock_ns()
        enter, queues, tracer = self._admission.enter, self._queues, self._tracer
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
                            self._miss_unit(ticket)
                    place, ticket.bucket = table.draw(ticket.unit, minted[0])
                    arm = ticket.arm = ticket.answered = endpoint.arms[place]
                    ticket.propensity = table.shares[place]
                else:
                    arm = self._assign(ticket)
                model = arm.model
                queue = queues.get(model)
                enter(endpoint, model, 0 if queue is None else len(queue))
                if ticket.heavy_bytes:
                    self._admission.hold(ticket.heavy_bytes)
            except Exception as error:  # noqa: BLE001  # one request that nobody expected must not cost the turn its others
                self._turn_away(ticket, error)
                refused.append(ticket)
                continue
            if endpoint.mirror_names:
                ticket.mirrors = endpoint.mirrors_drawn(minted[0])
            timeout_ns = endpoint.timeout_ns
            if ticket.timeout_s is not None:
                timeout_ns = min(timeout_ns, int(ticket.timeout_s * 1e9))
            ticket.deadline_ns = ticket.received_ns + timeout_ns
            if tracer is not None and (tracer.is_on or ticket.traceparent is not None):
                ticket.trace = tracer.sample(ticket.traceparent)
                if ticket.trace is not None:
                    ticket.submitted_ns = self._clock_ns()
            endpoint.inflight += 1
            model.leases += 1
            if queue is None:
                queues[model] = deque((ticket,))
            elif ticket.priority:
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

    def _assign(self, ticket: Ticket) -> Arm:
        """Room 5 at length: pins, rules, and units from anywhere. The arm that answers."""
        endpoint = ticket.endpoint
        assignment = endpoint.table.assign(
            ticket.headers,
            ticket.parameters,
            endpoint.columns(ticket.inputs, ticket.lookup),
            ticket.prediction_bytes,
            ticket.pin_variant,
        )
        ticket.arm = endpoint.arms[assignment.arm]
        ticket.assigned_by = assignment.assigned_by
        ticket.bucket = assignment.bucket
        ticket.propensity = assignment.propensity
        ticket.rule = assignment.rule
        ticket.unit = assignment.unit_key
        ticket.experiment = assignment.experiment
        if assignment.unit_missing:
            self._miss_unit(ticket)
        if ticket.pin_version is not None:
            if not endpoint.route.allow_pin:
                raise PinRefused(endpoint.name, "a version")
            ticket.arm = self.table.arm_of_version(endpoint, ticket.pin_version)
            ticket.assigned_by, ticket.propensity, ticket.experiment = _BY_PIN, None, False
        ticket.answered = ticket.arm
        return ticket.arm

    def _miss_unit(self, ticket: Ticket) -> None:
        ticket.unit_missing, ticket.experiment = True, False
        self.meter.count("runoff_units_missing_total", {"endpoint": ticket.endpoint.name})

    # ── room 8: runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _cut(self, model: LoadedModel, queue: deque[Ticket]) -> Batch | None:
        """The next batch of a queue: at most `rows_max` rows, without the cancelled and the expired. None: the queue is empty."""
        now_ns = self._clock_ns()
        rows_max = model.rows_max
        tickets: list[Ticket] = []
        rows = 0
        while queue:
            ticket = queue[0]
            if ticket.cancelled or now_ns > ticket.deadline_ns:
                queue.popleft()
                late = "the deadline passed before the model ran"
                self._fail(ticket, Cancelled("the caller has gone") if ticket.cancelled else DeadlinePassed(late))
                continue
            if tickets and (rows + ticket.rows > rows_max or not fits(tickets[0], ticket)):
                break
            queue.popleft()
            tickets.append(ticket)
            rows += ticket.rows
        return Batch(model, tickets, rows) if tickets else None

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        """A ticket that will not run: it is recorded and answered with the others of this turn."""
        ticket.answered.model.leases -= 1
        ticket.error = error
        self._failed.append(ticket)

    def _run_on_thread(self, batch: Batch) -> None:
        done = run(batch, self._clock_ns)
        self._loop.call_soon_threadsafe(self._land, batch.model, done)

    def _land(self, model: LoadedModel, done: list[Batch]) -> None:
        running = self._running.pop(model) - 1
        if running:
            self._running[model] = running
        self._landed += done
        self._turn()

    # ── room 9: records, and the way out ─────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, batches: list[Batch]) -> None:
        """Room 9 and the way out: record, count, write once, then let every door reply."""
        now_ns = self._clock_ns()
        wall_ns = self._wall_ns()
        offset_us, unix_ms = wall_ns // 1000 - now_ns // 1000, wall_ns // 1_000_000
        groups: dict[str, list[Ticket]] = {}
        for batch in [*batches, *self._failed_batches()]:
            kept = self._settle(batch)
            for tickets in by_endpoint(kept):
                tickets[0].endpoint.inflight -= len(tickets)
                try:
                    self._recorder.add(batch, tickets, offset_us, now_ns)
                    self.meter.finished(batch, tickets, now_ns, unix_ms)
                except Exception as error:  # noqa: BLE001  # a mistake of ours must not cost the turn its replies
                    log.error("record_broke", endpoint=tickets[0].endpoint.name, records=len(tickets), error=error)
                    self.meter.records("failed", len(tickets))
                    refuse(tickets)
                if self._tracer is not None:
                    self._trace(batch, tickets, offset_us, now_ns)
                groups.setdefault(tickets[0].endpoint.route.record.durability, []).extend(tickets)
            batch.tickets = []  # tickets know their batch: without this each request would leave a cycle to the collector
        written = self._recorder.flush()
        self._count_unrecorded()
        self._replies.leave(written, groups)

    def _settle(self, batch: Batch) -> list[Ticket]:
        """Gives the leases back and sets every ticket's outcome; those whose champion takes over go round again."""
        if batch.started_ns:
            batch.model.leases -= len(batch.tickets)
        offset = 0
        for ticket in batch.tickets:
            ticket.batch = batch
            ticket.offset = offset
            offset += ticket.rows
        if batch.outputs is not None:
            return batch.tickets
        kept: list[Ticket] = []
        for ticket in batch.tickets:
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
        insert_by_priority(self._queues.setdefault(champion.model, deque()), ticket)
        if not self._is_scheduled:
            self._schedule()
        return True

    def _failed_batches(self) -> list[Batch]:
        """What was cancelled or expired before its run, as batches that never started."""
        failed, self._failed = self._failed, []
        return [Batch(ticket.answered.model, [ticket], ticket.rows) for ticket in failed]

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
        return len(self._arrived) + sum(endpoint.inflight for endpoint in self.table.endpoints.values())

    def _trace(self, batch: Batch, tickets: list[Ticket], offset_us: int, now_ns: int) -> None:
        """Spans of the sampled requests, from the instants that every ticket carries anyway."""
        assert self._tracer is not None
        for ticket in tickets:
            if ticket.trace is None or not ticket.trace.is_sampled:
                continue
            started_ns, finished_ns = batch.started_ns or now_ns, batch.finished_ns or now_ns
            instants = (
                ("request", ticket.received_ns, now_ns),
                ("decode", ticket.received_ns, ticket.decoded_ns),
                ("route", ticket.decoded_ns, ticket.submitted_ns),
                ("queue", ticket.submitted_ns, started_ns),
                ("batch", started_ns, finished_ns),
                ("record", finished_ns, now_ns),
            )
            offset_ns = offset_us * 1000
            key = ticket.answered.model.staged.key
            self._tracer.record(
                ticket.trace,
                [Span(name, offset_ns + start, offset_ns + end) for name, start, end in instants],
                {
                    "runoff.prediction_id": ticket.prediction_id,
                    "runoff.endpoint": ticket.endpoint.name,
                    "runoff.variant": ticket.answered.name,
                    "runoff.model": key.name,
                    "runoff.version": key.version,
                    "runoff.revision": ticket.endpoint.revision,
                    "runoff.batch_rows": batch.rows,
                },
                ticket.code,
            )

    def endpoint(self, name: str | None) -> ServedEndpoint:
        """The endpoint of a name, or the default one; raises EndpointUnknown."""
        if name is None:
            name = self.table.default
            if name is None:
                raise EndpointUnknown("no default endpoint: name one in X-Runoff-Endpoint")
        return self.table.endpoint(name)
