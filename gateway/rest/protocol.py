"""Room 1, the wire door: a protocol class under uvicorn that answers inference from the parser's own callbacks.

A request to a hot path costs no scope, no task and no future: its body goes from the parser to `wire.decode`, its ticket to the
corridor, its reply into the connection's slot list. Everything else falls through to uvicorn's ASGI path unchanged. Measured
against it on one core: transport alone 7 µs instead of 38 (PERFORMANCE.md 1, fact 2).

Replies leave a connection in the order of its requests, hot and cold alike: a cold request waits for the hot ones before it, and
what follows a cold one is cold too until that one is done.
"""

import http
import time
from collections import deque
from typing import Any, Final

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.dataplane import Dataplane
from gateway.errors import translate
from gateway.keys.doorkeeper import KeyDoor
from gateway.keys.ring import Principal
from gateway.live import ServedEndpoint
from gateway.rest import wire
from gateway.rest.heads import COLD_NAMES, Head, Heads, Shape, bearer_of
from gateway.settings import Limits
from gateway.ticket import Ticket
from routing.records import PROTOCOLS

_V2_REST: Final = PROTOCOLS.index("v2-rest")
SLOTS_MAX: Final = 16
"""Hot requests of one connection in flight; more wait decoded in `_held`, whose size one read of the socket bounds."""
_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}


class HotPaths:
    """The hot request targets of the live table, as the bytes that stand in the request line. Replaced whole at each change."""

    def __init__(self) -> None:
        self.targets: dict[bytes, tuple[ServedEndpoint, wire.HotSignature]] = {}
        """By the path, as it stands in the request line."""
        self.lines: dict[bytes, tuple[ServedEndpoint, wire.HotSignature]] = {}
        """By the whole request line."""

    def rebuild(self, endpoints: dict[str, ServedEndpoint]) -> None:
        """Called when a table goes live."""
        targets = {}
        for endpoint in endpoints.values():
            hot = wire.HotSignature.of(endpoint.signature)
            if hot is not None and endpoint.table.is_plain and endpoint.route.nonfinite == "pass":
                targets[f"/v2/models/{endpoint.name}/infer".encode()] = (endpoint, hot)
        self.targets = targets
        self.lines = {b"POST %b HTTP/1.1" % path: target for path, target in targets.items()}


class Refusal:
    """The last reply of a connection, to a request that could not be read."""

    __slots__ = ("reply",)
    closes = True

    def __init__(self, reply: bytes) -> None:
        self.reply = reply


class WireProtocol(HttpToolsProtocol):
    """One connection. `WireProtocol.bind` makes the class that uvicorn instantiates, with the worker's parts as attributes."""

    plane: Dataplane
    paths: HotPaths
    limits: Limits
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
        self._slots: deque[Ticket | Refusal] = deque()
        self._held: deque[Ticket] = deque()
        self._shape: Shape | None = None
        self._hot: tuple[ServedEndpoint, wire.HotSignature] | None = None
        self._body: bytes | bytearray = b""
        self._header_bytes = 0
        self._received_ns = 0
        self._request_id: bytes | None = None
        self._traceparent: bytes | None = None
        self._credential: bytes | None = None
        self._caller: Principal | None = None
        self._is_refused = False
        self._phase = "idle"
        self._phase_since = time.monotonic()

    # ── the parser's callbacks ───────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """One read of the socket; may complete any number of requests."""
        if self._is_refused:
            return
        self._received_ns = time.monotonic_ns()
        cycle: RequestResponseCycle | None = self.cycle
        if self._phase == "idle" and (cycle is None or cycle.response_complete) and not self.pipeline:
            taken = self._take_hot(data)
            if taken == len(data):
                self._phase_since = self._received_ns / 1e9
                return
            if taken:
                data = data[taken:]
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "this server does not upgrade connections")
        except httptools.HttpParserError:
            if not self._is_refused:
                self._refuse(400, "the bytes are not a valid HTTP request")
        if self._phase == "idle" and self._hot is None and not self._slots and self.parser is not None:
            self._phase_since = self._received_ns / 1e9

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._hot = None
        self._header_bytes = 0
        self._phase = "header"
        self._phase_since = self._received_ns / 1e9

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.limits.header_bytes_max:
            self._stop(431, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.limits.header_bytes_max:
            self._stop(431, f"headers: at most {self.limits.header_bytes_max} bytes")
        if len(self.headers) > self.limits.header_count_max:
            self._stop(431, f"headers: at most {self.limits.header_count_max}")

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
        ):
            endpoint = target[0]
            bound = endpoint.body_bytes_max or self.json_bytes_max
            if length > bound:
                self._stop(413, f"body of {length} bytes, at most {bound}")
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

    def on_message_complete(self) -> None:
        self._phase = "idle"
        if self._hot is None:
            super().on_message_complete()
            return
        endpoint, hot = self._hot
        wanted = endpoint.header_names
        head = Head(0, _picked(self.headers, wanted) if wanted else {}, self._request_id, self._traceparent)
        if not self._submit(endpoint, hot, self._body, head, closes=not self.parser.should_keep_alive()):
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
            endpoint, hot = target
            head, start = found
            stop = start + head.length
            if stop > size or head.length > (endpoint.body_bytes_max or self.json_bytes_max):
                return taken
            if self.keys is not None and not self._is_let_in(head.credential, endpoint):
                return taken
            if not self._submit(endpoint, hot, data[start:stop], head, closes=False):
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
        self._shape = self.heads.shape(lines, target[0].header_names, target[0])
        return self._shape

    def _submit(
        self, endpoint: ServedEndpoint, hot: wire.HotSignature, body: bytes | bytearray, head: Head, *, closes: bool
    ) -> bool:
        """Rooms 2 and 3: decode and submit. False: the ordinary path must read the body, which has not the hot form, or refuse it."""
        decoded = wire.decode(body, hot)
        if decoded is None or not (self._caller is None or self._caller.take()):
            return False
        inputs, rows, wire_id = decoded
        is_flat = type(inputs[0]) is list
        ticket = Ticket(self, endpoint, inputs, rows, _V2_REST, self._received_ns, is_flat, head.headers)
        if closes:
            ticket.closes = True
        if head.traceparent is not None:
            ticket.traceparent = head.traceparent.decode("latin-1")
        if wire_id is not None or head.request_id is not None:
            ticket.wire_id = wire_id
            request_id = wire_id if head.request_id is None else head.request_id.decode("latin-1")
            if request_id is not None and is_request_id(request_id):
                ticket.request_id = request_id
            else:
                self.plane.meter.count("runoff_request_ids_dropped_total", {})
        if self._held or len(self._slots) >= SLOTS_MAX:
            self.flow.pause_reading()
            self._held.append(ticket)
        else:
            self._slots.append(ticket)
            self.plane.submit(ticket)
        return True

    def _is_let_in(self, credential: bytes | None, endpoint: ServedEndpoint) -> bool:
        """Whether this caller may predict; if not, the ordinary path has the words for it. Notes whose quota it is on."""
        assert self.keys is not None
        self._caller = self.keys.predictor(credential, endpoint.name)
        return self._caller is not None

    def complete(self, ticket: Ticket) -> None:
        """The corridor answers: the reply is encoded, and waits for its turn."""
        if ticket.error is None:
            ticket.reply = wire.encode(ticket)
        else:
            ticket.reply = self._error(ticket.error, ticket.prediction_id)

    def flush(self) -> None:
        """Writes every reply whose turn it is, then lets in what waited behind."""
        slots = self._slots
        ready: list[bytes] = []
        closes = False
        while slots and not closes:
            reply = slots[0].reply
            if reply is None:
                break
            ready.append(reply)
            closes = slots.popleft().closes
        if not ready or self.transport.is_closing():
            return
        if self._is_leaving and not slots and not self._held:
            ready[-1] = ready[-1].replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
            closes = True
        self.transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if closes:
            self.transport.close()
            return
        while self._held and len(slots) < SLOTS_MAX:
            ticket = self._held.popleft()
            slots.append(ticket)
            self.plane.submit(ticket)
        if not slots:
            self._phase_since = time.monotonic()
            if self.pipeline and self._is_cold_busy():
                cycle, app = self.pipeline.pop()
                super()._start_asgi_task(cycle, app)
            elif self.flow.read_paused:
                self.flow.resume_reading()

    def _error(self, error: Exception, prediction_id: str) -> bytes:
        wired = translate(error)
        document: dict[str, str] = {"error": wired.message, "code": wired.code}
        headers: list[tuple[str, str]] = []
        if prediction_id:
            document["prediction_id"] = prediction_id
            headers.append(("x-prediction-id", prediction_id))
        if wired.retry_after_s is not None:
            headers += [("retry-after", str(wired.retry_after_s)), ("x-runoff-reason", wired.reason or wired.code)]
        return wire.encode_error(wired.status, _PHRASES[wired.status], orjson.dumps(document), tuple(headers))

    # ── cold requests ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_cold_busy(self) -> bool:
        """Whether an ASGI cycle of this connection has not answered yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _begin_cold(self) -> None:
        """What uvicorn's own `on_message_begin` prepares, done only now that it is needed."""
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )
        self.scope = {  # type: ignore[typeddict-item]  # uvicorn fills in method and path itself
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }

    def _to_cold(self, body: bytes) -> None:
        """A hot request that needs the ordinary path: a cycle whose body has arrived already."""
        self._hot = None
        self._begin_cold()
        super().on_headers_complete()
        self.cycle.keep_alive &= not self._is_leaving
        self.cycle.body += body
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._slots or self._held:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))
        else:
            super()._start_asgi_task(cycle, app)

    # ── bounds and ends ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_headers(self) -> int:
        """The declared length of the body, −1 when the request must go the ordinary way.

        Stops the connection for what a proxy before us and this server could read in two ways.
        """
        length = 0
        hosts = 0
        lengths = 0
        is_cold = is_chunked = False
        self._request_id = self._traceparent = self._credential = None
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                lengths += 1
                if not value.isdigit() or len(value) > 18:
                    self._stop(400, "content-length: wanted one decimal number")
                length = int(value)
            elif name == b"x-request-id":
                self._request_id = value
            elif name == b"traceparent":
                self._traceparent = value
            elif name in (b"authorization", b"x-api-key"):
                is_cold |= self._credential is not None
                self._credential = bearer_of(value) if name == b"authorization" else value
            elif name == b"transfer-encoding":
                if is_chunked or value.lower() != b"chunked" or self.parser.get_http_version() != "1.1":
                    self._stop(400, "transfer-encoding: only chunked, once, only in HTTP/1.1")
                is_chunked = True
            elif name in COLD_NAMES:
                is_cold = True
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            self._stop(400, f"host: wanted exactly one, got {hosts}")
        if lengths + is_chunked > 1:
            self._stop(400, "content-length and transfer-encoding: wanted one of them, once")
        if length > self.limits.body_bytes_binary_max:
            self._stop(413, f"body of {length} bytes, at most {self.limits.body_bytes_binary_max}")
        return -1 if is_cold or is_chunked else length

    def _stop(self, status: int, message: str) -> None:
        """Refuses and ends the connection from inside a parser callback: the parser must not go on with these bytes."""
        self._refuse(status, message)
        raise _Stopped

    def _refuse(self, status: int, message: str) -> None:
        """Answers an unreadable or unacceptable request and closes; what was asked before it is answered first."""
        self._is_refused = True
        code = "body_too_large" if status == 413 else "request_too_slow" if status == 408 else "request_malformed"
        self.plane.meter.refused("", code)
        body = orjson.dumps({"error": message, "code": code})
        refusal = Refusal(wire.encode_error(status, _PHRASES[status], body, (("connection", "close"),)))
        if self._is_cold_busy():
            # The application may wait for the rest of this very body: it is told that the caller has gone, and we answer for it.
            is_alone = not self.pipeline and not self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if is_alone:
                self.transport.write(refusal.reply)
            self.transport.close()
            return
        self._slots.append(refusal)
        self.flush()

    def sweep(self, now: float) -> None:
        """Called about twice a second for every connection: closes what is too slow or idle too long.

        A header or body that does not arrive in time is answered 408. Deadlines by sweep cost a request nothing.
        """
        waited = now - self._phase_since
        if self._phase == "header" and waited > self.limits.header_s:
            self._refuse(408, f"the headers did not arrive within {self.limits.header_s:g} s")
        elif self._phase == "body" and waited > self.limits.body_s:
            self._refuse(408, f"the body did not arrive within {self.limits.body_s:g} s")
        elif self._phase == "idle" and waited > self.limits.idle_s and not self._slots and not self._is_cold_busy():
            self.transport.close()

    _is_leaving = False

    def leave(self) -> None:
        """The next reply is the last, and says so: a caller that keeps its connection busy is not cut off between two requests."""
        self._is_leaving = True
        if self._is_cold_busy():
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The end of an idle connection, at once; what is in flight is answered first."""
        self._is_leaving = True
        if not self._slots and not self._held:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone, or has ended its side: HTTP clients do that only when they give up, so both cancel."""
        for slot in self._slots:
            if type(slot) is Ticket and slot.reply is None:
                self.plane.cancel(slot)
        self._slots.clear()
        self._held.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller reads slower than it asks: stop reading its requests until it has caught up."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.flow.read_paused:
            self.transport.resume_reading()


class _Stopped(Exception):
    """Leaves the parser's callback; httptools turns it into HttpParserCallbackError."""


def _picked(headers: list[tuple[bytes, bytes]], names: frozenset[bytes]) -> dict[str, str]:
    """The headers that the route's routing needs, decoded; the last of several with one name holds."""
    return {name.decode(): value.decode("latin-1") for name, value in headers if name in names}


def is_request_id(text: str) -> bool:
    """At most 128 of [A-Za-z0-9._:-]."""
    return 0 < len(text) <= 128 and text.isascii() and not text.translate(_ID_CHARACTERS)


_ID_CHARACTERS: Final = dict.fromkeys(map(ord, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"))
