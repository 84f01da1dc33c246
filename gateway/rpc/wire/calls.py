"""Calls that take their time: every method but the hot form of ModelInfer, as coroutines over handlers written for grpcio.

The handlers are the very objects that grpcio's own server is given (`gateway.rpc.handlers`), so both listeners answer alike.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, Protocol

import grpc

from gateway.rpc.wire import status
from gateway.rpc.wire.headers import write_fields
from gateway.rpc.wire.messages import Message, MessageCutter, prefixed
from gateway.rpc.wire.plan import Plan
from gateway.rpc.wire.status import OPENING, CallFault, write_metadata
from gateway.rpc.wire.stream import RECV_WINDOW, Stream

OUTBOX_BYTES_MAX: Final = 262_144
"""What a streaming handler may be ahead of its caller's windows."""
TOO_MUCH_HELD: Final = "this process holds too many messages that are not complete yet"
TOO_MUCH_UNSENT: Final = "this process holds too many answers that their callers do not take"
_LOG: Final = logging.getLogger(__name__)

Handler = Any
"""`grpc.RpcMethodHandler`, whose stubs leave out that its functions may be coroutines."""


class Line(Protocol):
    """What a call needs of the connection that it came on."""

    def answer(self, stream: Stream, block: bytes) -> None:
        """Sends a field section that is the whole answer. The socket is written soon, here and below."""
        ...

    def open(self, stream: Stream, block: bytes) -> None:
        """Sends the field section that messages follow."""
        ...

    def send(self, stream: Stream, parts: tuple[bytes, ...], trailers: bytes | None = None) -> None:
        """Sends more of a body; trailers end it."""
        ...

    def grant(self, stream: Stream, size: int) -> None:
        """Lets the caller send more."""
        ...

    def hold(self, size: int) -> bool:
        """Counts bytes that this process holds for calls (negative: gives them back); False when that is too many by now."""
        ...


class Call:
    """A call from its head to its end, for all calls that are not over within one read of the socket.

    `arrived` takes body bytes; complete messages wait here until the handler asks for them. Belongs to the event loop.
    """

    def __init__(self, line: Line, stream: Stream, plan: Plan, received_ns: int, cutter: MessageCutter) -> None:
        self.stream = stream
        self.plan = plan
        self.received_ns = received_ns
        self.messages: deque[Message] = deque()
        self.task: asyncio.Task[None] | None = None
        self.context: CallContext | None = None
        self.is_gone = False
        self.is_lingering = False
        """Its caller has gone, and its handler is not over yet."""
        self._line = line
        self._cutter = cutter
        self._queued_bytes = self._held_bytes = 0
        self._woken = asyncio.Event()

    def put(self, message: Message) -> None:
        """A message that was cut already."""
        self.messages.append(message)
        self._queued_bytes += len(message)
        self._count()

    def arrived(self, data: bytes, start: int, stop: int) -> None:
        """More of the body. Raises CallFault."""
        done = self._cutter.cut(data, start, stop)
        self.messages += done
        self._queued_bytes += sum(map(len, done))
        if not self._count():
            raise CallFault("RESOURCE_EXHAUSTED", TOO_MUCH_HELD)
        self._grant()
        self.wake()

    def ended(self) -> None:
        """The caller has said all. Raises CallFault where that was in the middle of a message."""
        if not self._cutter.is_between:
            raise CallFault("INTERNAL", "the request ends in the middle of a message")
        self.wake()

    def take(self) -> Message:
        """The oldest message; there is one."""
        message = self.messages.popleft()
        self._queued_bytes -= len(message)
        self._count()
        self._grant()
        return message

    def gone(self) -> None:
        """The caller has gone, or the call is over: its handler is cancelled, and what it held is given back."""
        if not self.is_gone:
            self.is_gone = True
            self.messages.clear()
            self._queued_bytes = self._cutter.half_bytes = 0
            self._count()
            if self.task is not None:
                self.task.cancel()

    def wake(self) -> None:
        """Something moved: a message came, the caller's windows opened, or the request ended."""
        self._woken.set()

    async def moved(self) -> None:
        """Until `wake` is called again."""
        self._woken.clear()
        await self._woken.wait()

    def _count(self) -> bool:
        """Tells the process what this call holds now; False when all calls together hold too much."""
        held = self._queued_bytes + self._cutter.half_bytes
        change, self._held_bytes = held - self._held_bytes, held
        return self._line.hold(change)

    def _grant(self) -> None:
        """Windows follow what is read: a caller whose messages wait here is not let send more than a window of them.

        A message that has begun, and behind which nobody waits, may come at once, whatever its size.
        """
        missing = 0 if self.messages else self._cutter.missing_bytes
        window = self.stream.recv_window
        short = missing + max(RECV_WINDOW - self._queued_bytes, 0) - window
        if short >= RECV_WINDOW // 2 or (short > 0 and missing > window):
            self._line.grant(self.stream, short)


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """grpcio's context for handlers, over a call of ours."""

    def __init__(self, call: Call, line: Line, peer: str, deadline_s: float | None, clock: Callable[[], float]) -> None:
        """`deadline_s` on the scale of `clock`, None without one."""
        self._call = call
        self._line = line
        self._peer = peer
        self._deadline_s = deadline_s
        self._clock = clock
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._initial: tuple[tuple[str, str | bytes], ...] = ()
        self.has_opened = False
        call.context = self

    # ── what handlers call ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self) -> Any:
        raise NotImplementedError("handlers take their requests as an iterator")

    async def write(self, message: Any) -> None:
        raise NotImplementedError("handlers yield their responses")

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._initial = tuple(initial_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = tuple(trailing_metadata)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self._code, self._details = code, details
        self._trailing = tuple(trailing_metadata) or self._trailing
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing

    def invocation_metadata(self) -> Any:
        return tuple(self._call.plan.metadata)

    def time_remaining(self) -> Any:
        return None if self._deadline_s is None else max(0.0, self._deadline_s - self._clock())

    def cancelled(self) -> bool:
        return self._call.is_gone

    def done(self) -> bool:
        return self._call.stream.is_answered or self._call.is_gone

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> Iterable[bytes] | None:
        return None

    def peer_identity_key(self) -> str | None:
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}

    def set_compression(self, compression: grpc.Compression) -> None:
        """Answers are never compressed, which a caller always takes."""

    def disable_next_message_compression(self) -> None:
        """See `set_compression`."""

    # ── what the call sends ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: bytes) -> None:
        """One message; waits while the caller does not take what was sent before."""
        stream = self._call.stream
        self._open()
        self._line.send(stream, (prefixed(message),))
        while stream.outbox_bytes > OUTBOX_BYTES_MAX and not stream.is_closed:
            await self._call.moved()

    def finish(self, message: bytes | None = None) -> None:
        """The last message, if there is one, and the status that the handler has set."""
        self._end(CallFault(self._code.name, self._details, metadata=self._trailing), message)

    def fail(self, fault: CallFault) -> None:
        """Ends the call with a status that is not the handler's."""
        self._end(fault, None)

    def _end(self, end: CallFault, message: bytes | None) -> None:
        stream = self._call.stream
        if stream.is_closed or stream.is_answered or stream.trailers is not None:
            return
        if message is not None and end.code == "OK":
            self._open()
            self._line.send(stream, (prefixed(message),), status.trailers(end))
        elif self.has_opened:
            self._line.send(stream, (), status.trailers(end))
        else:
            end.metadata = (*self._initial, *end.metadata)
            self._line.answer(stream, status.refusal(end))

    def _open(self) -> None:
        if not self.has_opened:
            self.has_opened = True
            self._line.open(self._call.stream, OPENING + write_fields(write_metadata(self._initial)))


async def run(call: Call, handler: Handler, context: CallContext) -> None:
    """A whole call. Only cancellation leaves: every trouble is a status by then."""
    try:
        async with asyncio.timeout(context.time_remaining()):
            last = await _answers(call, handler, context)
        context.finish(last)
    except grpc.aio.AbortError:
        context.finish()
    except CallFault as fault:
        context.fail(fault)
    except TimeoutError:
        context.fail(CallFault("DEADLINE_EXCEEDED", "the deadline passed"))
    except Exception:  # noqa: BLE001  # the last line before the wire: what is unknown becomes a bare INTERNAL
        _LOG.exception("call_failed")
        context.fail(CallFault("INTERNAL", "internal error"))


async def _answers(call: Call, handler: Handler, context: CallContext) -> bytes | None:
    """Runs the handler and sends what it yields; the one answer of a unary method comes back, to leave with its status."""
    read, write = handler.request_deserializer or bytes, handler.response_serializer or bytes
    asked = _requests(call, read) if handler.request_streaming else await _request(call, read)
    if handler.response_streaming:
        act = handler.stream_stream if handler.request_streaming else handler.unary_stream
        answers = act(asked, context)
        try:
            async for answer in answers:
                await context.send(write(answer))
        finally:
            await answers.aclose()
        return None
    act = handler.stream_unary if handler.request_streaming else handler.unary_unary
    written: bytes = write(await act(asked, context))
    return written


async def _request(call: Call, read: Callable[[bytes], Any]) -> Any:
    """The one message of a request. The call is run once that is all here."""
    if len(call.messages) != 1:
        raise CallFault("UNIMPLEMENTED", f"this method takes one message, got {len(call.messages)}")
    return _read(read, call.take())


async def _requests(call: Call, read: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    while True:
        while call.messages:
            yield _read(read, call.take())
        if call.stream.is_ended:
            return
        await call.moved()


def _read(read: Callable[[bytes], Any], message: Message) -> Any:
    try:
        return read(bytes(message))
    except Exception:  # noqa: BLE001  # whatever protobuf raises, the message is the caller's
        raise CallFault("INTERNAL", "a message that does not parse") from None
