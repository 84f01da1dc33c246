"""The wire door of gRPC: one connection of asyncio's under the HTTP/2 machine, and who answers each call that comes in on it.

ModelInfer in its hot form costs no task and no future: its message goes from the frame to `codec`, its ticket to the corridor, its
answer into what the turn writes. Everything else is a coroutine over the handlers of `gateway.rpc.handlers`, on the same connection.
Measured against grpcio's asyncio server with the same model: `loadtests/grpc_doors.py`.
"""

import asyncio
import logging
import time
from typing import Final, cast

from gateway.errors import GatewayError
from gateway.rest.headers import earliest, request_id_of
from gateway.rpc.refusals import trailing_metadata, wire_of
from gateway.rpc.wire import calls, status
from gateway.rpc.wire.calls import TOO_MUCH_HELD, TOO_MUCH_UNSENT, Call, CallContext
from gateway.rpc.wire.codec import InferReader
from gateway.rpc.wire.connection import Connection
from gateway.rpc.wire.frames import Code
from gateway.rpc.wire.messages import PREFIX_BYTES, Message, MessageCutter, is_whole
from gateway.rpc.wire.plan import Plan, peer_of
from gateway.rpc.wire.shared import Shared
from gateway.rpc.wire.status import OK_TRAILERS, CallFault
from gateway.rpc.wire.stream import Stream
from gateway.ticket import HEAVY_BYTES_MIN, Ticket
from routing.records import PROTOCOLS

_V2_GRPC: Final = PROTOCOLS.index("v2-grpc")
_LOG: Final = logging.getLogger(__name__)


class HotCall:
    """The place of one hot answer: its stream, the outputs that were asked for, and the id that the caller gave."""

    __slots__ = ("stream", "ticket", "wanted", "wire_id")

    def __init__(self, stream: Stream, wanted: tuple[str, ...] | None, wire_id: str | None) -> None:
        self.stream = stream
        self.ticket: Ticket | None = None
        self.wanted = wanted
        self.wire_id = wire_id


class GrpcProtocol(asyncio.Protocol):
    """One connection: `Listener` of its HTTP/2 machine, `Door` of its hot tickets, `Line` of its other calls."""

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop, *, is_secure: bool) -> None:
        self._shared = shared
        self._plane = shared.plane
        self._loop = loop
        self._is_secure = is_secure
        self._reader = InferReader(shared.plane)
        self._message_bytes_max = shared.limits.body_bytes_binary_max
        self._lingering = 0
        self._received_ns = 0
        self._is_flush_due = False
        self._closed_s: float | None = None
        self._peer: str | None = None
        self._peer_name = "unknown"
        self._transport: asyncio.Transport
        self._http: Connection

    # ── asyncio's side ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own do not derive from it
        self._http = Connection(self._shared.bounds, self, time.monotonic(), self._shared.unsent)
        if self._is_secure:
            tls = transport.get_extra_info("ssl_object")
            if tls is None or tls.selected_alpn_protocol() != "h2":
                transport.close()  # section 3.2: over TLS, HTTP/2 is agreed upon by ALPN or not spoken
                return
        self._peer, self._peer_name = peer_of(transport.get_extra_info("peername"))
        self._shared.connections.add(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """One read of the socket; may bring any number of calls."""
        self._received_ns = time.monotonic_ns()
        try:
            self._http.receive(data, self._received_ns / 1e9)
        except Exception:  # noqa: BLE001  # a mistake of ours must end one connection and not the loop's callback
            _LOG.exception("connection_failed")
            self._http.fail()
        if self._http.out.ready or self._http.is_over:  # mostly there is nothing before the turn's answers
            self.flush()

    def eof_received(self) -> None:
        """The caller has ended its side, which clients of HTTP/2 do only when they leave."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's form
        self._shared.connections.discard(self)
        self._http.lost()

    def pause_writing(self) -> None:
        """The caller reads slower than it asks: neither read its requests nor write more data until it has caught up."""
        self._http.hold()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._http.go_on()
        self.flush()
        self._transport.resume_reading()

    def sweep(self, now_s: float) -> None:
        """About twice a second: what came too slowly, waits too long to be taken, or stands idle."""
        limits = self._shared.limits
        if self._closed_s is not None:
            if now_s - self._closed_s > limits.header_s:  # what we said last is not read either
                self._transport.abort()
            return
        for stream in list(self._http.streams.values()):
            waited_s = now_s - stream.since_s
            call = stream.call
            if not stream.is_ended and stream.trailers is None and not (type(call) is Call and call.task is not None):
                plan = stream.head.plan
                timeout_s = plan.timeout_s if type(plan) is Plan else None
                if waited_s > (limits.body_s if timeout_s is None else min(limits.body_s, timeout_s)):
                    self._fault(stream, CallFault("DEADLINE_EXCEEDED", "the request did not arrive in time"))
            elif stream.outbox and waited_s > limits.body_s:
                self._http.reset(stream, Code.CANCEL)
                self.gone(stream)
        self._http.sweep(now_s)
        self.flush()

    def shutdown(self) -> None:
        """Ends the connection once its calls are answered."""
        self._http.drain()
        self.flush()

    def abort(self) -> None:
        self._transport.abort()

    # ── the HTTP/2 machine's side ────────────────────────────────────────────────────────────────────────────────────────────

    def requested(self, stream: Stream) -> None:
        """Rooms 1: what the head says is refused here, before any of the body has come."""
        head = stream.head
        plan = head.plan
        if plan is None:
            try:
                plan = Plan(head, self._peer)
                if plan.is_infer:  # whoever may ask nothing is told before a body has come
                    self._shared.doorkeeper.recognise(plan.visitor, "predict")
                head.plan = plan
            except (CallFault, GatewayError) as fault:
                self._fault(stream, fault)
                return
        assert type(plan) is Plan
        if len(self._http.streams) + self._lingering > self._shared.bounds.streams_max:
            self._http.reset(stream, Code.REFUSED_STREAM)  # cancelled calls that still hold their place
        elif self._shared.unsent.bytes > self._shared.unsent_bytes_max:
            self._fault(stream, CallFault("RESOURCE_EXHAUSTED", TOO_MUCH_UNSENT))
        elif not plan.is_infer:
            self._begin(stream, plan)

    def received(self, stream: Stream, data: bytes, start: int, stop: int, *, ends: bool) -> None:
        call = stream.call
        if type(call) is not Call:
            plan = stream.head.plan
            assert type(plan) is Plan
            if call is None and is_whole(data, start, stop, self._message_bytes_max):
                message = data[start + PREFIX_BYTES : stop]
                if ends:
                    self._infer(stream, plan, message, self._received_ns)
                else:
                    self._put_aside(stream, message)
                return
            aside = call if type(call) is bytes else None
            if aside is not None:
                self.hold(-len(aside))
                stream.call = None
                if ends and stop == start:
                    self._infer(stream, plan, aside, _ns(stream.since_s))
                    return
            call = self._begin(stream, plan)
            if call is None:
                return
            if aside is not None:
                call.put(aside)
        try:
            if stop > start:
                call.arrived(data, start, stop)
            if ends:
                call.ended()
        except CallFault as fault:
            self._fault(stream, fault)
            return
        if ends and call.task is None:
            self._complete(stream, call)

    def _put_aside(self, stream: Stream, message: bytes) -> None:
        """A whole message whose stream has not ended: many clients say so in a frame of its own, mostly in the same read."""
        stream.call = message
        if not self.hold(len(message)):
            self._fault(stream, CallFault("RESOURCE_EXHAUSTED", TOO_MUCH_HELD))

    def gone(self, stream: Stream) -> None:
        call = stream.call
        if type(call) is HotCall:
            if call.ticket is not None:
                self._plane.cancel(call.ticket)
                self._lingering += 1
        elif type(call) is Call:
            if call.task is not None and not call.task.done() and not call.is_lingering:
                call.is_lingering = True
                self._lingering += 1
            call.gone()
        elif type(call) is bytes:
            self.hold(-len(call))
            stream.call = None

    def moved(self, stream: Stream) -> None:
        call = stream.call
        if type(call) is Call:
            call.wake()

    # ── hot calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _infer(self, stream: Stream, plan: Plan, message: Message, received_ns: int) -> None:
        """Rooms 2 and 3: decode and submit. What has no hot form goes the ordinary way, with its message complete."""
        form = self._reader.read(message)
        caller = plan.caller
        assert caller is not None
        if form is None or caller.explain:
            call = self._begin(stream, plan)
            if call is not None:
                call.put(message)
                self._start(call)
            return
        endpoint = form.endpoint
        ticket = Ticket(self, endpoint, form.inputs(message), form.rows, _V2_GRPC, received_ns)
        ticket.is_flat = form.is_flat
        if len(message) >= HEAVY_BYTES_MIN:
            ticket.heavy_bytes = len(message)
        ticket.headers = caller.headers
        ticket.pin_variant = caller.variant
        if caller.traceparent is not None:
            ticket.traceparent, ticket.tracestate = caller.traceparent, caller.tracestate
        ticket.timeout_s = plan.timeout_s if caller.timeout_s is None else earliest(plan.timeout_s, caller.timeout_s)
        wire_id = form.wire_id(message)
        ticket.request_id = caller.request_id or (request_id_of(wire_id) if wire_id else None)
        if plan.has_bad_request_id:
            self._plane.meter.count("runoff_request_ids_dropped_total", {})
        hot = ticket.slot = HotCall(stream, form.wanted, wire_id)
        stream.call = hot
        try:
            self._shared.doorkeeper.admit(plan.visitor, "predict", endpoint.name)
        except GatewayError as error:
            self._fault(stream, error)
        else:
            hot.ticket = ticket
            self._plane.submit(ticket)

    def complete(self, ticket: Ticket) -> None:
        """The corridor answers: the reply is made frames."""
        call = ticket.slot
        assert type(call) is HotCall
        stream = call.stream
        call.ticket = stream.call = None  # no circles: a request must leave nothing to the collector
        if stream.is_closed:
            self._lingering -= 1
            return
        error = ticket.error
        if error is None:
            replies = self._shared.replies
            try:
                if not call.wire_id:
                    whole = replies.whole(ticket, stream.id, call.wanted)
                    if whole is not None and self._http.answer_whole(stream, *whole):
                        return
                pieces = replies.pieces(ticket, call.wanted, call.wire_id)
                self._http.answer(stream, pieces.block, pieces.parts, OK_TRAILERS)
                return
            except Exception as mistake:  # noqa: BLE001  # whatever it is, the caller must not wait for an answer for ever
                error = mistake
        if ticket.prediction_id:
            error.prediction_id = ticket.prediction_id  # type: ignore[attr-defined]  # named in the trailers
        self._fault(stream, error)

    def flush(self) -> None:
        """Writes what is ready: one write for all answers of a turn."""
        self._is_flush_due = False
        self._shared.replies.forget_batch()
        http = self._http
        ready = http.out.ready
        if ready and not self._transport.is_closing():
            http.out.ready = []
            if len(ready) == 1:
                self._transport.write(ready[0])
            elif http.out.has_views:
                http.out.has_views = False
                self._transport.writelines(ready)
            else:
                self._transport.write(b"".join(ready))
        if http.is_over and not self._transport.is_closing():
            if http.fault is not None and http.fault.code is not Code.NO_ERROR:
                self._count_refused(f"http2_{http.fault.code.name.lower()}")
            self._closed_s = time.monotonic()
            self._transport.close()

    # ── all other calls ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, stream: Stream, plan: Plan) -> Call | None:
        """A call that is not over within one read. None: nobody has its method."""
        handler = self._shared.handler(plan)
        if handler is None:
            self._fault(stream, CallFault("UNIMPLEMENTED", f"unknown method {plan.path[:128]}"))
            return None
        limits = self._shared.limits
        cutter = MessageCutter(limits.body_bytes_binary_max, limits.body_bytes_json_max, plan.encoding)
        call = stream.call = Call(self, stream, plan, _ns(stream.since_s), cutter)
        if handler.request_streaming:
            self._start(call)
        return call

    def _complete(self, stream: Stream, call: Call) -> None:
        """The request of a unary call is all here."""
        if call.plan.is_infer and len(call.messages) == 1:
            stream.call = None
            self._infer(stream, call.plan, call.take(), call.received_ns)
        else:
            self._start(call)

    def _start(self, call: Call) -> None:
        if len(self._shared.tasks) >= self._shared.limits.inflight_max:
            self._fault(call.stream, CallFault("RESOURCE_EXHAUSTED", "this process runs as many calls as it may"))
            return
        timeout_s = call.plan.timeout_s
        deadline_s = None if timeout_s is None else call.received_ns / 1e9 + timeout_s
        context = CallContext(call, self, self._peer_name, deadline_s, time.monotonic)
        running = calls.run(call, self._shared.handler(call.plan), context)
        call.task = self._loop.create_task(running)
        self._shared.tasks.add(call.task)
        call.task.add_done_callback(lambda task: self._done(call, task))

    def _done(self, call: Call, task: "asyncio.Task[None]") -> None:
        self._shared.tasks.discard(task)
        if call.is_lingering:
            self._lingering -= 1
        call.gone()
        call.task = call.context = call.stream.call = None

    # ── `Line` ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, stream: Stream, block: bytes) -> None:
        self._http.answer(stream, block)
        self._flush_soon()

    def open(self, stream: Stream, block: bytes) -> None:
        self._http.open(stream, block)

    def send(self, stream: Stream, parts: tuple[bytes, ...], trailers: bytes | None = None) -> None:
        self._http.send(stream, parts, trailers)
        self._flush_soon()

    def grant(self, stream: Stream, size: int) -> None:
        self._http.grant(stream, size)
        self._flush_soon()

    def hold(self, size: int) -> bool:
        self._shared.held_bytes += size
        return size <= 0 or self._shared.held_bytes <= self._shared.held_bytes_max

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self.flush)

    def _fault(self, stream: Stream, error: Exception) -> None:
        """Ends a call with a status, whoever has it."""
        if isinstance(error, CallFault):
            self._count_refused(f"grpc_{error.code.lower()}")
        else:
            wire = wire_of(error)
            error = CallFault(wire.grpc, wire.message, metadata=trailing_metadata(wire, error))
        call = stream.call
        if type(call) is Call and call.context is not None:
            call.context.fail(error)
        else:
            self._http.answer(stream, status.refusal(error))
        self.gone(stream)

    def _count_refused(self, reason: str) -> None:
        """What the corridor never saw. The reasons are codes of the two protocols, so their number is bounded."""
        self._plane.meter.refused("", reason)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
