"""The other side of an HTTP/2 connection: frames made and read without the code under test, HPACK by the library's encoder."""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, HAS_PRIORITY = 4, 8, 32
REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a/b"),
    (":authority", "h"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


class Frame(NamedTuple):
    """A frame as read off the wire."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">L", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">L", stream) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack(">HL", *pair) for pair in pairs))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack(">L", increment))


def rst_stream(stream: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, stream=stream, payload=struct.pack(">L", code))


def block(fields: Iterable[tuple[str, str]] = REQUEST, encoder: Encoder | None = None) -> bytes:
    """A field block that leaves the dynamic table alone, unless an encoder is given."""
    if encoder is not None:
        return encoder.encode(fields)
    return Encoder().encode([(name, value, True) for name, value in fields])


def headers(stream: int, flags: int = END_HEADERS, fields: Iterable[tuple[str, str]] = REQUEST) -> bytes:
    return frame(HEADERS, flags, stream, block(fields))


def call(stream: int, body: bytes = b"", fields: Iterable[tuple[str, str]] = REQUEST) -> bytes:
    """A whole request."""
    return headers(stream, fields=fields) + frame(DATA, END_STREAM, stream, body)


def read(data: bytes) -> list[Frame]:
    """Every frame of `data`, which holds whole ones only."""
    frames = []
    while data:
        length = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + length, "half a frame"
        frames.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return frames


def code_of(one: Frame) -> int:
    """The error code of a RST_STREAM or GOAWAY."""
    return int.from_bytes(one.payload[:4] if one.kind == RST_STREAM else one.payload[4:8], "big")


class Answer(NamedTuple):
    """What came back on one stream."""

    fields: list[list[tuple[str, str]]]
    body: bytes
    is_ended: bool
    reset: int | None


def answers(frames: Iterable[Frame]) -> dict[int, Answer]:
    """The streams' field sections, bodies and ends, decoded by the library."""
    decoder = Decoder()
    found: dict[int, Answer] = {}
    half = b""
    for one in frames:
        if not one.stream or one.kind not in (DATA, HEADERS, CONTINUATION, RST_STREAM):
            continue
        fields, body, is_ended, reset = found.get(one.stream, Answer([], b"", False, None))
        if one.kind == RST_STREAM:
            found[one.stream] = Answer(fields, body, is_ended, code_of(one))
            continue
        assert not is_ended or half, "a frame behind the end of its stream"
        if one.kind == DATA:
            body += one.payload
        else:
            half += one.payload
            if one.flags & END_HEADERS:
                fields = [*fields, [(name, value) for name, value in decoder.decode(half)]]
                half = b""
        ends = bool(one.flags & END_STREAM) and one.kind != CONTINUATION
        found[one.stream] = Answer(fields, body, is_ended or ends, reset)
    return found
