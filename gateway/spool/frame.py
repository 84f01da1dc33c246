"""The one format on disk between processes: length, checksum, sequence, payload.

A segment file is a run of frames. Its first frame is a *mark*: an empty payload under the sequence of the last frame before it.
So a segment is sealed exactly when a later one is not empty, although the writer opens its next file ahead of time.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

_HEADER: Final = Struct("<IIQ")
_SEQUENCE: Final = Struct("<Q")
HEADER_BYTES: Final = _HEADER.size
PAYLOAD_BYTES_MAX: Final = 1 << 30
"""A length above this is corruption, never a frame."""


class Frame(NamedTuple):
    """A whole frame as read: `segment` is the file's number, `end_offset` where the next frame starts."""

    sequence: int
    payload: bytes
    segment: int
    end_offset: int


def header(sequence: int, payload: bytes) -> bytes:
    """The 16 bytes before a payload. The checksum covers sequence and payload, so that no frame passes for another."""
    return _HEADER.pack(len(payload), crc32(payload, crc32(_SEQUENCE.pack(sequence))), sequence)


def mark(sequence: int) -> bytes:
    """The first frame of a segment, after the frame `sequence`."""
    return header(sequence, b"")


class Torn(NamedTuple):
    """Why parsing stopped before the end: `wanted` bytes from `offset` make the next frame, or it is corrupt (None)."""

    offset: int
    wanted: int | None


def parse(data: bytes, segment: int, base: int) -> tuple[list[Frame], Torn | None]:
    """The whole, valid frames at the start of `data`, which begins at offset `base` of the segment, and what stopped it.

    Marks are returned too (empty payload). None instead of Torn: `data` ended with a frame.
    """
    frames: list[Frame] = []
    view, at, end = memoryview(data), 0, len(data)
    while at < end:
        start = at + HEADER_BYTES
        if start > end:
            return frames, Torn(base + at, HEADER_BYTES)
        length, checksum, sequence = _HEADER.unpack_from(data, at)
        stop = start + length
        if length > PAYLOAD_BYTES_MAX:
            return frames, Torn(base + at, None)
        if stop > end:
            return frames, Torn(base + at, stop - at)
        payload = bytes(view[start:stop])
        if crc32(payload, crc32(_SEQUENCE.pack(sequence))) != checksum:
            return frames, Torn(base + at, None)
        frames.append(Frame(sequence, payload, segment, base + stop))
        at = stop
    return frames, None


def stated_length(data: bytes) -> int:
    """How long the frame at the start of `data` says it is, header included; only a hint where its checksum fails."""
    return HEADER_BYTES + int(_HEADER.unpack_from(data)[0])


def join(sequence: int, payloads: Iterable[bytes]) -> list[bytes]:
    """Headers and payloads in turn, for one gathering write; the first frame gets `sequence` + 1."""
    parts: list[bytes] = []
    for payload in payloads:
        sequence += 1
        parts.append(_HEADER.pack(len(payload), crc32(payload, crc32(_SEQUENCE.pack(sequence))), sequence))
        parts.append(payload)
    return parts
