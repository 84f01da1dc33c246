"""With the fast lane or without it, a connection reads the same requests out of the same bytes: 3,000 streams with broken and odd heads."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.rest.protocol import WireProtocol
from gateway.settings import Limits
from gateway.ticket import Ticket
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

TENSOR = '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[%s,2.5]}]}'
BODIES = [
    *((TENSOR % value).encode() for value in ("1", "2", "3", "4", "5", "null")),
    b'{"id":"q",' + (TENSOR % "3").encode()[1:],
    b"{}",
    b"x" * 50,
    b'{"instances": [[1.0, 2.0]]}',
    b"a,b\n1,2\n",
    b"\0\0\x80\x3f\0\0\0\x40",
]
NAMES = [
    "Host",
    "host",
    "X-User-Id",
    "Content-Length",
    "X-Request-Id",
    "traceparent",
    "tracestate",
    "Connection",
    "Transfer-Encoding",
    "Expect",
    "Authorization",
    "X-Api-Key",
    "Content-Type",
    "Accept-Encoding",
    "Inference-Header-Content-Length",
    "X-Runoff-Endpoint",
    "foo",
]
VALUES = [
    *(
        b"h",
        b"user-1",
        b" x ",
        b"\tx\t",
        b"keep-alive",
        b"close",
        b"chunked",
        b"100-continue",
        b"",
        b"0",
        b"12",
        b"gzip",
        b"text/csv",
        b"application/json",
        b"9" * 19,
        b"+1",
        b"r-1",
    ),
    *(b"\xe9", b"\xa0", b"a\tb", b"a\0b", b"a\rb", b"a\nb", b"\x7f", b"a\r\nTransfer-Encoding: chunked", b"Bearer k"),
]
HOT = [
    b"POST /v2/models/line/infer HTTP/1.1",
    b"POST /invocations HTTP/1.1",
    b"POST /v1/models/line:predict HTTP/1.1",
]
TARGETS = [
    *HOT,
    b"POST /v2/models/line/infer HTTP/1.0",
    b"GET /v2/models/line/infer HTTP/1.1",
    b"POST /v2/models/line/infer?x=1 HTTP/1.1",
    b"POST  /v2/models/line/infer HTTP/1.1",
    b"POST /v2/models/other/infer HTTP/1.1",
]


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, _: str) -> None: ...

    def pause_reading(self) -> None: ...


class Lanes:
    """Two protocol classes over one plane, and what a stream of bytes becomes on each."""

    def __init__(self, plane: Plane) -> None:
        seen: list[Any] = []
        bounds = {"header_bytes_max": 2000, "header_count_max": 12, "body_bytes_json_max": 3000}
        with_lane: Any = WireProtocol.bind(plane.data, plane.paths, Limits(**bounds))

        def submit(ticket: Ticket) -> None:
            form = None if ticket.slot is None else (repr(ticket.slot[1]), ticket.slot[2])
            traced = ticket.traceparent, ticket.tracestate
            identity = (ticket.protocol, ticket.request_id, *traced, ticket.wire_id, ticket.closes, form)
            seen.append((repr(ticket.inputs), ticket.rows, dict(ticket.headers), identity))

        def start(_protocol: Any, cycle: Any, _app: Any) -> None:
            seen.append((cycle.scope["path"], sorted(cycle.scope["headers"]), bytes(cycle.body)))

        plane.data.submit = submit  # type: ignore[method-assign]
        with_lane._start_asgi_task = start
        self.fast, self.slow = with_lane, type("Slow", (with_lane,), {"_take_hot": lambda *_: 0})
        self._seen = seen
        self._config = Config(nobody)
        self._config.load()

    def read(self, protocol: Any, chunks: list[bytes]) -> tuple[list[Any], bytes, bool]:
        """The requests that were read, what was written at once, and whether the connection was ended."""
        self._seen.clear()
        transport = Wire()
        connection = protocol(self._config, ServerState(), {})
        connection.connection_made(transport)
        for chunk in chunks:
            if not transport.is_closed:
                connection.data_received(chunk)
        if connection.timeout_keep_alive_task is not None:
            connection.timeout_keep_alive_task.cancel()
        return [*self._seen], transport.written, transport.is_closed


async def nobody(_scope: Any, _receive: Any, _send: Any) -> None: ...


@pytest.fixture
async def lanes(tmp_path: Path) -> AsyncIterator[Lanes]:
    plane = Plane(tmp_path)
    plane.serve({"champion": stage_linear(plane.artifacts)}, unit={"header": "x-user-id"})
    yield Lanes(plane)
    plane.close()


def request(chance: random.Random) -> bytes:
    """One request; half of them with a line or two put in, taken out, doubled, or changed."""
    body = chance.choice(BODIES)
    target = HOT[0]
    if chance.random() < 0.3:
        target = chance.choice(HOT)
        body = b'{"instances": [[1.0, 2.0]]}' if target is not HOT[0] else body
    lines = [
        target,
        b"Host: h",
        b"x-user-id: user-%d" % chance.randrange(5),
        b"Content-Length: %d" % len(body),
    ]
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
        place = chance.randrange(1, len(lines)) if len(lines) > 1 else 0
        odd = chance.choice(NAMES).encode() + chance.choice((b": ", b":", b" : ")) + chance.choice(VALUES)
        match chance.randrange(6):
            case 0:
                lines.insert(place, odd)
            case 1:
                lines.append(lines.pop(place))
            case 2:
                lines[place] = lines[place].partition(b":")[0] + b":" + chance.choice(VALUES)
            case 3:
                at = chance.randrange(len(lines[place]) + 1)
                lines[place] = lines[place][:at] + bytes((chance.randrange(256),)) + lines[place][at + 1 :]
            case 4:
                lines[0] = chance.choice(TARGETS)
            case _:
                lines.insert(place, lines[place])
    end = b"\n" if chance.random() < 0.03 else b"\r\n"
    return end.join(lines) + end + end + body


async def test_both_lanes_read_the_same(lanes: Lanes) -> None:
    chance = random.Random(20261123)
    hot = formed = 0
    for _ in range(3000):
        stream = b"".join(request(chance) for _ in range(chance.randrange(1, 6)))
        cuts = sorted(chance.sample(range(1, len(stream)), chance.choice((0, 0, 1, 3))))
        chunks = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        read = lanes.read(lanes.fast, chunks)
        assert read == lanes.read(lanes.slow, chunks), stream
        hot += sum(len(one) == 4 for one in read[0])
        formed += sum(len(one) == 4 and one[3][-1] is not None for one in read[0])
    assert hot > 2000
    assert formed > 500
