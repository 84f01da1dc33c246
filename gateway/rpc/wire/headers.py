"""Field sections: HPACK (RFC 7541) in through the library `hpack`, each distinct block thought through once; out as plain literals.

A caller that repeats a request repeats its block, byte for byte, once its fields stand in the dynamic table. Such a block changes
nothing in the table and means the same until another block does: so its `Head` is kept by its bytes, and dropped with the table.
"""

import re
from collections.abc import Iterable
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from gateway.rpc.wire.frames import Code, ConnectionFault

KEPT_MAX: Final = 16
KEPT_BLOCK_BYTES_MAX: Final = 1024
"""A connection keeps at most so many heads, of blocks of at most so many bytes."""

_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE_FORBIDDEN: Final = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_OF_CONNECTION: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})

Fields = list[tuple[bytes, bytes]]


class Head:
    """The field section of a request, checked as RFC 9113, section 8 demands.

    `problem` says what makes it malformed (the stream is reset), `is_oversized` that it is larger than the bound (it is refused in
    words). `content_length` is None where the caller did not say. `plan` is for whoever reads requests: what it made of this head.
    """

    __slots__ = ("content_length", "fields", "is_oversized", "method", "path", "plan", "problem")

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.method = self.path = b""
        self.content_length: int | None = None
        self.is_oversized = False
        self.plan: object | None = None
        self.problem: str | None = self._check()

    def _check(self) -> str | None:
        pseudo: dict[bytes, bytes] = {}
        host = None
        is_regular = False
        for name, value in self.fields:
            if _NAME.fullmatch(name) is None or _VALUE_FORBIDDEN.search(value) is not None:
                return "a field name or value holds what none may hold"
            if name[:1] == b":":
                if is_regular or name not in _PSEUDO or name in pseudo:
                    return "a pseudo-header is unknown, repeated, or follows a regular field"
                pseudo[name] = value
                continue
            is_regular = True
            if name in _OF_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
                return "a field that belongs to HTTP/1.1 connections"
            if name == b"content-length":
                if not value.isdigit() or len(value) > 18 or self.content_length not in (None, int(value)):
                    return "content-length: wanted one decimal number"
                self.content_length = int(value)
            elif name == b"host":
                host = value
        self.method, self.path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if not self.method or not self.path or not pseudo.get(b":scheme"):
            return "a request has :method, :scheme and :path"
        if host is not None and pseudo.get(b":authority", host) != host:
            return "host and :authority differ"
        return None


class HeadReader:
    """The decoding side of one connection. Blocks must come in the order of the wire, every one of them."""

    __slots__ = ("_bytes_max", "_count_max", "_decoder", "_kept")

    def __init__(self, *, bytes_max: int, count_max: int) -> None:
        """`bytes_max` counts as SETTINGS_MAX_HEADER_LIST_SIZE does: names, values, and 32 for each field."""
        self._bytes_max = bytes_max
        self._count_max = count_max
        self._decoder = Decoder(max_header_list_size=2 * bytes_max)
        self._kept: dict[bytes, Head] = {}

    def read(self, block: bytes) -> Head:
        """Raises ConnectionFault where the state of HPACK is lost, or the section is beyond twice the bound."""
        head = self._kept.get(block)
        return head if head is not None else self._decode(block)

    def skip(self, block: bytes) -> Fields:
        """Reads a block whose request will not be served (trailers, streams that are closed): the table must follow it all the same."""
        return self._fields(block)[0]

    def _decode(self, block: bytes) -> Head:
        fields, is_pure = self._fields(block)
        head = Head(fields)
        size = sum(len(name) + len(value) + 32 for name, value in fields)
        head.is_oversized = size > self._bytes_max or len(fields) > self._count_max
        if is_pure and len(block) <= KEPT_BLOCK_BYTES_MAX:
            if len(self._kept) >= KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[block] = head
        return head

    def _fields(self, block: bytes) -> tuple[Fields, bool]:
        """The fields, and whether the block left the dynamic table as it was."""
        _check_size_updates(block)
        entries = self._decoder.header_table.dynamic_entries
        count, newest = len(entries), entries[0] if entries else None
        try:
            fields: Fields = self._decoder.decode(block, raw=True)  # type: ignore[assignment]  # a list of pairs when raw
        except OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a field section far beyond the bound") from None
        except HPACKError:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "a field block that is not HPACK") from None
        is_pure = len(entries) == count and (not entries or entries[0] is newest) and not _is_size_update(block)
        if not is_pure:
            self._kept.clear()
        return fields, is_pure


def _is_size_update(block: bytes, place: int = 0) -> bool:
    return len(block) > place and block[place] & 0xE0 == 0x20


def _check_size_updates(block: bytes) -> None:
    """At most two of them lead a block (RFC 7541, section 4.2); the library would read any number."""
    place = 0
    for _ in range(2):
        if not _is_size_update(block, place):
            return
        is_long = block[place] & 0x1F == 0x1F
        place += 1
        while is_long and place < len(block):
            is_long = block[place] >= 0x80
            place += 1
    if _is_size_update(block, place):
        raise ConnectionFault(Code.COMPRESSION_ERROR, "more than two table size updates in a field block")


NO_TABLE: Final = b"\x20"
"""Says that this encoder uses no dynamic table: due before the first block after the peer has made its table smaller."""
STATUS_200: Final = b"\x88"
_FIELD_PREFIX_MAX: Final = 127


def write_fields(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Literals without indexing, with new names and no Huffman code (RFC 7541, 6.2.2): the same bytes for every connection."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in pairs)


def _string(text: bytes) -> bytes:
    return write_integer(len(text)) + text


def write_integer(value: int) -> bytes:
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if value < _FIELD_PREFIX_MAX:
        return bytes((value,))
    value -= _FIELD_PREFIX_MAX
    made = bytearray((_FIELD_PREFIX_MAX,))
    while value >= 128:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
