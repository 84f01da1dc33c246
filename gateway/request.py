"""The one type that every door decodes to, and what comes back: room 2 makes it, the corridor reads it, no door sees another's bytes."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from models.signature import Signature
from models.staged import StagedModel
from models.tensors import Array
from routing.records import LabelRow


class InferRequest(msgspec.Struct, kw_only=True, gc=False):
    """A decoded request.

    `inputs`: by name, arrays of the datatype the caller declared (BYTES: object arrays of str), shapes as sent.
    `headers`: lower-case names; only those that routing may need. `parameters`: the V2 request parameters.
    `received_ns` is `time.monotonic_ns()` at arrival; `timeout_s` the caller's own deadline, already the earliest of its forms.
    `version` is a version in the path (a pin), `alias` a TensorFlow Serving label, `variant` the pin header.
    `explain` was asked for; it is given where the route explains itself, or `may_explain`: the caller's key may `read` the endpoint.
    `protocol` indexes `routing.records.PROTOCOLS`.
    """

    endpoint: str
    inputs: Mapping[str, Array]
    protocol: int
    received_ns: int
    parameters: Mapping[str, str | int | float | bool] = {}
    headers: Mapping[str, str] = {}
    request_id: str | None = None
    timeout_s: float | None = None
    version: str | None = None
    alias: str | None = None
    variant: str | None = None
    explain: bool = False
    may_explain: bool = False
    traceparent: str | None = None
    tracestate: str | None = None
    priority: int = 0


class InferReply(msgspec.Struct, kw_only=True, gc=False):
    """An answer. `outputs` in the order of `model.signature.outputs`, each with the request's rows first.

    `assigned` differs from `variant` when the champion answered for a challenger that failed.
    `explain` is filled only when asked for and allowed.
    """

    prediction_id: str
    endpoint: str
    variant: str
    assigned: str
    model: StagedModel
    revision: int
    outputs: list[Array]
    explain: dict[str, str | int | float | None] | None = None


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """What metadata calls show of an endpoint: its declared signature, the champion, and every warm version.

    `body_bytes_max` is the route's own bound of a request's body; None: the process's bounds hold.
    """

    endpoint: str
    signature: Signature
    champion: StagedModel
    versions: tuple[str, ...]
    revision: int
    allow_pin: bool
    default: bool
    body_bytes_max: int | None = None


class ModelState(msgspec.Struct, frozen=True):
    """Whether requests of an endpoint are answered here, and the versions that are or will be warm."""

    is_ready: bool
    versions: tuple[str, ...]


class Corridor(Protocol):
    """What doors other than the wire door see of the data plane (the wire door calls `Dataplane.submit` itself). Async by colour."""

    async def infer(self, request: InferRequest) -> InferReply:
        """Runs the request through rooms 4 to 9. Raises the errors that `gateway.errors.translate` knows."""
        ...

    def view(self, endpoint: str, version: str | None = None) -> ModelView:
        """Metadata; raises EndpointUnknown, VersionUnknown or NotWarm."""
        ...

    def state(self, endpoint: str, version: str | None = None) -> ModelState:
        """The same question where the answer may be that it is not warm; raises EndpointUnknown or VersionUnknown."""
        ...

    def version_of(self, endpoint: str, alias: str) -> str:
        """The version that a registry alias means here; raises EndpointUnknown, VersionUnknown or NotWarm."""
        ...

    def views(self) -> list[ModelView]:
        """Every endpoint of the live table."""
        ...

    def default_endpoint(self) -> str:
        """The endpoint of a bare `/invocations`; raises EndpointUnknown when there is none or more than one."""
        ...

    def refused(self, endpoint: str, error: Exception) -> None:
        """Counts a request that its door could not read; `endpoint` is empty where none is known."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether this worker may be sent requests: not draining, and the live revision is warm."""
        ...


class LabelSink(Protocol):
    """Where doors put labels. On return they are as durable as their route says. Async by colour."""

    async def accept(self, rows: list[LabelRow]) -> None:
        """Takes all of the labels or none; raises SpoolClosed when the spool takes nothing, Overloaded when too many wait."""
        ...
