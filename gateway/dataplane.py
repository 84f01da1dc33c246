"""The corridor: the one place that knows the order of a request's rooms. Whoever changes the path changes its page in ARCHITECTURE.md.

A request is plain function calls from `submit` to its queue, and one turn of the event loop from its queue to its reply:

    submit    4 table → 5 split → 6 lease → 7 admission → queued        (called by a door, during the turn's reads)
    _turn     8 run what is queued → 9 record → reply                    (called once, after all sockets of this turn were read)

So the requests of one turn share a run, a spool write and a clock, and nobody waits for a timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from gateway.admission import Admission
from gateway.errors import (
    Cancelled,
    DeadlinePassed,
    EndpointUnknown,
    GatewayError,
    NotAllowed,
    NotReady,
    SpoolClosed,
    translate,
)
from gateway.ids import Minter
from gateway.live import Arm, LiveTable, ServedEndpoint
from gateway.meter import Meter
from gateway.recorder import Recorder, Written
from gateway.telemetry.trace import Span, Tracer
from gateway.ticket import Batch, Door, Ticket
from models.batching import gather
from models.catalog import LoadedModel
from models.errors import InputInvalid, ModelFailed, ModelsError
from models.pool import ComputePool
from routing.errors import RoutingError

INLINE_S: Final = 0.001
"""What one turn may spend in models on the loop, and the longest single run there; longer runs go to the pool's threads."""
LATE_S: Final = 0.1
LATE_BYTES: Final = 256 << 10
"""`durability: async`: what a kill of this process can lose, in time and in bytes; stated in docs/durability.md."""
_PIN: Final = 2
"""Index of `pin` in routing.records.ASSIGNED_BY."""


class Dataplane:
    """Rooms 4 to 9 of one worker. Everything runs on the event loop but `_run`, which may run on a pool thread."""

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
        self._admission = admission
        self._pool = pool
        self._sync_pool = sync_pool
        self._tracer = tracer
        self._minter = minter or Minter()
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._queues: dict[LoadedModel, deque[Ticket]] = {}
        self._running: set[LoadedModel] = set()
        self._landed: list[Batch] = []
        self._failed: list[Ticket] = []
        self._is_scheduled = False
        self._unsynced = Group()
        self._is_syncing = False
        self._late: asyncio.TimerHandle | None = None
        self._is_late_failing = False

    # ── rooms 4 to 7: from the door to a queue ───────────────────────────────────────────────────────────────────────────────

    def submit(self, ticket: Ticket) -> None:
        """Takes a decoded request whose `endpoint` comes from the present `table`, and answers it later through its door.

        Raises what `gateway.errors.translate` knows, when the request is refused before a variant is assigned; it is then counted
        and not recorded. After this call has returned, exactly one record and one `door.complete` follow.
        """
        endpoint = ticket.endpoint
        ticket.decoded_ns = self._clock_ns()
        try:
            if self.is_draining:
                raise NotReady("this process is draining", "draining")
            self._assign(ticket, endpoint)
            arm = ticket.arm
            self._admission.enter(endpoint, arm.model, len(self._queues.get(arm.model, ())))
        except (GatewayError, ModelsError, RoutingError) as error:
            self.meter.refused(endpoint.name, translate(error).code)
            raise
        endpoint.inflight += 1
        self.meter.assigned()
        self._enqueue(ticket, arm)

    def cancel(self, ticket: Ticket) -> None:
        """The caller has gone: the ticket is dropped before its run if it has not run yet. Its record says so."""
        ticket.cancelled = True

    def _assign(self, ticket: Ticket, endpoint: ServedEndpoint) -> None:
        """Room 5: who answers, and on what ground."""
        ticket.prediction_bytes, ticket.prediction_id = self._minter.mint()
        columns = endpoint.columns(ticket.inputs)
        assignment = endpoint.table.assign(
            ticket.headers, ticket.parameters, columns, ticket.prediction_bytes, ticket.pin_variant
        )
        ticket.arm = endpoint.arms[assignment.arm]
        ticket.assigned_by = assignment.assigned_by
        ticket.bucket = assignment.bucket
        ticket.propensity = assignment.propensity
        ticket.rule = assignment.rule
        ticket.unit = assignment.unit_key
        ticket.unit_missing = assignment.unit_missing
        ticket.experiment = assignment.experiment
        if assignment.unit_missing:
            self.meter.count("runoff_units_missing_total", {"endpoint": endpoint.name})
        if ticket.pin_version is not None:
            if not endpoint.route.allow_pin and ticket.pin_version != endpoint.champion.model.staged.key.version:
                raise NotAllowed(f"endpoint '{endpoint.name}' does not allow a version in the path (allow_pin: false)")
            ticket.arm = self.table.arm_of_version(endpoint, ticket.pin_version)
            ticket.assigned_by, ticket.propensity, ticket.experiment = _PIN, None, False
        ticket.answered = ticket.arm
        ticket.mirrors = endpoint.mirrors_drawn(ticket.prediction_bytes) if endpoint.mirror_names else 0
        timeout_ns = endpoint.timeout_ns
        if ticket.timeout_s is not None:
            timeout_ns = min(timeout_ns, int(ticket.timeout_s * 1e9))
        ticket.deadline_ns = ticket.received_ns + timeout_ns
        if self._tracer is not None and (ticket.traceparent is not None or self._tracer.is_on):
            ticket.trace = self._tracer.sample(ticket.traceparent)

    def _enqueue(self, ticket: Ticket, arm: Arm) -> None:
        model = arm.model
        model.leases += 1
        ticket.submitted_ns = self._clock_ns() if ticket.trace is not None else ticket.decoded_ns
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = deque()
        if ticket.priority and queue:
            _insert_by_priority(queue, ticket)
        else:
            queue.append(ticket)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    # ── rooms 8 and 9: one turn ──────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self) -> None:
        """Runs what is queued, within the turn's budget; records and answers what has run, here or on a thread."""
        self._is_scheduled = False
        finished, self._landed = self._landed, []
        budget_s = INLINE_S
        waiting = list(self._queues)
        while waiting:  # round robin over the models, one batch each: a model with a long queue takes no other's turn
            left: list[LoadedModel] = []
            for model in waiting:
                queue = self._queues[model]
                if model in self._running:
                    continue
                batch = self._cut(model, queue)
                if batch is None:
                    del self._queues[model]
                    continue
                predicted_s = model.predicted_s(batch.rows)
                if predicted_s > INLINE_S:
                    self._running.add(model)
                    self._pool.submit(lambda batch=batch: self._run_on_thread(batch))  # type: ignore[misc]
                elif predicted_s > budget_s and budget_s < INLINE_S:
                    queue.extendleft(reversed(batch.tickets))
                    self._schedule()
                    waiting = []
                    left = []
                    break
                else:
                    budget_s -= predicted_s
                    finished.extend(_run(batch, self._clock_ns))
                    left.append(model)
            waiting = left
        if finished or self._failed:
            self._finish(finished)

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
            if tickets and (rows + ticket.rows > rows_max or not _fits(tickets[0], ticket)):
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
        done = _run(batch, self._clock_ns)
        self._loop.call_soon_threadsafe(self._land, batch.model, done)

    def _land(self, model: LoadedModel, done: list[Batch]) -> None:
        self._running.discard(model)
        self._landed.extend(done)
        self._turn()

    def _finish(self, batches: list[Batch]) -> None:
        """Room 9 and the way out: record, count, write once, then let every door reply."""
        now_ns = self._clock_ns()
        wall_ns = self._wall_ns()
        offset_us, unix_ms = wall_ns // 1000 - now_ns // 1000, wall_ns // 1_000_000
        groups: dict[str, list[Ticket]] = {}
        for batch in [*batches, *self._failed_batches()]:
            kept = self._settle(batch)
            for tickets in _by_endpoint(kept):
                self._recorder.add(batch, tickets, offset_us, now_ns)
                self.meter.finished(batch, tickets, now_ns, unix_ms)
                if self._tracer is not None:
                    self._trace(batch, tickets, offset_us, now_ns)
                groups.setdefault(tickets[0].endpoint.route.record.durability, []).extend(tickets)
            batch.tickets = []  # tickets know their batch: without this each request would leave a cycle to the collector
        written = self._recorder.flush()
        self._count_unrecorded()
        for durability, tickets in groups.items():
            if durability == "process":
                self._recorded(written[durability], tickets)
                self._reply(tickets)
            elif durability == "disk":
                self._reply_synced(written[durability], tickets)
            else:
                self._reply_early(tickets)

    def _settle(self, batch: Batch) -> list[Ticket]:
        """Gives the leases back and sets every ticket's outcome; those whose champion takes over go round again."""
        kept: list[Ticket] = []
        offset = 0
        for ticket in batch.tickets:
            if batch.started_ns:
                ticket.answered.model.leases -= 1
            ticket.batch = batch
            ticket.offset = offset
            offset += ticket.rows
            if batch.error is not None:
                if self._falls_back(ticket, batch.error):
                    continue
                ticket.error = batch.error
            if ticket.error is not None:
                wire = translate(ticket.error)
                ticket.status, ticket.code = wire.status, wire.code
                ticket.mirrors = 0  # there is no live answer to compare with
                if type(ticket.error) is Cancelled:
                    self.meter.count("runoff_cancelled_total", {"endpoint": ticket.endpoint.name})
            ticket.endpoint.inflight -= 1
            kept.append(ticket)
        return kept

    def _falls_back(self, ticket: Ticket, error: Exception) -> bool:
        """The champion answers for a failed challenger, inside what is left of the deadline. A refusal counts too: the champion may not refuse."""
        champion = ticket.endpoint.champion
        if not ticket.arm.fallback or ticket.answered is champion:
            return False
        ticket.first_error = error
        ticket.code = translate(error).code
        ticket.answered = champion
        self.meter.count("runoff_fallbacks_total", {"endpoint": ticket.endpoint.name, "variant": ticket.arm.name})
        self._enqueue(ticket, champion)
        return True

    def _failed_batches(self) -> list[Batch]:
        """What was cancelled or expired before its run, as batches that never started."""
        failed, self._failed = self._failed, []
        batches = []
        for ticket in failed:
            batch = Batch(ticket.answered.model, [ticket], ticket.rows)
            batches.append(batch)
        return batches

    def _count_unrecorded(self) -> None:
        """What the recorder left out, or could not write for mirrors."""
        for (endpoint, mirror), count in self._recorder.mirror_overflow.items():
            labels = {"endpoint": endpoint, "variant": mirror, "outcome": "overflow"}
            self.meter.count("runoff_mirrored_total", labels, count)
        self._recorder.mirror_overflow.clear()
        for name, count in self._recorder.inputs_too_large.items():
            self.meter.count("runoff_inputs_too_large_total", {"endpoint": name}, count)
        self._recorder.inputs_too_large.clear()
        sampled_out, self._recorder.sampled_out = self._recorder.sampled_out, 0
        if sampled_out:
            self.meter.records("sampled_out", sampled_out)

    def _recorded(self, written: Written, tickets: Iterable[Ticket]) -> None:
        """Counts the records, and does what `on_failure: closed` demands where some could not be written."""
        self.meter.records("recorded", written.recorded)
        if written.failed:
            self.meter.records("failed", written.failed)
            _refuse(tickets)

    def _reply(self, tickets: Iterable[Ticket]) -> None:
        doors: dict[Door, None] = {}
        for ticket in tickets:
            ticket.door.complete(ticket)
            doors[ticket.door] = None
        for door in doors:
            door.flush()

    # ── `durability: disk` ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _reply_synced(self, written: Written, tickets: list[Ticket]) -> None:
        """The replies wait for a sync that begins after this; until then they count as in flight, so that a slow disk is bounded."""
        self._recorded(Written(0, written.failed), tickets)
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

    def _synced(self, group: "Group", is_durable: bool) -> None:
        self._is_syncing = False
        self._recorded(Written(group.records, 0) if is_durable else Written(0, group.records), group.tickets)
        for ticket in group.tickets:
            ticket.endpoint.inflight -= 1
        self._reply(group.tickets)
        self._sync()

    # ── `durability: async` ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _reply_early(self, tickets: list[Ticket]) -> None:
        """The replies leave before the records are written, within LATE_S; only the turn that fills LATE_BYTES writes first."""
        if self._recorder.late_bytes >= LATE_BYTES:
            self.write_late()
        elif self._late is None and self._recorder.late_bytes:
            self._late = self._loop.call_later(LATE_S, self.write_late)
        if self._is_late_failing:
            _refuse(tickets)
        self._reply(tickets)

    def write_late(self) -> None:
        """Writes the records whose replies have left; called by itself, and once more before the recorder is closed."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        written = self._recorder.flush_late()
        if written.recorded or written.failed:
            self._is_late_failing = written.failed > 0
            self._recorded(written, ())

    # ── the rest of a worker's life ──────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now_unix_s: float) -> None:
        """About once a second: what depends on the wall clock alone."""
        for endpoint in self.table.endpoints.values():
            endpoint.mirrors_running = endpoint.table.mirrors_running(now_unix_s)

    @property
    def inflight(self) -> int:
        """Requests between `submit` and their reply."""
        return sum(endpoint.inflight for endpoint in self.table.endpoints.values())

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


class Group:
    """Tickets whose replies wait for one sync, and how many records of theirs it makes durable."""

    __slots__ = ("records", "tickets")

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.records = 0


def _refuse(tickets: Iterable[Ticket]) -> None:
    """`on_failure: closed`: who has no record gets no answer."""
    for ticket in tickets:
        if ticket.endpoint.route.record.on_failure == "closed":
            ticket.error = SpoolClosed()


def _run(batch: Batch, clock_ns: Callable[[], int]) -> list[Batch]:
    """Runs a batch, on the loop or on a thread. A batch that fails is halved until the poisoned request stands alone.

    Never raises: what the model did wrong is in `Batch.error`.
    """
    model = batch.model
    specs = model.staged.signature.inputs
    batch.started_ns = clock_ns()
    try:
        select = batch.tickets[0].answered.select
        places = range(len(specs)) if select is None else select
        batch.inputs = [
            gather([ticket.inputs[place] for ticket in batch.tickets], spec)
            for place, spec in zip(places, specs, strict=True)
        ]
        batch.outputs = model.run(batch.inputs)
    except Exception as error:  # noqa: BLE001 - a model may raise anything, and it must not reach the loop or batch mates
        batch.finished_ns = clock_ns()
        if len(batch.tickets) > 1:
            return [done for half in _halves(batch) for done in _run(half, clock_ns)]
        batch.error = (
            error if isinstance(error, (InputInvalid, ModelFailed)) else ModelFailed("the model failed on this input")
        )
        return [batch]
    batch.finished_ns = clock_ns()
    model.observe(batch.rows, (batch.finished_ns - batch.started_ns) / 1e9)
    return [batch]


def _halves(batch: Batch) -> list[Batch]:
    middle = len(batch.tickets) // 2
    return [
        Batch(batch.model, tickets, sum(ticket.rows for ticket in tickets))
        for tickets in (batch.tickets[:middle], batch.tickets[middle:])
    ]


def _fits(first: Ticket, other: Ticket) -> bool:
    """Whether two tickets of one model can share a run: the same selection of inputs, and equal inner dimensions where those are free."""
    if first.answered.select != other.answered.select:
        return False
    if first.is_flat and other.is_flat:
        return True
    if not first.answered.model.staged.signature.is_batched:
        return False
    return all(
        isinstance(a, list) or isinstance(b, list) or a.shape[1:] == b.shape[1:]
        for a, b in zip(first.inputs, other.inputs, strict=True)
    )


def _by_endpoint(tickets: list[Ticket]) -> list[list[Ticket]]:
    """Cuts a batch's tickets by endpoint; nearly always there is one."""
    if not tickets:
        return []
    first = tickets[0].endpoint
    if all(ticket.endpoint is first for ticket in tickets):
        return [tickets]
    groups: dict[int, list[Ticket]] = {}
    for ticket in tickets:
        groups.setdefault(id(ticket.endpoint), []).append(ticket)
    return list(groups.values())


def _insert_by_priority(queue: deque[Ticket], ticket: Ticket) -> None:
    """Before the first ticket that is less urgent; 1 is highest, 0 (default) stands behind every explicit level."""
    rank = ticket.priority
    for place, other in enumerate(queue):
        if other.priority == 0 or other.priority > rank:
            queue.insert(place, ticket)
            return
    queue.append(ticket)
