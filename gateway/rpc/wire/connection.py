"""The server's side of one HTTP/2 connection as a state machine without I/O (RFC 9113): bytes in, calls of a listener, frames out.

`receive` never raises for what a peer does: a fault of a stream resets it, a fault of the connection writes GOAWAY and ends it.
Everything that a peer can make us keep has a bound: streams, field blocks, the remainder of a frame, the streams lately closed.
"""

from typing import Final

from gateway.rpc.wire import frames, patience
from gateway.rpc.wire.bounds import Bounds
from gateway.rpc.wire.frames import Code, ConnectionFault
from gateway.rpc.wire.headers import HeadReader
from gateway.rpc.wire.inflow import DATA_BYTES_MAX, Inflow
from gateway.rpc.wire.lifespan import Lifespan
from gateway.rpc.wire.outflow import Buffer, Ledger, Outflow
from gateway.rpc.wire.patience import Patience
from gateway.rpc.wire.stream import RECV_WINDOW, Listener, Stream

CONNECTION_WINDOW: Final = 16 << 20
"""What a peer may have on the way to us on all streams together. Bytes are counted free as they arrive: streams hold the bounds."""
_LATELY_MAX: Final = 1024
_SETTINGS_BYTES_MAX: Final = 6 * 32
_SMALL_UPDATE_BYTES: Final = 1024
"""A window opened by less makes frames that are mostly head (CVE-2019-9511); useful work pays for it."""


class Connection:
    """Belongs to the event loop. `now_s` is any monotonic clock. What is to be written stands in `out.ready`; `is_over` means: write it and close; `fault` is why, where it was one."""

    def __init__(self, bounds: Bounds, listener: Listener, now_s: float, waiting: Ledger | None = None) -> None:
        """`waiting` counts what waits to be sent; None: nobody else looks."""
        self.out = Outflow(waiting or Ledger())
        self.streams: dict[int, Stream] = {}
        self.is_over = False
        self.fault: ConnectionFault | None = None
        self.now_s = now_s
        self._bounds = bounds
        self._listener = listener
        self._heads = HeadReader(bytes_max=bounds.header_bytes_max, count_max=bounds.header_count_max)
        self._patience = Patience(now_s)
        self._last_id = 0
        self._recv_window = CONNECTION_WINDOW
        self._lately: dict[int, None] = {}
        self._in = Inflow(self, self._patience, bounds.header_bytes_max, now_s)
        self._life = Lifespan(bounds, self.out, now_s)
        self.out.ready.append(
            frames.settings(
                (
                    (frames.MAX_CONCURRENT_STREAMS, bounds.streams_max),
                    (frames.INITIAL_WINDOW_SIZE, RECV_WINDOW),
                    (frames.MAX_FRAME_SIZE, DATA_BYTES_MAX),
                    (frames.MAX_HEADER_LIST_SIZE, bounds.header_bytes_max),
                )
            )
            + frames.window_update(0, CONNECTION_WINDOW - frames.WINDOW_DEFAULT)
        )

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, data: bytes, now_s: float) -> None:
        """One read of the socket."""
        if self.is_over:
            return
        self.now_s = self._life.heard_s = now_s
        try:
            self._in.feed(data, now_s)
        except ConnectionFault as fault:
            self._end(fault)

    # ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def data_begun(self, stream_id: int, length: int, *, is_idle: bool) -> Stream | None:
        """`Inflow` has met a DATA frame: windows are counted for the whole of it (section 5.2), whoever it is for."""
        window = self._recv_window = self._recv_window - length
        if window < CONNECTION_WINDOW // 2:
            if window < 0:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
            self.out.ready.append(frames.window_update(0, CONNECTION_WINDOW - window))
            self._recv_window = CONNECTION_WINDOW
        stream = self.streams.get(stream_id)
        if stream is None or stream.is_ended:
            self._stray(stream, stream_id)
            return None
        if length > stream.recv_window:
            self._fail(stream, Code.FLOW_CONTROL_ERROR)
            return None
        stream.recv_window -= length
        if is_idle:
            self._patience.charge(patience.EMPTY, self.now_s, "empty DATA frames")
        return stream

    def data(self, stream: Stream, data: bytes, start: int, stop: int, *, ends: bool) -> None:
        """Content of a stream's body, or its end."""
        if stream.body_left is not None:
            stream.body_left -= stop - start
            if stream.body_left < 0 or (ends and stream.body_left):
                self._fail(stream, Code.PROTOCOL_ERROR)  # section 8.1.1
                return
        stream.is_ended = ends
        # Else its answer is complete, and waits for windows only: no more is asked of it (section 8.1).
        if stream.trailers is None:
            self._listener.received(stream, data, start, stop, ends=ends)

    def _stray(self, stream: Stream | None, stream_id: int) -> None:
        """DATA where none may come (section 6.1). On streams that we have reset it is only late."""
        if stream is not None:
            self._fail(stream, Code.STREAM_CLOSED)
            return
        if stream_id > self._last_id or not stream_id & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on an idle stream")
        self._patience.charge(patience.STALE, self.now_s, "DATA on closed streams")
        if stream_id not in self._lately:
            self.out.ready.append(frames.rst_stream(stream_id, Code.STREAM_CLOSED))

    # ── field sections ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def section(self, block: bytes, stream_id: int, *, ends: bool) -> None:
        """A complete field section: a new request, or trailers."""
        if stream_id <= self._last_id:
            self._late_section(block, stream_id, ends=ends)
            return
        self._last_id = stream_id
        final_id = self._life.final_id
        if final_id is not None and stream_id > final_id:
            self._heads.skip(block)  # the caller has been told, and tries elsewhere
            self._remember(stream_id)
            return
        head = self._heads.read(block)
        if len(self.streams) >= self._bounds.streams_max:
            self._refuse(stream_id, Code.REFUSED_STREAM)
            return
        if head.problem is not None:
            self._refuse(stream_id, Code.PROTOCOL_ERROR)
            return
        stream = Stream(stream_id, head, self.out.initial_window, self.now_s)
        self.streams[stream_id] = stream
        self._listener.requested(stream)
        if ends and not stream.is_closed:
            self.data(stream, b"", 0, 0, ends=True)

    def _late_section(self, block: bytes, stream_id: int, *, ends: bool) -> None:
        fields = self._heads.skip(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id not in self._lately:
                raise ConnectionFault(Code.STREAM_CLOSED, "HEADERS on a closed stream")
            self._patience.charge(patience.STALE, self.now_s, "HEADERS on closed streams")
        elif stream.is_ended:
            self._fail(stream, Code.STREAM_CLOSED)
        elif not ends or any(name[:1] == b":" for name, _ in fields):
            self._fail(stream, Code.PROTOCOL_ERROR)  # section 8.1
        else:
            self.data(stream, b"", 0, 0, ends=True)

    # ── everything else ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def control(self, kind: int, payload: bytes, flags: int, stream_id: int) -> None:
        """A frame that is neither of a body nor of a field section."""
        frames.check_form(kind, len(payload), flags, stream_id)
        match kind:
            case frames.WINDOW_UPDATE:
                self._window_update(int.from_bytes(payload, "big") & 0x7FFFFFFF, stream_id)
            case frames.RST_STREAM:
                self._rst_stream(stream_id)
            case frames.PING:
                self._ping(payload, flags)
            case frames.SETTINGS:
                self._settings(payload, flags)
            case frames.GOAWAY:  # the peer opens no more streams; those that are open are answered
                self._patience.charge(patience.SETTINGS, self.now_s, "GOAWAY frames")
                self._life.peer_leaves = True
                self._leave_if_done()
            case frames.PRIORITY:
                self._priority(len(payload), stream_id)
            case frames.PUSH_PROMISE:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "callers do not push")
            case _:  # unknown kinds are ignored (section 4.1)
                self._patience.charge(patience.SMALL, self.now_s, "frames of unknown kinds")

    def _priority(self, length: int, stream_id: int) -> None:
        """Read and not followed: the scheme is deprecated (section 5.3.2)."""
        self._patience.charge(patience.SMALL, self.now_s, "PRIORITY frames")
        if length != 5:
            stream = self.streams.get(stream_id)
            if stream is None:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PRIORITY has five bytes")
            self._fail(stream, Code.FRAME_SIZE_ERROR)

    def _rst_stream(self, stream_id: int) -> None:
        self._check_not_idle(stream_id, "RST_STREAM")
        stream = self.streams.get(stream_id)
        self._patience.charge(patience.STALE if stream is None else patience.RESET, self.now_s, "RST_STREAM frames")
        if stream is not None:
            self._close(stream)
            self._listener.gone(stream)

    def _settings(self, payload: bytes, flags: int) -> None:
        self._patience.charge(patience.SETTINGS, self.now_s, "SETTINGS frames")
        if len(payload) > _SETTINGS_BYTES_MAX:  # each may touch every stream
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a SETTINGS frame with too many settings")
        if flags & frames.ACK:
            self._life.has_acknowledged = True
            return
        for name, value in frames.read_settings(payload):
            self.out.apply(name, value, self.streams.values())
        self.out.ready.append(frames.SETTINGS_ACK)
        for stream in list(self.streams.values()):  # a larger initial window lets streams go on
            self._pump(stream)

    def _ping(self, payload: bytes, flags: int) -> None:
        self._patience.charge(patience.PING, self.now_s, "PING frames")
        if not flags & frames.ACK:
            self.out.ready.append(frames.ping(payload, ack=True))
        elif self._life.has_drained(payload):
            self._announce_last()

    def _window_update(self, increment: int, stream_id: int) -> None:
        if increment < _SMALL_UPDATE_BYTES:
            self._patience.charge(patience.SMALL, self.now_s, "WINDOW_UPDATE by next to nothing")
        if not stream_id:
            if not increment:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            for stream in self.out.widen(increment):
                self._settle(stream)
            return
        self._check_not_idle(stream_id, "WINDOW_UPDATE")
        target = self.streams.get(stream_id)
        if target is None:
            self._patience.charge(patience.SMALL, self.now_s, "WINDOW_UPDATE on closed streams")
        elif not increment:
            self._fail(target, Code.PROTOCOL_ERROR)
        elif target.send_window + increment > frames.WINDOW_MAX:
            self._fail(target, Code.FLOW_CONTROL_ERROR)
        else:
            if not target.outbox:
                self._patience.charge(patience.SMALL, self.now_s, "WINDOW_UPDATE without need")
            target.send_window += increment
            self._pump(target)

    def _check_not_idle(self, stream_id: int, name: str) -> None:
        if stream_id > self._last_id or not stream_id & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"{name} on an idle stream")

    # ── frames out ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer_whole(self, stream: Stream, answer: bytes, data_bytes: int) -> bool:
        """A whole answer as frames made beforehand; False, and nothing done, where windows or settings of the peer forbid it."""
        if not self.out.whole(stream, answer, data_bytes):
            return False
        self._settle(stream)
        return True

    def open(self, stream: Stream, block: bytes) -> None:
        """A field section that a body follows."""
        if not stream.is_closed:
            self.out.fields(stream, block, ends=False)

    def answer(
        self, stream: Stream, block: bytes, parts: "tuple[Buffer, ...]" = (), trailers: bytes | None = None
    ) -> None:
        """A field section, then a body and trailers; without both the section is the whole answer."""
        if stream.is_closed:
            return
        if trailers is None and not parts:
            self.out.fields(stream, block, ends=True)
        else:
            self.out.fields(stream, block, ends=False)
            self._patience.refund(sum(map(len, parts)) >> 12)
            self.out.data(stream, parts, trailers)
        self._settle(stream)

    def send(self, stream: Stream, parts: "tuple[Buffer, ...]", trailers: bytes | None = None) -> None:
        """More of a body whose field section has left; trailers end it."""
        if stream.is_closed:
            return
        self._patience.refund(patience.SMALL * 2)  # the peer owes us a WINDOW_UPDATE for it
        self.out.data(stream, parts, trailers)
        self._settle(stream)

    def hold(self) -> None:
        """The socket takes no more."""
        self.out.is_held = True

    def go_on(self) -> None:
        """The socket takes more."""
        self.out.is_held = False
        for stream in self.out.go_on():
            self._settle(stream)

    def grant(self, stream: Stream, size: int) -> None:
        """Lets the peer send `size` more bytes on a stream."""
        if size > 0 and not stream.is_ended and not stream.is_closed:
            stream.recv_window += size
            self.out.ready.append(frames.window_update(stream.id, size))

    def reset(self, stream: Stream, code: Code) -> None:
        """Ends a stream at once; the listener is not told."""
        if not stream.is_closed:
            self.out.ready.append(frames.rst_stream(stream.id, code))
            self._close(stream)
            self._remember(stream.id)

    def _fail(self, stream: Stream, code: Code) -> None:
        """The peer broke one stream."""
        self._patience.charge(patience.RESET, self.now_s, "broken streams")
        self.reset(stream, code)
        self._listener.gone(stream)

    def _refuse(self, stream_id: int, code: Code) -> None:
        """A stream that does not come to be."""
        self._patience.charge(patience.STALE, self.now_s, "requests that were refused")
        self.out.ready.append(frames.rst_stream(stream_id, code))
        self._remember(stream_id)

    def _pump(self, stream: Stream) -> None:
        if stream.outbox and self.out.pump(stream):
            self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """After something of the stream has left: it is over when all has, or its writer may go on."""
        if not stream.is_answered:
            if stream.outbox is not None and not stream.is_closed:
                stream.since_s = self.now_s
                self._listener.moved(stream)
            return
        self._patience.refund(patience.ANSWERED)
        if stream.is_ended:
            self._close(stream)
        else:  # the rest of the request is of no use any more (section 8.1)
            self.reset(stream, Code.NO_ERROR)

    def _close(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        stream.is_closed = True
        if stream.outbox is not None:
            self.out.forget(stream)
        if not self.streams:
            self._life.idle_since_s = self.now_s
            self._leave_if_done()

    def _remember(self, stream_id: int) -> None:
        """Frames that were on their way to a stream when we ended it are late, not wrong (section 5.1)."""
        if len(self._lately) >= _LATELY_MAX:
            del self._lately[next(iter(self._lately))]
        self._lately[stream_id] = None

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Ends the connection without losing a call (section 6.8): the peer is warned, then told the last stream, then left."""
        if not self.is_over:
            self._life.drain(self.now_s)

    def sweep(self, now_s: float) -> None:
        """About twice a second: ends what is stuck, idle or dead."""
        if self.is_over:
            return
        self.now_s = now_s
        if self._life.is_announcement_due(now_s):
            self._announce_last()
        stuck_since_s = self._in.stuck_since_s
        if stuck_since_s is not None and now_s - stuck_since_s > self._bounds.header_s:
            fault: ConnectionFault | None = ConnectionFault(Code.ENHANCE_YOUR_CALM, "a frame did not arrive in time")
        else:
            fault = self._life.trouble(now_s, is_idle=not self.streams)
        if fault is not None:
            self._end(fault)

    def fail(self) -> None:
        """Our own mistake: the connection is of no use any more."""
        self._end(ConnectionFault(Code.INTERNAL_ERROR, "internal error"))

    def lost(self) -> None:
        """The transport is gone: every open stream with it."""
        self.is_over = True
        for stream in list(self.streams.values()):
            self._close(stream)
            self._listener.gone(stream)

    def _announce_last(self) -> None:
        self._life.announce_last(self._last_id)
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if not self.streams and self._life.is_done():
            self.is_over = True

    def _end(self, fault: ConnectionFault) -> None:
        self.fault = fault
        self.out.ready.append(frames.goaway(self._last_id, fault.code, fault.reason))
        self.lost()
