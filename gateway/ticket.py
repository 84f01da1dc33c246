"""A ticket: one request on its way through the corridor, from the door it came in by to the answer that leaves by the same door."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec

from gateway.features.served import Lookup
from gateway.live import Arm, ServedEndpoint
from gateway.telemetry.trace import Trace
from models.batching import Part
from models.catalog import LoadedModel
from models.runtime.onnx import Stop
from models.tensors import Array


class Door(Protocol):
    """Where a ticket came from. Both calls happen on the event loop, at the end of a turn, after the turn's records are written."""

    def complete(self, ticket: "Ticket") -> None:
        """Takes the finished ticket (`error`, or `batch` and `offset`) and prepares the reply."""
        ...

    def flush(self) -> None:
        """Sends what `complete` prepared; called once a turn for each door that completed something."""
        ...


class Batch:
    """The tickets of one run. After it, either `outputs` (rows of all tickets end to end) or `error` is set; of what never ran, neither."""

    __slots__ = (
        "chunks",
        "error",
        "finished_ns",
        "inputs",
        "is_whole",
        "model",
        "outputs",
        "rows",
        "started_ns",
        "stop",
        "tickets",
    )

    def __init__(self, model: LoadedModel, tickets: list["Ticket"], rows: int) -> None:
        self.model = model
        self.tickets = tickets
        self.rows = rows
        self.inputs: list[Array] = []
        self.outputs: list[Array] | None = None
        self.error: Exception | None = None
        self.started_ns = 0
        self.finished_ns = 0
        self.stop: Stop | None = None
        """Ends a run on a thread; none can end one on the loop."""
        self.is_whole = True
        """False when some of its tickets did not stay until the run ended (`has_left`)."""
        self.chunks: list[list[bytes]] | None = None
        """By output, every row as JSON: made once for all replies of the batch by the wire door (`rest.wire`)."""


HEAVY_BYTES_MIN: Final = 64 << 10
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_LATER: Final[Any] = None
"""Set by the corridor before anything reads it."""


class Ticket(msgspec.Struct, eq=False):
    """One request. The door sets the first fields; the turn that admits it and the one that answers it set the rest.

    A Struct, since it costs a third of a class with so many fields. Times are monotonic nanoseconds.
    """

    door: Door
    endpoint: ServedEndpoint
    inputs: Sequence[Part]
    """The endpoint's declared inputs, in their order."""
    rows: int
    protocol: int
    received_ns: int
    is_flat: bool = False
    """All of `inputs` are flat lists, so that any others of the model fit beside them."""
    headers: Mapping[str, str] = _NOTHING
    parameters: Mapping[str, str | int | float | bool] = _NOTHING
    request_id: str | None = None
    timeout_s: float | None = None
    pin_variant: str | None = None
    pin_version: str | None = None
    priority: int = 0
    explain: bool = False
    traceparent: str | None = None
    tracestate: str | None = None
    heavy_bytes: int = 0
    """The size of a large request (`HEAVY_BYTES_MIN`), 0 for any other: a worker holds so many bytes of them at once."""
    lookup: Lookup | None = None
    """Which of the inputs came from the feature store, and how."""

    wire_id: str | None = None
    """The caller's V2 `id`, for the wire door."""
    closes: bool = False
    """Whether the connection ends with this reply."""
    reply: bytes | None = None
    """The wire door's reply, once there is one; it leaves when those before it have left."""
    slot: Any = None
    """Whatever else the door wants to find again."""

    decoded_ns: int = 0
    submitted_ns: int = 0
    deadline_ns: int = 0
    prediction_bytes: bytes = b""
    prediction_id: str = ""
    """Empty while no variant is assigned; so it stays for a request that is refused."""
    arm: Arm = _LATER
    """The one that was drawn."""
    answered: Arm = _LATER
    """The one that replies: the champion, where it takes over."""
    assigned_by: int = 0
    bucket: int = 0
    propensity: float | None = None
    rule: str | None = None
    unit: bytes | None = None
    unit_missing: bool = False
    experiment: bool = True
    mirrors: int = 0
    trace: Trace | None = None
    cancelled: bool = False
    """The caller has gone."""
    has_left: bool = False
    """It is not answered by the run that it is in: its deadline passed, or its caller left, before the run ended."""
    error: Exception | None = None
    first_error: Exception | None = None
    status: int = 200
    code: str | None = None
    batch: Batch | None = None
    offset: int = 0

    def outputs(self) -> list[Array]:
        """This request's rows of every output, as views on the batch; only after success."""
        batch = self.batch
        assert batch is not None
        assert batch.outputs is not None
        if batch.rows == self.rows:
            return batch.outputs
        return [output[self.offset : self.offset + self.rows] for output in batch.outputs]
