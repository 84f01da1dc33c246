"""What leaves a connection: frames, within the windows and sizes that the peer has set (RFC 9113, sections 5.2, 6.5 and 6.9)."""

from collections import deque
from collections.abc import Iterable, Sequence

from gateway.rpc.wire import frames
from gateway.rpc.wire.frames import END_STREAM, Code, ConnectionFault
from gateway.rpc.wire.headers import NO_TABLE
from gateway.rpc.wire.stream import Stream

Buffer = bytes | bytearray | memoryview
_LARGE_BYTES = 65_536


class Ledger:
    """Bytes of answers that wait for their callers' windows, over all connections that share it."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Outflow:
    """Frames that are ready to be written, in `ready`; data beyond the windows waits in the outbox of its stream."""

    __slots__ = (
        "_block_prefix",
        "_blocked",
        "_waiting",
        "frame_bytes_max",
        "has_views",
        "initial_window",
        "is_held",
        "ready",
        "window",
    )

    def __init__(self, waiting: Ledger) -> None:
        self._waiting = waiting
        self.ready: list[Buffer] = []
        self.has_views = False
        """Whether `ready` holds large parts that are better not joined."""
        self.is_held = False
        """The socket takes no more: data waits in outboxes, as if the peer's window were closed."""
        self.window = frames.WINDOW_DEFAULT
        self.initial_window = frames.WINDOW_DEFAULT
        self.frame_bytes_max = frames.FRAME_BYTES_DEFAULT
        self._block_prefix = b""
        self._blocked: dict[Stream, None] = {}

    # ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self, stream: Stream, answer: bytes, data_bytes: int) -> bool:
        """A whole answer as prebuilt frames with `data_bytes` in one DATA; False, and nothing done, where the peer does not take it now."""
        if (
            data_bytes > self.window
            or data_bytes > stream.send_window
            or data_bytes > self.frame_bytes_max
            or self._block_prefix
            or self.is_held
        ):
            return False
        self.window -= data_bytes
        self.ready.append(answer)
        stream.is_answered = True
        return True

    def fields(self, stream: Stream, block: bytes, *, ends: bool) -> None:
        """A field section; with `ends` the last that leaves on this stream."""
        if self._block_prefix:
            block, self._block_prefix = self._block_prefix + block, b""
        self.ready.append(frames.headers(stream.id, block, ends=ends, bytes_max=self.frame_bytes_max))
        stream.is_answered = ends

    def data(self, stream: Stream, parts: Sequence[Buffer], trailers: bytes | None = None) -> None:
        """Body bytes, and the field section that follows the last of them. What the windows do not take waits."""
        if stream.outbox is None:
            stream.outbox = deque()
        for part in parts:
            view = memoryview(part).cast("B")
            if len(view) > _LARGE_BYTES:
                self.has_views = True
            if len(view):
                stream.outbox.append(view)
                stream.outbox_bytes += len(view)
                self._waiting.bytes += len(view)
        stream.trailers = trailers
        self.pump(stream)

    def pump(self, stream: Stream) -> bool:
        """Sends what the windows allow; True when something left. Streams that only the connection's window holds up queue for it."""
        outbox = stream.outbox
        if outbox is None:
            return False
        has_moved = False
        while outbox:
            room = 0 if self.is_held else min(self.window, stream.send_window, self.frame_bytes_max)
            if room <= 0:
                if self.window <= 0 or self.is_held:
                    self._blocked[stream] = None
                return has_moved
            self._frame(stream, outbox, room)
            has_moved = True
        if stream.trailers is not None:
            trailers, stream.trailers = stream.trailers, None
            self.fields(stream, trailers, ends=True)
            has_moved = True
        return has_moved

    def _frame(self, stream: Stream, outbox: deque[memoryview], room: int) -> None:
        """One DATA frame of at most `room` bytes from the front of the outbox."""
        length = min(room, stream.outbox_bytes)
        self.ready.append(frames.frame_head(length, frames.DATA, 0, stream.id))
        self.window -= length
        stream.send_window -= length
        stream.outbox_bytes -= length
        self._waiting.bytes -= length
        while length:
            part = outbox[0]
            if len(part) <= length:
                outbox.popleft()
                self.ready.append(part)
                length -= len(part)
            else:
                self.ready.append(part[:length])
                outbox[0] = part[length:]
                length = 0

    def end(self, stream: Stream) -> None:
        """An empty DATA frame that ends the stream: for answers without trailers, which gRPC has none of but HTTP has."""
        self.ready.append(frames.frame(frames.DATA, END_STREAM, stream.id))
        stream.is_answered = True

    def forget(self, stream: Stream) -> None:
        """The stream is over: what waited is dropped."""
        if stream.outbox:
            stream.outbox.clear()
            self._waiting.bytes -= stream.outbox_bytes
            stream.outbox_bytes = 0
            self._blocked.pop(stream, None)
        stream.trailers = None

    # ── what the peer allows ─────────────────────────────────────────────────────────────────────────────────────────────────

    def widen(self, increment: int) -> list[Stream]:
        """WINDOW_UPDATE of the connection; answers the streams that moved, in the order in which they were held up."""
        self.window += increment
        if self.window > frames.WINDOW_MAX:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the connection's window is beyond 2^31-1")
        return self.go_on()

    def go_on(self) -> list[Stream]:
        """Sends for the streams that the connection held up; answers those that moved."""
        waiting, self._blocked = self._blocked, {}
        return [stream for stream in waiting if self.pump(stream)]

    def apply(self, name: int, value: int, streams: Iterable[Stream]) -> None:
        """One setting of the peer (section 6.5.2). Raises ConnectionFault for values that none may have."""
        if name == frames.HEADER_TABLE_SIZE:
            self._block_prefix = NO_TABLE  # always right, and due when the table became smaller
        elif name == frames.ENABLE_PUSH:
            if value > 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        elif name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.WINDOW_MAX:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is beyond 2^31-1")
            change, self.initial_window = value - self.initial_window, value
            for stream in streams:
                stream.send_window += change
                if stream.send_window > frames.WINDOW_MAX:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a stream's window is beyond 2^31-1")
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.FRAME_BYTES_DEFAULT <= value < 1 << 24:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is between 2^14 and 2^24-1")
            self.frame_bytes_max = min(value, 1 << 20)
