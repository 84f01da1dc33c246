"""Room 1, the wire door: a protocol class under uvicorn that answers inference from the parser's own callbacks.

A request to a hot path costs no scope, no task and no future: its body goes from the parser to `wire.decode`, its ticket to the
corridor, its reply into the connection's slot list. Everything else falls through to uvicorn's ASGI path unchanged. Measured
against it on one core: transport alone 7 µs instead of 38 (PERFORMANCE.md 1, fact 2).
"""

import time
from typing import Any, Final

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.dataplane import Dataplane
from gateway.errors import INTERNAL, NotReady, translate
from gateway.keys.doorkeeper import KeyDoor
from gateway.keys.ring import Principal
from gateway.live import LiveTable, ServedEndpoint
from gateway.rest import forms, wire
from gateway.rest.connection import Connection
from gateway.rest.forms import SCORING, TENSORFLOW, V2, Form
from gateway.rest.headers import request_id_of
from gateway.rest.heads import Head, Heads, Shape
from gateway.settings import Limits
from gateway.telemetry.log import EventLog
from gateway.ticket import HEAVY_BYTES_MIN, Ticket
from routing.records import PROTOCOLS

log = EventLog(__name__)

_V2_REST: Final = PROTOCOLS.index("v2-rest")

Target = tuple[ServedEndpoint, wire.HotSignature | None, Form]
"""Who answers at a path; what the plain decoder needs, None where it reads nothing there; and what reads the rest."""


class HotPaths:
    """The hot request targets of the live table, as the bytes that stand in the request line. Replaced whole at each change."""

    def __init__(self) -> None:
        self.targets: dict[bytes, Target] = {}
        """By the path, as it stands in the request line."""
        self.lines: dict[bytes, Target] = {}
        """By the whole request line."""

    def rebuild(self, table: LiveTable) -> None:
        """Called when a table goes live. Where features may have to be looked up, every request takes the ordinary path."""
        targets: dict[bytes, Target] = {}
        for endpoint in table.endpoints.values():
            if endpoint.features is not None:
                continue
            name = endpoint.name.encode()
            is_plain = endpoint.table.is_plain and endpoint.route.nonfinite == "pass"
            hot = wire.HotSignature.of(endpoint.signature) if is_plain else None
            targets[b"/v2/models/%b/infer" % name] = (endpoint, hot, V2)
            targets[b"/v1/models/%b:predict" % name] = (endpoint, None, TENSORFLOW)
            for prefix in (b"/endpoints/%b" % name, b"/serving-endpoints/%b" % name):
                targets[b"%b/invocations" % prefix] = (endpoint, None, SCORING)
            if endpoint.name == table.default:
                targets[b"/invocations"] = (endpoint, None, SCORING)
        self.targets = targets
        self.lines = {b"POST %b HTTP/1.1" % path: target for path, target in targets.items()}


class WireProtocol(Connection):
    """One connection. `WireProtocol.bind` makes the class that uvicorn instantiates, with the worker's parts as attributes."""

    paths: HotPaths
    json_bytes_max: int
    heads: Heads
    keys: KeyDoor | None

    @classmethod
    def bind(
        cls, plane: Dataplane, paths: HotPaths, limits: Limits, keys: KeyDoor | None = None
    ) -> type["WireProtocol"]:
        """The protocol class of one worker. `keys` None: whoever comes may predict."""
        parts = {"plane": plane, "paths": paths, "limits": limits, "heads": Heads(limits), "keys": keys}
        parts["json_bytes_max"] = limits.body_bytes_json_max
        return type("BoundWireProtocol", (cls,), parts)

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shape: Shape | None = None
        self._hot: Target | None = None
        self._body: bytes | bytearray = b""
        self._caller: Principal | None = None

    # ── the parser's callbacks ───────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """One read of the socket; may complete any number of requests."""
        if self._is_refused:
            return
        self._received_ns = time.monotonic_ns()
        cycle: RequestResponseCycle | None = self.cycle
        try:
            if self._phase == "idle" and (cycle is None or cycle.response_complete) and not self.pipeline:
                taken = self._take_hot(data)
                if taken == len(data):
                    self._phase_since = self._received_ns / 1e9
                    return
                if taken:
                    data = data[taken:]
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "this server does not upgrade connections")
        except httptools.HttpParserError:
            if not self._is_refused:
                self._refuse(400, "the bytes are not a valid HTTP request")
        except Exception as error:  # noqa: BLE001  # a mistake of ours costs the request that met it, not those before it
            log.error("request_broke", error=error)
            self._refuse(500, INTERNAL.message)
        if self._phase == "idle" and self._hot is None and not self._slots and self.parser is not None:
            self._phase_since = self._received_ns / 1e9

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._hot = None

    def on_headers_complete(self) -> None:
        self._phase = "body"
        length = self._check_headers()
        target = self.paths.targets.get(self.url)
        if (
            target is not None
            and length >= 0
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self._is_cold_busy()
            and not self.pipeline
            and (self.keys is None or self._is_let_in(self._credential, target[0]))
            and self._is_taken(target, length)
            and (length < HEAVY_BYTES_MIN or self.plane.admission.has_room(length))
        ):
            self._hot = target
            self._body = b""
            return
        if self.parser.should_upgrade():
            self._stop(400, "this server does not upgrade connections")
        self._begin_cold()
        super().on_headers_complete()
        self.cycle.keep_alive &= not self._is_leaving

    def on_body(self, body: bytes) -> None:
        if self._hot is None:
            super().on_body(body)
        elif not self._body:
            self._body = body
        else:
            if type(self._body) is bytes:
                self._body = bytearray(self._body)
            self._body += body  # amortised growth; bounded by Content-Length, which was checked
            try:
                self._arrived.grow_to(len(self._body))
            except NotReady as error:
                self._stop(503, str(error))

    def on_message_complete(self) -> None:
        self._phase = "idle"
        if self._hot is None:
            super().on_message_complete()
            return
        self._arrived.release()
        wanted = self._hot[0].header_names
        head = Head(0, _picked(self.headers, wanted) if wanted else {}, self._request_id, self._traceparent)
        head.json_length, head.content_type, head.encodings = self._json_length, self._content_type, self._encodings
        head.tracestate = self._tracestate
        if not self._submit(self._hot, self._body, head, closes=not self.parser.should_keep_alive()):
            self._hot = None
            self._to_cold(bytes(self._body))

    # ── hot requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_hot(self, data: bytes) -> int:
        """Takes whole hot requests off the front of `data`, past the parser; answers how many bytes that were."""
        size = len(data)
        taken = 0
        while taken < size:
            shape = self._shape
            found = None if shape is None else shape.read(data, taken, self.limits.header_bytes_max)
            if shape is None or found is None:
                shape = self._learn_shape(data, taken)
                found = None if shape is None else shape.read(data, taken, self.limits.header_bytes_max)
                if shape is None or found is None:
                    return taken
            target = self.paths.lines.get(shape.line)
            if target is None or target[0] is not shape.endpoint:
                self._shape = None
                if target is None:
                    return taken
                continue
            endpoint = target[0]
            head, start = found
            stop = start + head.length
            if stop > size or head.length > (endpoint.body_bytes_max or self.json_bytes_max):
                return taken
            if self.keys is not None and not self._is_let_in(head.credential, endpoint):
                return taken
            if not self._submit(target, data[start:stop], head, closes=False):
                return taken
            taken = stop
        return taken

    def _learn_shape(self, data: bytes, at: int) -> Shape | None:
        """Reads a head line by line, for the next ones as well; None: it is not hot, or not whole."""
        end = data.find(b"\r\n\r\n", at, at + self.limits.header_bytes_max)
        if end < 0:
            return None
        lines = data[at:end].split(b"\r\n")
        target = self.paths.lines.get(lines[0])
        if target is None:
            return None
        self._shape = self.heads.shape(lines, target[0].header_names, target[0], self._shape)
        return self._shape

    def _is_taken(self, target: Target, length: int) -> bool:
        """Whether a body of this length is read here. Stops the connection for one over the bound, but where MLflow has words of its own."""
        endpoint, hot, form = target
        bound = endpoint.body_bytes_max or self.json_bytes_max
        if self._json_length is not None and form is V2:
            bound = endpoint.body_bytes_max or self.limits.body_bytes_binary_max
        if length > bound and form is V2:
            self._stop(413, f"body of {length} bytes, at most {bound}")
        is_plain = hot is not None and self._json_length is None
        return length <= bound and (is_plain or forms.is_light(endpoint, length, self._json_length))

    def _submit(self, target: Target, body: bytes | bytearray, head: Head, *, closes: bool) -> bool:
        """Rooms 2 and 3: decode and submit. False: the ordinary path must read the body, or has the words to refuse it."""
        endpoint, hot, form = target
        decoded = None if hot is None or head.json_length is not None else wire.decode(body, hot)
        if decoded is None:
            return self._submit_formed(endpoint, form, body, head, closes=closes)
        inputs, rows, wire_id = decoded
        is_flat = type(inputs[0]) is list
        ticket = Ticket(self, endpoint, inputs, rows, _V2_REST, self._received_ns, is_flat, head.headers)
        if len(body) >= HEAVY_BYTES_MIN:
            ticket.heavy_bytes = len(body)
        if head.traceparent is not None:
            ticket.traceparent = head.traceparent.decode("latin-1")
            if head.tracestate is not None:
                ticket.tracestate = head.tracestate.decode("latin-1")
        if head.request_id is not None:
            ticket.request_id = request_id_of(head.request_id.decode("latin-1"))
        if wire_id is not None:
            ticket.wire_id = wire_id
            ticket.request_id = ticket.request_id or request_id_of(wire_id)
        return self._let_in(ticket, head, closes=closes)

    def _submit_formed(
        self, endpoint: ServedEndpoint, form: Form, body: bytes | bytearray, head: Head, *, closes: bool
    ) -> bool:
        """The same for whatever is not the plain form, by the functions that read it behind ASGI as well."""
        if not forms.is_light(endpoint, len(body), head.json_length):
            return False
        ticket = forms.admit(self, endpoint, form, body, head, self._received_ns)
        return ticket is not None and self._let_in(ticket, head, closes=closes)

    def _let_in(self, ticket: Ticket, head: Head, *, closes: bool) -> bool:
        """Into the corridor, unless it is over its caller's quota."""
        if not (self._caller is None or self._caller.take()):
            return False
        ticket.closes = closes
        if head.request_id is not None and ticket.request_id != head.request_id.decode("latin-1"):
            self.plane.meter.count("runoff_request_ids_dropped_total", {})
        self._enter(ticket)
        return True

    def _is_let_in(self, credential: bytes | None, endpoint: ServedEndpoint) -> bool:
        """Whether this caller may predict; if not, the ordinary path has the words for it. Notes whose quota it is on."""
        assert self.keys is not None
        self._caller = self.keys.predictor(credential, endpoint.name)
        return self._caller is not None

    def complete(self, ticket: Ticket) -> None:
        """The corridor answers: the reply is encoded, and waits for its turn."""
        try:
            if ticket.slot is not None:
                ticket.reply = forms.replied(ticket)
            elif ticket.error is None:
                ticket.reply = wire.encode(ticket)
            else:
                ticket.reply = self._error(ticket.error, ticket.prediction_id)
        except Exception as error:  # noqa: BLE001  # without a reply, it and all behind it on this connection would wait for ever
            log.error("reply_broke", prediction_id=ticket.prediction_id, error=error)
            ticket.reply = self._error(error, ticket.prediction_id)

    def _error(self, error: Exception, prediction_id: str) -> bytes:
        wired = translate(error)
        document: dict[str, str] = {"error": wired.message, "code": wired.code}
        headers: list[tuple[str, str]] = []
        if prediction_id:
            document["prediction_id"] = prediction_id
            headers.append(("x-prediction-id", prediction_id))
        if wired.retry_after_s is not None:
            headers += [("retry-after", str(wired.retry_after_s)), ("x-runoff-reason", wired.reason or wired.code)]
        return wire.encode_error(wired.status, orjson.dumps(document), tuple(headers))


def _picked(headers: list[tuple[bytes, bytes]], names: frozenset[bytes]) -> dict[str, str]:
    """The headers that the route's routing needs, decoded; the last of several with one name holds."""
    return {name.decode(): value.decode("latin-1") for name, value in headers if name in names}
