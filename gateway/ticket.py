"""A ticket: one request on its way through the corridor, from the door it came in by to the answer that leaves by the same door."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.live import Arm, ServedEndpoint
from gateway.telemetry.trace import Trace
from models.batching import Part
from models.catalog import LoadedModel
from models.tensors import Array


class Door(Protocol):
    """Where a ticket came from. Both calls happen on the event loop, at the end of a turn, after the turn's records are written."""

    def complete(self, ticket: "Ticket") -> None:
        """Takes the finished ticket (`error`, or `batch` and `offset`) and prepares the reply."""
        ...

    def flush(self) -> None:
        """Sends what `complete` prepared; called once a turn for each door that completed something."""
        ...


class Slot:
    """The place of one reply in the order of its connection. `reply` is None until it is there; `wire_id` is the caller's V2 `id`."""

    __slots__ = ("closes", "reply", "ticket", "wire_id")

    def __init__(self, *, closes: bool, wire_id: str | None = None) -> None:
        self.reply: bytes | None = None
        self.ticket: Ticket | None = None
        self.closes = closes
        self.wire_id = wire_id


class Batch:
    """The tickets of one run. After it, either `outputs` (rows of all tickets end to end) or `error` is set."""

    __slots__ = ("chunks", "error", "finished_ns", "inputs", "model", "outputs", "rows", "started_ns", "tickets")

    def __init__(self, model: LoadedModel, tickets: list["Ticket"], rows: int) -> None:
        self.model = model
        self.tickets = tickets
        self.rows = rows
        self.inputs: list[Array] = []
        self.outputs: list[Array] | None = None
        self.error: Exception | None = None
        self.started_ns = 0
        self.finished_ns = 0
        self.chunks: list[list[bytes]] | None = None
        """By output, every row as JSON: made once for all replies of the batch by the wire door (`rest.wire`)."""


class Ticket:
    """One request. Slots are set by the door, then by `Dataplane.submit`, then by the turn that answers it.

    `inputs`: the endpoint's declared inputs in their order; `is_flat`: all of them flat lists, which any others of the model fit. `arm` was drawn, `answered` replies. Times are monotonic nanoseconds.
    """

    __slots__ = (
        "answered",
        "arm",
        "assigned_by",
        "batch",
        "bucket",
        "cancelled",
        "code",
        "deadline_ns",
        "decoded_ns",
        "door",
        "endpoint",
        "error",
        "experiment",
        "explain",
        "first_error",
        "headers",
        "inputs",
        "is_flat",
        "mirrors",
        "offset",
        "parameters",
        "pin_alias",
        "pin_variant",
        "pin_version",
        "prediction_bytes",
        "prediction_id",
        "priority",
        "propensity",
        "protocol",
        "received_ns",
        "request_id",
        "rows",
        "rule",
        "slot",
        "status",
        "submitted_ns",
        "timeout_s",
        "trace",
        "traceparent",
        "unit",
        "unit_missing",
    )

    def __init__(
        self, door: Door, endpoint: ServedEndpoint, inputs: Sequence[Part], rows: int, protocol: int, received_ns: int
    ) -> None:
        self.door = door
        self.endpoint = endpoint
        self.inputs = inputs
        self.rows = rows
        self.protocol = protocol
        self.received_ns = received_ns
        self.headers: Mapping[str, str] = _NOTHING
        self.parameters: Mapping[str, str | int | float | bool] = _NOTHING
        self.request_id: str | None = None
        self.timeout_s: float | None = None
        self.pin_variant: str | None = None
        self.pin_version: str | None = None
        self.pin_alias: str | None = None
        self.priority = 0
        self.explain = False
        self.traceparent: str | None = None
        self.trace: Trace | None = None
        self.cancelled = False
        self.error: Exception | None = None
        self.first_error: Exception | None = None
        self.batch: Batch | None = None
        self.offset = 0
        self.status = 200
        self.code: str | None = None
        self.slot: Slot | None = None
        self.is_flat = False
        self.arm: Arm
        self.answered: Arm
        self.prediction_bytes: bytes
        self.prediction_id: str
        self.assigned_by: int
        self.bucket: int
        self.propensity: float | None
        self.rule: str | None
        self.unit: bytes | None
        self.unit_missing: bool
        self.experiment: bool
        self.mirrors: int
        self.deadline_ns: int
        self.decoded_ns: int
        self.submitted_ns: int

    def outputs(self) -> list[Array]:
        """This request's rows of every output, as views on the batch; only after success."""
        batch = self.batch
        assert batch is not None
        assert batch.outputs is not None
        if batch.rows == self.rows:
            return batch.outputs
        return [output[self.offset : self.offset + self.rows] for output in batch.outputs]


_NOTHING: Mapping[str, str] = {}
