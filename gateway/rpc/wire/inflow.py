"""Bytes into frames (RFC 9113, sections 3.4, 4, 6.1, 6.2 and 6.10): the preface, field blocks over several frames, DATA as it comes.

At most the head of a DATA frame, or one frame of another kind, or one field block is kept until the rest of it is here. DATA is
handed on also from within a frame, so that a large body is not gathered here first.
"""

from typing import Final, Protocol

from gateway.rpc.wire import frames, patience
from gateway.rpc.wire.frames import END_HEADERS, END_STREAM, HAS_PRIORITY, HEAD_BYTES, PADDED, Code, ConnectionFault
from gateway.rpc.wire.patience import Patience
from gateway.rpc.wire.stream import Stream

DATA_BYTES_MAX: Final = 262_144
"""The largest frame that we take, which only DATA may be: it is never gathered, so that its size costs nothing."""


class Taker(Protocol):
    """Who takes the frames, in the order of the wire. Each call may raise ConnectionFault."""

    is_over: bool
    """Nothing more is taken once this is true."""

    def data_begun(self, stream_id: int, length: int, *, is_idle: bool) -> Stream | None:
        """A DATA frame of `length` bytes of payload, padding included, has begun. None: its bytes belong to nobody.

        `is_idle`: it neither brings nor ends anything.
        """
        ...

    def data(self, stream: Stream, data: bytes, start: int, stop: int, *, ends: bool) -> None:
        """`data[start:stop]` is the next content of the frame; `ends`: the last of the stream. Empty only at the end."""
        ...

    def section(self, block: bytes, stream_id: int, *, ends: bool) -> None:
        """A whole field block."""
        ...

    def control(self, kind: int, payload: bytes, flags: int, stream_id: int) -> None:
        """A whole frame of any other kind."""
        ...


class Inflow:
    """One direction of one connection. `stuck_since_s` is when what is half here began to come, None while nothing is."""

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_stream",
        "_bytes_max",
        "_data_ends",
        "_data_left",
        "_data_padding",
        "_data_stream",
        "_has_preface",
        "_now_s",
        "_only",
        "_patience",
        "_rest",
        "_taker",
        "stuck_since_s",
    )

    def __init__(self, taker: Taker, purse: Patience, block_bytes_max: int, now_s: float) -> None:
        self._taker = taker
        self._patience = purse
        self._bytes_max = max(frames.FRAME_BYTES_DEFAULT, block_bytes_max)
        self._now_s = now_s
        self._rest = b""
        self._has_preface = False
        self._only: int | None = frames.SETTINGS
        self._block = bytearray()
        self._block_stream = self._block_flags = 0
        self._data_left = self._data_padding = 0
        self._data_stream: Stream | None = None
        self._data_ends = False
        self.stuck_since_s: float | None = now_s

    def feed(self, data: bytes, now_s: float) -> None:
        """One read of the socket. Raises ConnectionFault."""
        self._now_s = now_s
        if self._rest:
            data = self._rest + data
            self._rest = b""
        place, end = 0, len(data)
        if not self._has_preface:
            place = self._preface(data)
            if not place:
                self._rest = data
                return
        if self._data_left:
            place = self._more_data(data, place, end)
        first = place
        while end - place >= HEAD_BYTES:
            high, low, kind, flags, stream_id = frames.read_head(data, place)
            length = high << 8 | low
            start = place + HEAD_BYTES
            stop = start + length
            stream_id &= 0x7FFFFFFF
            if self._only is not None:
                self._check_only(kind, flags, stream_id)
            if kind == frames.DATA:
                if flags & PADDED and start == end and length:
                    break  # how much padding there is, is not known yet
                self._begin_data(data, start, end, length, flags, stream_id)
            else:
                if length > self._bytes_max:
                    raise _too_long(kind, length)
                if stop > end:
                    break
                if kind == frames.HEADERS:
                    self._headers(data, start, stop, flags, stream_id)
                elif kind == frames.CONTINUATION:
                    self._continuation(data[start:stop], flags)
                else:
                    self._taker.control(kind, data[start:stop], flags, stream_id)
            if self._taker.is_over:
                return
            place = stop
        self._keep(data, place, end, has_moved=place > first)

    def _keep(self, data: bytes, place: int, end: int, *, has_moved: bool) -> None:
        """What is half here stays until the next read; its clock runs from its own beginning, whatever came before it."""
        if place < end:
            self._rest = data[place:]
        if self._only is not None:
            return  # the clock of the preface or of a field block runs on
        if place >= end:
            self.stuck_since_s = None
        elif has_moved or self.stuck_since_s is None:
            self.stuck_since_s = self._now_s

    def _preface(self, data: bytes) -> int:
        """Where the first frame begins; 0 while the preface is not all here."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the bytes do not begin an HTTP/2 connection")
        if len(data) < len(frames.PREFACE):
            return 0
        self._has_preface = True
        return len(frames.PREFACE)

    def _check_only(self, kind: int, flags: int, stream_id: int) -> None:
        """Where just one kind of frame may come: SETTINGS first of all (section 3.4), CONTINUATION inside a block (section 6.10)."""
        if kind != self._only or stream_id != self._block_stream or (kind == frames.SETTINGS and flags & frames.ACK):
            wanted = "SETTINGS" if self._only == frames.SETTINGS else "CONTINUATION"
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"wanted {wanted}, got a frame of kind {kind}")
        if kind == frames.SETTINGS:
            self._only = None

    # ── DATA ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin_data(self, data: bytes, start: int, end: int, length: int, flags: int, stream_id: int) -> None:
        """A DATA frame whose payload of `length` bytes begins at `start`; `data` ends at `end`, perhaps before it."""
        if length > DATA_BYTES_MAX:
            raise _too_long(frames.DATA, length)
        stop = start + length
        padding = 0
        if flags & PADDED:
            start, padding = _unpadded(data, start, stop)
        ends = bool(flags & END_STREAM)
        content_stop = stop - padding
        stream = self._taker.data_begun(stream_id, length, is_idle=start == content_stop and not ends)
        if stop > end:
            self._data_left, self._data_padding = stop - end, padding
            self._data_stream, self._data_ends = stream, ends
            content_stop, ends = min(content_stop, end), False
        if stream is not None and (ends or content_stop > start):
            self._taker.data(stream, data, start, content_stop, ends=ends)

    def _more_data(self, data: bytes, place: int, end: int) -> int:
        """The next part of a DATA frame; answers where the next frame begins."""
        stop = min(end, place + self._data_left)
        content_stop = max(place, min(stop, place + self._data_left - self._data_padding))
        self._data_left -= stop - place
        ends = self._data_ends and not self._data_left
        stream = self._data_stream
        if stream is not None and not stream.is_closed and (ends or content_stop > place):
            self._taker.data(stream, data, place, content_stop, ends=ends)
        if not self._data_left:
            self._data_stream = None
        return stop

    # ── HEADERS and CONTINUATION ─────────────────────────────────────────────────────────────────────────────────────────────

    def _headers(self, data: bytes, start: int, stop: int, flags: int, stream_id: int) -> None:
        if flags & PADDED:
            start, padding = _unpadded(data, start, stop)
            stop -= padding
        if flags & HAS_PRIORITY:
            start += 5
            if start > stop:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS without its priority fields")
        if not stream_id & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "callers open streams with odd numbers")
        if flags & END_HEADERS:
            self._taker.section(data[start:stop], stream_id, ends=bool(flags & END_STREAM))
            return
        self._block += data[start:stop]
        self._block_stream, self._block_flags = stream_id, flags
        self._only = frames.CONTINUATION
        self.stuck_since_s = self._now_s

    def _continuation(self, payload: bytes, flags: int) -> None:
        if not self._block_stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block += payload
        if len(self._block) > self._bytes_max:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a field block beyond the bound")
        if not flags & END_HEADERS:
            cost = patience.SMALL if payload else patience.EMPTY
            self._patience.charge(cost, self._now_s, "a field block in too many parts")
            return
        block, stream_id, ends = bytes(self._block), self._block_stream, bool(self._block_flags & END_STREAM)
        self._block.clear()
        self._block_stream, self._only = 0, None
        self._taker.section(block, stream_id, ends=ends)


def _unpadded(data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Where the content of a padded frame begins, and how much padding follows it (section 6.1)."""
    if start == stop:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
    padding = data[start]
    if padding > stop - start - 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "more padding than payload")
    return start + 1, padding


def _too_long(kind: int, length: int) -> ConnectionFault:
    if length > DATA_BYTES_MAX:
        return ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame beyond MAX_FRAME_SIZE")
    return ConnectionFault(Code.ENHANCE_YOUR_CALM, f"a frame of kind {kind} with {length} bytes")
