"""HTTP/2 frames as they stand on the wire (RFC 9113, sections 4, 6 and 7): numbers, faults, and how a server writes each kind."""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9
FRAME_BYTES_DEFAULT: Final = 16_384
"""The largest payload that every peer takes (section 4.2)."""
WINDOW_MAX: Final = 2**31 - 1
WINDOW_DEFAULT: Final = 65_535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

read_head: Final = struct.Struct(">HBBBL").unpack_from
"""Length in two parts (16 and 8 bits), kind, flags, stream id with its reserved bit."""
_head: Final = struct.Struct(">HBBBL").pack
_setting: Final = struct.Struct(">HL")


class Code(IntEnum):
    """Error codes of RST_STREAM and GOAWAY (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(Exception):
    """The peer broke the protocol or a bound so that the whole connection ends (section 5.4.1). `reason` goes into GOAWAY."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


_NAMES: Final = (
    *("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE"),
    "CONTINUATION",
)
_OF_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})
_OF_STREAMS: Final = frozenset({PRIORITY, RST_STREAM})
_SIZES: Final = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_GOAWAY_BYTES_MIN: Final = 8
_SETTING_BYTES: Final = 6


def check_form(kind: int, length: int, flags: int, stream_id: int) -> None:
    """What section 6 says of the place and size of a control frame, before anybody reads it. Raises ConnectionFault."""
    if kind in _OF_CONNECTION and stream_id:
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"{_NAMES[kind]} on a stream")
    if kind in _OF_STREAMS and not stream_id:
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"{_NAMES[kind]} on stream 0")
    is_wrong = length != _SIZES.get(kind, length)
    if kind == SETTINGS:
        is_wrong = bool(length % _SETTING_BYTES or (flags & ACK and length))
    elif kind == GOAWAY:
        is_wrong = length < _GOAWAY_BYTES_MIN
    if is_wrong:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"{_NAMES[kind]} with {length} bytes, which none has")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame; its payload is at most what the peer takes."""
    return frame_head(len(payload), kind, flags, stream_id) + payload


def frame_head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before a payload of `length`."""
    return _head(length >> 8, length & 0xFF, kind, flags, stream_id)


def headers(stream_id: int, block: bytes, *, ends: bool, bytes_max: int = FRAME_BYTES_DEFAULT) -> bytes:
    """A field block as HEADERS and as many CONTINUATION as it needs (section 6.10)."""
    flags = END_STREAM if ends else 0
    if len(block) <= bytes_max:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [frame(HEADERS, flags, stream_id, block[:bytes_max])]
    for start in range(bytes_max, len(block), bytes_max):
        is_last = start + bytes_max >= len(block)
        parts.append(frame(CONTINUATION, END_HEADERS if is_last else 0, stream_id, block[start : start + bytes_max]))
    return b"".join(parts)


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(name, value) for name, value in values))


def read_settings(payload: bytes) -> Iterable[tuple[int, int]]:
    """Name and value of each setting; the payload's length is a multiple of six."""
    return _setting.iter_unpack(payload)


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """`payload` has eight bytes."""
    return frame(PING, ACK if ack else 0, 0, payload)


def rst_stream(stream_id: int, code: Code) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def goaway(last_stream_id: int, code: Code, reason: str = "") -> bytes:
    debug = reason.encode("ascii", "replace")[:256]
    return frame(GOAWAY, 0, 0, last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + debug)
