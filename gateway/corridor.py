"""The corridor for doors that wait: an awaitable around tickets, for ASGI and gRPC. The wire door submits its own tickets."""

import asyncio
from collections.abc import Mapping

from gateway.dataplane import Dataplane
from gateway.errors import SpoolClosed, VersionUnknown, translate
from gateway.live import LiveTable, ServedEndpoint
from gateway.meter import Meter
from gateway.recorder import Recorder
from gateway.request import InferReply, InferRequest, ModelView
from gateway.spool.segment import SpoolFull
from gateway.ticket import Ticket
from models.errors import InputInvalid
from models.signature_check import check, refuse_nonfinite
from routing.records import LabelRow


class _Waiting:
    """The door of one awaited ticket. The future carries no result: a ticket that held itself would be work for the collector."""

    __slots__ = ("answered",)

    def __init__(self, answered: "asyncio.Future[None]") -> None:
        self.answered = answered

    def complete(self, ticket: Ticket) -> None:
        """Wakes who waits; what came of it stands in the ticket."""
        del ticket
        if not self.answered.done():
            self.answered.set_result(None)

    def flush(self) -> None:
        """Nothing is held back: the awaiting coroutine goes on by itself."""


class PlaneCorridor:
    """`gateway.request.Corridor` over the data plane of this worker."""

    def __init__(self, plane: Dataplane, loop: asyncio.AbstractEventLoop) -> None:
        self._plane = plane
        self._loop = loop
        self._is_leaving = False

    def leave(self) -> None:
        """From now on this worker says that it is not ready; what comes all the same is still answered."""
        self._is_leaving = True

    async def infer(self, request: InferRequest) -> InferReply:
        """Rooms 4 to 9 for one decoded request. Cancelling the awaiting task cancels the ticket."""
        plane = self._plane
        endpoint = plane.endpoint(request.endpoint)
        try:
            inputs, rows = check(endpoint.signature, request.inputs)
            if endpoint.route.nonfinite == "reject":
                refuse_nonfinite(endpoint.signature, inputs)
            pin_version = request.version if request.alias is None else _version_of(endpoint, request.alias)
        except (InputInvalid, VersionUnknown) as error:
            plane.meter.refused(endpoint.name, translate(error).code)
            raise
        if request.headers.get("x-request-id") not in (None, request.request_id):
            plane.meter.count("runoff_request_ids_dropped_total", {})
        door = _Waiting(self._loop.create_future())
        ticket = Ticket(
            door,
            endpoint,
            inputs,
            rows,
            request.protocol,
            request.received_ns,
            headers=request.headers,
            parameters=request.parameters,
            request_id=request.request_id,
            timeout_s=request.timeout_s,
            pin_variant=request.variant,
            pin_version=pin_version,
            priority=request.priority,
            explain=request.explain and (request.may_explain or endpoint.route.explain),
            traceparent=request.traceparent,
        )
        plane.submit(ticket)
        try:
            await door.answered
        except asyncio.CancelledError:
            plane.cancel(ticket)
            raise
        return _reply(ticket)

    def view(self, endpoint: str, version: str | None = None) -> ModelView:
        """Metadata of an endpoint; raises EndpointUnknown or VersionUnknown."""
        served = self._plane.endpoint(endpoint)
        if version is not None:
            self._plane.table.arm_of_version(served, version)
        return _view(self._plane.table, served)

    def views(self) -> list[ModelView]:
        """Every endpoint of the live table."""
        table = self._plane.table
        return [_view(table, endpoint) for endpoint in table.endpoints.values()]

    def default_endpoint(self) -> str:
        """The endpoint of a bare `/invocations`; raises EndpointUnknown."""
        return self._plane.endpoint(None).name

    def refused(self, endpoint: str, error: Exception) -> None:
        """Counts what a door refused before there was a ticket."""
        self._plane.meter.refused(endpoint, translate(error).code)

    @property
    def is_ready(self) -> bool:
        """Whether this worker may be sent requests."""
        return not self._is_leaving and not self._plane.is_draining


class SpoolLabels:
    """`gateway.request.LabelSink` over the worker's spool."""

    def __init__(self, recorder: Recorder, meter: Meter) -> None:
        self._recorder = recorder
        self._meter = meter

    def accept(self, rows: list[LabelRow]) -> None:
        """Writes the labels as one block; raises SpoolClosed when the spool takes nothing."""
        try:
            self._recorder.write_labels(rows)
        except (SpoolFull, OSError) as error:
            self._meter.count("runoff_labels_total", {"outcome": "rejected"}, len(rows))
            raise SpoolClosed("the spool takes no labels now") from error
        self._meter.count("runoff_labels_total", {"outcome": "accepted"}, len(rows))


def _version_of(endpoint: ServedEndpoint, alias: str) -> str:
    """A TensorFlow Serving label is an alias that a variant follows."""
    for variant in endpoint.route.variants:
        if variant.model.endswith(f"@{alias}"):
            return endpoint.variant_places[variant.name].model.staged.key.version
    raise VersionUnknown(
        f"unknown label '{alias}' of model '{endpoint.name}': no variant follows an alias of this name"
    )


def _view(table: LiveTable, served: ServedEndpoint) -> ModelView:
    return ModelView(
        endpoint=served.name,
        signature=served.signature,
        champion=served.champion.model.staged,
        versions=tuple(sorted(served.pins, key=lambda version: (len(version), version))),
        is_ready=True,
        revision=served.revision,
        allow_pin=served.route.allow_pin,
        default=table.default == served.name,
        body_bytes_max=served.body_bytes_max,
    )


def _reply(ticket: Ticket) -> InferReply:
    if ticket.error is not None:
        error = ticket.error
        if ticket.prediction_id:
            error.prediction_id = ticket.prediction_id  # type: ignore[attr-defined]  # doors name the id in the error's body
        raise error
    return InferReply(
        prediction_id=ticket.prediction_id,
        endpoint=ticket.endpoint.name,
        variant=ticket.answered.name,
        assigned=ticket.arm.name,
        model=ticket.answered.model.staged,
        revision=ticket.endpoint.revision,
        outputs=ticket.outputs(),
        explain=_explain(ticket) if ticket.explain else None,
    )


def _explain(ticket: Ticket) -> dict[str, str | int | float | None]:
    """Why this answer: the draw, and where the time went."""
    batch = ticket.batch
    assert batch is not None
    grounds: Mapping[int, str] = {0: "split", 1: "rule", 2: "pin"}
    return {
        "assigned": ticket.arm.name,
        "assigned_by": grounds[ticket.assigned_by],
        "rule": ticket.rule,
        "bucket": ticket.bucket,
        "share": ticket.propensity,
        "queue_us": (batch.started_ns - ticket.submitted_ns) // 1000,
        "compute_us": (batch.finished_ns - batch.started_ns) // 1000,
        "batch_rows": batch.rows,
    }
