"""The corridor for doors that wait: an awaitable around tickets, for ASGI and gRPC. The wire door submits its own tickets."""

import asyncio
from collections.abc import Mapping

from gateway.dataplane import Dataplane
from gateway.errors import GatewayError, VersionUnknown, translate
from gateway.features.client import FeatureClient
from gateway.features.served import Lookup, ServedFeatures
from gateway.live import LiveTable, ServedEndpoint
from gateway.request import InferReply, InferRequest, ModelState, ModelView
from gateway.ticket import HEAVY_BYTES_MIN, Door, Ticket
from models.errors import InputInvalid
from models.ref import parse_ref
from models.signature_check import check, refuse_nonfinite
from models.tensors import size_bytes


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

    def __init__(
        self, plane: Dataplane, loop: asyncio.AbstractEventLoop, features: FeatureClient | None = None
    ) -> None:
        """`features` None: nobody looks features up here, and no route says so."""
        self._plane = plane
        self._features = features
        self._loop = loop
        self._is_leaving = False

    def leave(self) -> None:
        """From now on this worker says that it is not ready; what comes all the same is still answered."""
        self._is_leaving = True

    async def infer(self, request: InferRequest) -> InferReply:
        """Rooms 4 to 9 for one decoded request. Cancelling the awaiting task cancels the ticket."""
        plane = self._plane
        endpoint = plane.endpoint(request.endpoint)
        lookup = None
        try:
            if endpoint.features is not None:
                lookup = await self._looked_up(endpoint, endpoint.features, request)
            door = _Waiting(self._loop.create_future())
            ticket = ticket_of(door, endpoint, request, lookup)
        except (InputInvalid, GatewayError) as error:
            plane.meter.refused(endpoint.name, translate(error).code)
            raise
        if request.headers.get("x-request-id") not in (None, request.request_id):
            plane.meter.count("runoff_request_ids_dropped_total", {})
        plane.submit(ticket)
        try:
            await door.answered
        except asyncio.CancelledError:
            plane.cancel(ticket)
            raise
        return reply_of(ticket)

    async def _looked_up(
        self, endpoint: ServedEndpoint, features: ServedFeatures, request: InferRequest
    ) -> Lookup | None:
        """Fills the request's inputs from the feature store. Meanwhile it is in flight, and its models are held open."""
        if self._features is None or not features.needs_lookup(request.inputs):
            return None
        limits = endpoint.route.limits
        timeout_s = limits.timeout_s if request.timeout_s is None else min(limits.timeout_s, request.timeout_s)
        deadline_ns = request.received_ns + int(timeout_s * 1e9)
        with self._plane.admission.held_open(endpoint):
            request.inputs, lookup = await features.look_up(
                self._features, request.inputs, deadline_ns, self._plane.meter.page
            )
        return lookup

    def view(self, endpoint: str, version: str | None = None) -> ModelView:
        """Metadata of an endpoint; raises EndpointUnknown, VersionUnknown or NotWarm."""
        served = self._plane.endpoint(endpoint)
        if version is not None:
            self._plane.table.arm_of_version(served, version)
        return _view(self._plane.table, served)

    def state(self, endpoint: str, version: str | None = None) -> ModelState:
        """Whether this worker may be sent requests of an endpoint; raises EndpointUnknown or VersionUnknown."""
        versions = self._plane.table.cold.get(endpoint)
        if versions is None:
            return ModelState(self.is_ready, self.view(endpoint, version).versions)
        if version is not None and version not in versions:
            raise VersionUnknown(f"unknown version '{version}' of model '{endpoint}', which is not warm here")
        return ModelState(False, versions)

    def version_of(self, endpoint: str, alias: str) -> str:
        """The version that a TensorFlow Serving label means; raises EndpointUnknown, VersionUnknown or NotWarm."""
        return _version_of(self._plane.endpoint(endpoint), alias)

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


def ticket_of(door: Door, endpoint: ServedEndpoint, request: InferRequest, lookup: Lookup | None = None) -> Ticket:
    """The ticket of a decoded request that fits its endpoint. Raises InputInvalid or VersionUnknown."""
    inputs, rows = check(endpoint.signature, request.inputs)
    if endpoint.route.nonfinite == "reject":
        refuse_nonfinite(endpoint.signature, inputs)
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
        pin_version=request.version if request.alias is None else _version_of(endpoint, request.alias),
        priority=request.priority,
        explain=request.explain and (request.may_explain or endpoint.route.explain),
        traceparent=request.traceparent,
        tracestate=request.tracestate,
        lookup=lookup,
    )
    size = sum(map(size_bytes, inputs))
    if size >= HEAVY_BYTES_MIN:
        ticket.heavy_bytes = size
    return ticket


def _version_of(endpoint: ServedEndpoint, alias: str) -> str:
    """A TensorFlow Serving label is an alias that a variant follows."""
    for variant in endpoint.route.variants:
        ref = parse_ref(variant.model)
        if ref.kind == "alias" and ref.detail == alias:
            return endpoint.variant_places[variant.name].model.staged.key.version
    raise VersionUnknown(
        f"unknown label '{alias}' of model '{endpoint.name}': no variant follows an alias of this name"
    )


def _view(table: LiveTable, served: ServedEndpoint) -> ModelView:
    return ModelView(
        endpoint=served.name,
        signature=served.signature if served.features is None else served.features.asked,
        champion=served.champion.model.staged,
        versions=tuple(sorted(served.pins, key=lambda version: (len(version), version))),
        revision=served.revision,
        allow_pin=served.route.allow_pin,
        default=table.default == served.name,
        body_bytes_max=served.body_bytes_max,
    )


def reply_of(ticket: Ticket) -> InferReply:
    """What came of a completed ticket; raises its error, with the prediction id where a variant was assigned."""
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
