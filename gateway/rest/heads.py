"""The fast lane past the HTTP parser: request heads made only of lines that match one strict pattern.

A client sends the same lines again and again, so that a connection's next head need only be compared with its last (`Shape`): 0.6 µs,
where the parser calls back for each line (4 µs). It is no second parser: whatever is not exactly `POST <hot target> HTTP/1.1` with
well-formed lines, one Host, one Content-Length and nothing that changes how a body is read is left, untouched, to httptools.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.settings import Limits

_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_LINES_MAX: Final = 4096
_LINE_BYTES_MAX: Final = 256
_LENGTH, _JSON_LENGTH, _OTHER, _HOST, _REQUEST_ID, _TRACEPARENT, _TRACESTATE = range(7)
_CREDENTIAL, _TYPE, _ENCODINGS, _ELSEWHERE = range(7, 11)
_KINDS: Final = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"x-request-id": _REQUEST_ID,
    b"traceparent": _TRACEPARENT,
    b"tracestate": _TRACESTATE,
    b"authorization": _CREDENTIAL,
    b"x-api-key": _CREDENTIAL,
    b"inference-header-content-length": _JSON_LENGTH,
    b"content-type": _TYPE,
    b"accept-encoding": _ENCODINGS,
}
_LENGTHS: Final = (_LENGTH, _JSON_LENGTH)
_VARYING: Final = frozenset((*_LENGTHS, _REQUEST_ID, _TRACEPARENT, _TRACESTATE))
_ONCE: Final = (_CREDENTIAL, _JSON_LENGTH, _TYPE, _ENCODINGS)
"""Of several with one of these names, the ordinary path knows which one holds."""
_READ: Final = (*_LENGTHS, _TYPE, _ENCODINGS)
"""Read by the doors themselves; a route that routes by one of these has the parser's lane."""
_DIGITS_MAX: Final = 18
_NEVER_KEPT: Final = frozenset((_REQUEST_ID, _TRACEPARENT, _TRACESTATE, _CREDENTIAL))
"""New with every request, or secret."""
COLD_NAMES: Final = frozenset(
    (
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
        b"upgrade",
        b"x-runoff-endpoint",
        b"x-runoff-explain",
        b"x-runoff-timeout-ms",
        b"x-runoff-variant",
    )
)
"""A request with one of these takes the ordinary path."""

_Line = tuple[int, bytes, bytes, int]
"""Kind, lower-case name, value, and the number of a length."""


class Head(msgspec.Struct, gc=False):
    """What the wire door needs of a hot request's head. `credential` is the one key or token that was shown, None where none was.

    `json_length` is Inference-Header-Content-Length, None without it.
    """

    length: int
    headers: Mapping[str, str]
    request_id: bytes | None = None
    traceparent: bytes | None = None
    credential: bytes | None = None
    json_length: int | None = None
    content_type: str | None = None
    encodings: str | None = None
    tracestate: bytes | None = None


class Shape:
    """The head of a connection's last hot request, cut at the values that change from one to the next.

    A client repeats itself but for those (length, unit, ids), so that the next head is read by comparing what lies between them: half a
    microsecond, a third of reading it line by line. It holds the caller's own credential, so it belongs to one connection.
    """

    __slots__ = ("_credential", "_cuts", "_encodings", "_learnt", "_loose", "_start", "_type", "endpoint", "line")

    def __init__(
        self,
        lines: list[bytes],
        learnt: list[_Line],
        wanted: frozenset[bytes],
        endpoint: object,
        before: "Shape | None" = None,
    ) -> None:
        """`learnt` is what was read of `lines[1:]`; `endpoint` is whose `wanted` headers are kept.

        `before` is the shape that did not fit: headers that nobody wants and whose values have changed since may change again.
        """
        self.line = lines[0]
        self.endpoint = endpoint
        self._learnt = learnt
        self._loose: frozenset[int] = frozenset() if before is None else before.changed(learnt)
        self._credential: bytes | None = None
        self._type: str | None = None
        self._encodings: str | None = None
        varying: list[tuple[int, str | None]] = []
        literals = [lines[0] + b"\r\n"]
        for place, (text, (kind, name, value, _)) in enumerate(zip(lines[1:], learnt, strict=True)):
            if kind in _VARYING or name in wanted or place in self._loose:
                varying.append((kind, name.decode() if name in wanted else None))
                literals[-1] += text[: len(text) - len(text[len(name) + 1 :].lstrip(b" \t"))]
                literals.append(b"\r\n")
            else:
                if kind == _CREDENTIAL:
                    self._credential = value
                elif kind == _TYPE:
                    self._type = value.decode("latin-1")
                elif kind == _ENCODINGS:
                    self._encodings = value.decode("latin-1")
                literals[-1] += text + b"\r\n"
        literals[-1] += b"\r\n"
        self._start = literals[0]
        self._cuts = [(kind, name, end) for (kind, name), end in zip(varying, literals[1:], strict=True)]

    def changed(self, learnt: list[_Line]) -> frozenset[int]:
        """The places of ordinary headers, the same as here in name and order, whose values are not."""
        if [line[1] for line in self._learnt] != [line[1] for line in learnt]:
            return frozenset()
        return self._loose | {
            place
            for place, (old, new) in enumerate(zip(self._learnt, learnt, strict=True))
            if old != new and new[0] == _OTHER and new[1] != b"connection"
        }

    def read(self, data: bytes, at: int, bytes_max: int) -> tuple[Head, int] | None:
        """The head that begins at `at`, and where it ends; None: it has another shape."""
        if not data.startswith(self._start, at):
            return None
        place = at + len(self._start)
        length = 0
        headers = request_id = traceparent = tracestate = json_length = None
        for kind, name, end in self._cuts:
            stop = data.find(end, place, at + bytes_max)
            if stop < 0:
                return None
            value = data[place:stop]
            place = stop + len(end)
            if kind <= _JSON_LENGTH:
                if not value.isdigit() or len(value) > _DIGITS_MAX:
                    return None
                if kind == _LENGTH:
                    length = int(value)
                else:
                    json_length = int(value)
                continue
            value = value.strip(b" ")
            text = value.decode("latin-1")
            if not text.isprintable():  # no further line may hide in a value
                return None
            if kind == _REQUEST_ID:
                request_id = value
            elif kind == _TRACEPARENT:
                traceparent = value
            elif kind == _TRACESTATE:
                tracestate = value
            if name is not None:
                if headers is None:
                    headers = {}
                headers[name] = text
        wanted = headers or _NO_HEADERS
        head = Head(length, wanted, request_id, traceparent, self._credential, json_length, self._type, self._encodings)
        if tracestate is not None:
            head.tracestate = tracestate
        return head, place


class Heads:
    """The lines that one worker has seen, bounded; forgotten all at once when there are too many."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lines: dict[bytes, _Line] = {}

    def shape(
        self, lines: list[bytes], wanted: frozenset[bytes], endpoint: object, before: Shape | None = None
    ) -> Shape | None:
        """The shape of the head whose header lines are `lines[1:]`, with the `wanted` headers varying; None: leave it to the parser."""
        if len(lines) > self._limits.header_count_max:
            return None
        learnt = [self._lines.get(line) or self._learn(line, wanted) for line in lines[1:]]
        kinds = [line[0] for line in learnt]
        if kinds.count(_HOST) != 1 or kinds.count(_LENGTH) != 1 or _ELSEWHERE in kinds:
            return None
        if any(kinds.count(kind) > 1 for kind in _ONCE) or any(
            kind in _READ and name in wanted for kind, name, _, _ in learnt
        ):
            return None
        return Shape(lines, learnt, wanted, endpoint, before)

    def _learn(self, line: bytes, wanted: frozenset[bytes]) -> _Line:
        """Reads a line that is new, and remembers it where it may come again."""
        found = _LINE.fullmatch(line)
        if found is None:
            return (_ELSEWHERE, b"", b"", 0)
        name, value = found[1].lower(), found[2]
        kind = _KINDS.get(name, _ELSEWHERE if name in COLD_NAMES else _OTHER)
        length = 0
        if kind in _LENGTHS:
            if not value.isdigit() or len(value) > _DIGITS_MAX:
                return (_ELSEWHERE, b"", b"", 0)
            length = int(value)
        elif name == b"authorization":
            value = bearer_of(value)
        elif name == b"connection" and value.lower() != b"keep-alive":
            kind = _ELSEWHERE
        learnt = (kind, name, value, length)
        if len(line) <= _LINE_BYTES_MAX and kind not in _NEVER_KEPT and name not in wanted:
            if len(self._lines) >= _LINES_MAX:
                self._lines.clear()
            self._lines[line] = learnt
        return learnt


def bearer_of(authorization: bytes) -> bytes:
    """The token of `Bearer …`, empty for every other scheme."""
    kind, _, token = authorization.partition(b" ")
    return token.strip() if kind.lower() == b"bearer" else b""


_NO_HEADERS: Final[Mapping[str, str]] = {}
