"""One stream of a connection: one call, from its field section to the last byte of its answer (RFC 9113, section 5); and who reads it."""

from collections import deque
from typing import Final, Protocol

from gateway.rpc.wire.headers import Head

RECV_WINDOW: Final = 1 << 20
"""What a caller may send on a stream before anything is granted; not below the default, so that no caller exceeds it by being early."""


class Stream:
    """Idle streams have no object. `is_ended`: the peer has sent END_STREAM; `is_answered`: so have we; `is_closed`: it is over.

    `body_left` are the bytes that its content-length still promises, None where it promised nothing. `call` belongs to the listener.
    `since_s` is when it was opened, or last moved forward while something waits to be sent.
    """

    __slots__ = (
        "body_left",
        "call",
        "head",
        "id",
        "is_answered",
        "is_closed",
        "is_ended",
        "outbox",
        "outbox_bytes",
        "recv_window",
        "send_window",
        "since_s",
        "trailers",
    )

    def __init__(self, stream_id: int, head: Head, send_window: int, now_s: float) -> None:
        self.id = stream_id
        self.head = head
        self.send_window = send_window
        self.recv_window = RECV_WINDOW
        self.body_left = head.content_length
        self.since_s = now_s
        self.is_ended = False
        self.is_answered = False
        self.is_closed = False
        self.outbox: deque[memoryview] | None = None
        self.outbox_bytes = 0
        self.trailers: bytes | None = None
        self.call: object | None = None


class Listener(Protocol):
    """Who reads the streams. Calls come from within `receive`, in the order of the wire, and may answer or reset any stream."""

    def requested(self, stream: Stream) -> None:
        """A request's field section is here."""
        ...

    def received(self, stream: Stream, data: bytes, start: int, stop: int, *, ends: bool) -> None:
        """`data[start:stop]` of its body is here; with `ends` it was the last. Windows are granted by `Connection.grant`."""
        ...

    def gone(self, stream: Stream) -> None:
        """The peer has reset the stream, or broken it; nothing more can be sent on it."""
        ...

    def moved(self, stream: Stream) -> None:
        """The peer's windows have let some of the stream's outbox go."""
        ...
