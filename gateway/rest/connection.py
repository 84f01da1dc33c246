"""One HTTP/1.1 connection under uvicorn: replies in the order of the requests, bounds on what a caller may send and how slowly, and its ends.

Replies leave in the order of requests, hot and cold alike: a cold request waits for the hot ones before it, and what follows a cold one
is cold too until that one is done. What a proxy and a server could read in two ways is refused here.
"""

import asyncio
import time
from collections import deque
from typing import Any, Final

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.admission import Holding
from gateway.dataplane import Dataplane
from gateway.rest import wire
from gateway.rest.flow import Flow
from gateway.rest.heads import COLD_NAMES, bearer_of
from gateway.settings import Limits
from gateway.ticket import Ticket

SLOTS_MAX: Final = 16
"""Hot requests of one connection in flight; more wait decoded in `_held`, whose size one read of the socket bounds."""


_CODES: Final = {408: "request_too_slow", 413: "body_too_large", 500: "internal", 503: "not_ready"}


class Refusal:
    """The last reply of a connection, to a request that could not be read."""

    __slots__ = ("reply",)
    closes = True

    def __init__(self, reply: bytes) -> None:
        self.reply = reply


class Connection(HttpToolsProtocol):
    """What a connection is, whoever answers on it. `plane` and `limits` are the worker's."""

    plane: Dataplane
    limits: Limits

    flow: Flow
    _is_leaving = False

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._slots: deque[Ticket | Refusal] = deque()
        self._held: deque[Ticket | Refusal] = deque()
        self._arrived = Holding(self.plane.admission)
        self._header_bytes = 0
        self._received_ns = 0
        self._request_id: bytes | None = None
        self._traceparent: bytes | None = None
        self._tracestate: bytes | None = None
        self._credential: bytes | None = None
        self._json_length: int | None = None
        self._content_type: str | None = None
        self._encodings: str | None = None
        self._is_refused = False
        self._refusal: Refusal | None = None
        self._phase = "idle"
        self._phase_since = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        super().connection_made(transport)
        self.flow = Flow(transport)

    # ── replies in order ────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, ticket: Ticket) -> None:
        """A hot request takes its place in the order of replies: into the corridor, or held back while too many are there."""
        if self._held or len(self._slots) >= SLOTS_MAX:
            self.flow.pause_reading()
            self._held.append(ticket)
        else:
            self._slots.append(ticket)
            self.plane.submit(ticket)

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
            waited = self._held.popleft()
            slots.append(waited)
            if type(waited) is Ticket:
                self.plane.submit(waited)
            elif len(slots) == 1:  # the refusal alone is left: no ticket will come back to let it go
                self.flush()
                return
        if not slots:
            self._phase_since = time.monotonic()
            if self.pipeline and self._is_cold_busy():
                cycle, app = self.pipeline.pop()
                super()._start_asgi_task(cycle, app)
            elif self.flow.read_paused:
                self.flow.resume_reading()

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

    # ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._header_bytes = 0
        self._phase = "header"
        self._phase_since = self._received_ns / 1e9

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.limits.header_bytes_max:
            self._stop(431, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        # Else it is a trailer, which nobody reads: a proxy would have looked for it in the head.
        if self._phase == "header":
            self.headers.append((name.lower(), value.rstrip(b" \t")))  # the parser leaves white space behind a value
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.limits.header_bytes_max:
            self._stop(431, f"headers: at most {self.limits.header_bytes_max} bytes")
        if len(self.headers) > self.limits.header_count_max:
            self._stop(431, f"headers: at most {self.limits.header_count_max}")

    def _check_headers(self) -> int:
        """The declared length of the body, −1 when the request must go the ordinary way.

        Stops the connection for what a proxy before us and this server could read in two ways.
        """
        length = 0
        hosts = 0
        lengths = 0
        is_cold = is_chunked = False
        self._request_id = self._traceparent = self._tracestate = self._credential = None
        self._json_length = self._content_type = self._encodings = None
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                lengths += 1
                if not value.isdigit() or len(value) > 18:
                    self._stop(400, "content-length: wanted one decimal number")
                length = int(value)
            elif name == b"transfer-encoding":
                if is_chunked or value.lower() != b"chunked" or self.parser.get_http_version() != "1.1":
                    self._stop(400, "transfer-encoding: only chunked, once, only in HTTP/1.1")
                is_chunked = True
            else:
                is_cold |= name in COLD_NAMES or not self._note(name, value)
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            self._stop(400, f"host: wanted exactly one, got {hosts}")
        if lengths + is_chunked > 1:
            self._stop(400, "content-length and transfer-encoding: wanted one of them, once")
        if length > self.limits.body_bytes_binary_max:
            self._stop(413, f"body of {length} bytes, at most {self.limits.body_bytes_binary_max}")
        return -1 if is_cold or is_chunked else length

    def _note(self, name: bytes, value: bytes) -> bool:
        """Keeps what a hot request is read with; False where only the ordinary path knows what this header means."""
        known: bytes | str | int | None = None
        if name == b"x-request-id":
            self._request_id = value
        elif name == b"traceparent":
            self._traceparent = value
        elif name == b"tracestate":
            self._tracestate = value
        elif name in (b"authorization", b"x-api-key"):
            known, self._credential = self._credential, bearer_of(value) if name == b"authorization" else value
        elif name == b"inference-header-content-length":
            if not value.isdigit() or len(value) > 18:
                return False
            known, self._json_length = self._json_length, int(value)
        elif name == b"content-type":
            known, self._content_type = self._content_type, value.decode("latin-1")
        elif name == b"accept-encoding":
            known, self._encodings = self._encodings, value.decode("latin-1")
        return known is None

    def _stop(self, status: int, message: str) -> None:
        """Refuses and ends the connection from inside a parser callback: the parser must not go on with these bytes."""
        self._refuse(status, message)
        raise _Stopped

    def _refuse(self, status: int, message: str) -> None:
        """Answers an unreadable or unacceptable request and closes; what was asked before it is answered first."""
        self._is_refused = True
        self._arrived.release()
        code = _CODES.get(status, "request_malformed")
        self.plane.meter.refused("", code)
        body = orjson.dumps({"error": message, "code": code})
        more = (("retry-after", "1"), ("x-runoff-reason", "process_bound")) if status == 503 else ()
        refusal = Refusal(wire.encode_error(status, body, (("connection", "close"), *more)))
        if self._is_cold_busy():
            if self._phase == "body":
                # The application may wait for the rest of this very body: it is told that the caller has gone, and we answer for it.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                if not self.pipeline:
                    self._end(b"" if self.cycle.response_started else refusal.reply)
                    return
                self.pipeline.popleft()
            if self.pipeline or not (self._slots or self._held):
                self._refusal = refusal  # behind what the application answers
                return
        (self._held or self._slots).append(refusal)
        self.flush()

    def on_response_complete(self) -> None:
        refusal = None if self.pipeline else self._refusal
        super().on_response_complete()
        if refusal is not None and not self.transport.is_closing():
            self._end(refusal.reply)

    def _end(self, last: bytes) -> None:
        self.transport.write(last)
        self.transport.close()

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def sweep(self, now: float) -> None:
        """Called about twice a second for every connection: closes what is too slow or idle too long.

        A header or body that does not arrive in time is answered 408, but for the time in which we did not read; who takes nothing of his
        replies for as long is cut off. Deadlines by sweep cost a request nothing.
        """
        if self.flow.stuck_s(now) > self.limits.body_s:
            self.transport.abort()
        elif self.flow.is_stopped:
            self._phase_since = now
        elif not self._is_refused and not self.transport.is_closing():
            self._close_late(now - self._phase_since)

    def _close_late(self, waited: float) -> None:
        if self._phase == "header" and waited > self.limits.header_s:
            self._refuse(408, f"the headers did not arrive within {self.limits.header_s:g} s")
        elif self._phase == "body" and waited > self.limits.body_s:
            self._refuse(408, f"the body did not arrive within {self.limits.body_s:g} s")
        elif self._phase == "idle" and waited > self.limits.idle_s and not self._slots and not self._is_cold_busy():
            self.transport.close()

    def leave(self) -> None:
        """The next reply is the last, and says so: a caller that keeps its connection busy is not cut off between two requests."""
        self._is_leaving = True
        if self._is_cold_busy():
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The end of an idle connection, at once; what is in flight, or still arriving, is answered first."""
        self._is_leaving = True
        if not self._slots and not self._held and self._phase == "idle":
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone, or has ended its side: HTTP clients do that only when they give up, so both cancel."""
        for slot in self._slots:
            if type(slot) is Ticket and slot.reply is None:
                self.plane.cancel(slot)
        self._slots.clear()
        self._held.clear()
        self._arrived.release()
        super().connection_lost(exc)


class _Stopped(Exception):
    """Leaves the parser's callback; httptools turns it into HttpParserCallbackError."""
