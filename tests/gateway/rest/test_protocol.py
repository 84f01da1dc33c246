"""The wire door on a real socket: replies in order, what must be refused is refused, and nobody can hold a connection for ever."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gateway.rest.connection import SLOTS_MAX
from gateway.rest.protocol import WireProtocol
from gateway.settings import Limits
from tests.kit.held import hold, settled
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

BODY = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]})
HOT = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n" % len(BODY)


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.method} {request.url.path} {len(await request.body())}")


class Door:
    """A served wire door, its port, and a client that speaks bytes."""

    def __init__(self, plane: Plane, server: uvicorn.Server, connections: set[WireProtocol]) -> None:
        self.plane = plane
        self.server = server
        self.connections = connections
        self.port = server.servers[0].sockets[0].getsockname()[1]

    async def talk(self, sent: bytes) -> bytes:
        """Sends bytes and answers all that comes back until the door closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            async with asyncio.timeout(30):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    plane = Plane(tmp_path)
    plane.serve({"champion": stage_linear(plane.artifacts)})
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    limits = Limits(
        header_bytes_max=4096, header_count_max=20, body_bytes_json_max=10_000, body_bytes_binary_max=20_000
    )
    protocol = WireProtocol.bind(plane.data, plane.paths, limits)
    config = uvicorn.Config(
        app, http=protocol, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # older uvicorns
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to await
        await asyncio.sleep(0.01)
    yield Door(plane, server, server.server_state.connections)  # type: ignore[arg-type]  # ours is the only protocol
    server.should_exit = True
    await task
    plane.close()


def ask(extra: bytes = b"", body: bytes = BODY) -> bytes:
    head = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n" % len(body)
    return head + extra + b"\r\n" + body


LAST = b"connection: close\r\n"


async def test_a_hot_request_is_answered_with_who_answered_in_headers_and_body(door: Door) -> None:
    reply = await door.talk(ask(LAST))
    head, _, body = reply.partition(b"\r\n\r\n")
    answer = orjson.loads(body)
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert headers["x-runoff-variant"] == answer["parameters"]["variant"] == "champion"
    assert headers["x-prediction-id"] == answer["parameters"]["prediction_id"]
    assert headers["x-runoff-model"] == "line/1"
    assert headers["x-runoff-revision"] == str(answer["parameters"]["revision"]) == "1"
    assert (answer["model_name"], answer["model_version"]) == ("line", "1")
    assert answer["outputs"][0] == {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]}
    assert "id" not in answer


async def test_pipelined_requests_are_answered_in_order_hot_and_cold_alike(door: Door) -> None:
    cold = b"GET /cold%d HTTP/1.1\r\nhost: h\r\n%b\r\n"
    sent = ask() + cold % (1, b"") + ask() + ask() + cold % (2, b"") + cold % (3, LAST)
    reply = await door.talk(sent)
    # What follows a cold request is cold while that one runs, so the application answers the hot paths after it.
    posted = b"POST /v2/models/line/infer"
    marks = [b"x-prediction-id", b"GET /cold1 0", posted, posted, b"GET /cold2 0", b"GET /cold3 0"]
    places = [0]
    for mark in marks:
        places.append(reply.index(mark, places[-1] + 1))
    assert places == sorted(places)
    assert reply.count(b"HTTP/1.1 200 OK") == 6


@pytest.mark.parametrize("last", [ask(), b"GET /cold HTTP/1.1\r\nhost: h\r\n\r\n"], ids=["hot", "cold"])
async def test_when_the_process_leaves_a_kept_connection_is_answered_once_more_and_told_so(
    door: Door, last: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    async with asyncio.timeout(30):
        writer.write(ask())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
        for connection in list(door.connections):
            connection.leave()
        writer.write(last)
        reply = await reader.read()
    writer.close()
    assert reply.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close\r\n" in reply.partition(b"\r\n\r\n")[0] + b"\r\n"


async def test_more_pipelined_requests_than_slots_are_all_answered(door: Door) -> None:
    count = SLOTS_MAX * 5
    sent = b"".join(
        ask(body=orjson.dumps({**orjson.loads(BODY), "id": str(i)}), extra=LAST if i == count - 1 else b"")
        for i in range(count)
    )
    reply = await door.talk(sent)
    ids = [int(part.split(b'"')[0]) for part in reply.split(b',"id":"')[1:]]
    assert ids == list(range(count))


async def test_what_the_hot_form_does_not_read_goes_the_ordinary_way_with_its_body(door: Door) -> None:
    assert b"POST /v2/models/line/infer 7" in await door.talk(ask(LAST, b"garbage"))
    chunked = (
        b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    assert b"POST /v2/models/line/infer 3" in await door.talk(chunked + b"3\r\nabc\r\n0\r\n\r\n")
    assert b"POST /v2/models/line/infer 2" in await door.talk(ask(LAST + b"x-runoff-explain: 1\r\n", b"{}"))
    old = b"POST /v2/models/line/infer HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}"
    assert b"POST /v2/models/line/infer 2" in await door.talk(old)


async def test_a_caller_that_waits_for_leave_to_send_gets_it(door: Door) -> None:
    reply = await door.talk(ask(LAST + b"expect: 100-continue\r\n"))
    assert reply.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


async def test_a_body_in_pieces_is_one_request(door: Door) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    sent = ask(LAST)
    for at in range(0, len(sent), 7):
        writer.write(sent[at : at + 7])
        await writer.drain()
        await asyncio.sleep(0)
    assert b"x-prediction-id" in await reader.read()
    writer.close()


REFUSED = {
    "length and chunked": b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "coding list": b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "coding twice": b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
    "length with sign": b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +1\r\n\r\na",
    "length of 2^63": b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9223372036854775808\r\n\r\n",
    "bare line feed": b"GET / HTTP/1.1\nhost: h\n\n",
    "folded header": b"GET / HTTP/1.1\r\nhost: h\r\nx: a\r\n b\r\n\r\n",
    "bad chunk end": b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\naX\r\n0\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "upgrade": b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"a" * 5000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nhost: h\r\n" + b"x: a\r\n" * 30 + b"\r\n",
    "long target": b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: h\r\n\r\n",
    "body above the bound": b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 10001\r\n\r\n",
    "cold body above the bound": b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 20001\r\n\r\n",
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(door: Door, case: str) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"
    reply = await door.talk(REFUSED[case] + smuggled)
    assert reply.split(b" ")[1] in (b"400", b"413", b"431"), reply[:200]
    assert reply.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in reply
    assert set(orjson.loads(reply.partition(b"\r\n\r\n")[2])) >= {"error", "code"}


async def test_answers_before_a_refusal_still_leave_first(door: Door) -> None:
    reply = await door.talk(ask() + REFUSED["two hosts"])
    assert reply.index(b"HTTP/1.1 200 OK") < reply.index(b"HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize(
    ("sent", "waited", "status"),
    [
        (b"POST /v2/models/line/infer HTTP/1.1\r\nhost", 11.0, b"408"),
        (HOT + b"\r\n{", 31.0, b"408"),
        (b"", 76.0, b""),
    ],
)
async def test_whoever_is_too_slow_is_told_and_closed(door: Door, sent: bytes, waited: float, status: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(sent)
    await writer.drain()
    while not door.connections or (sent and next(iter(door.connections))._phase == "idle"):  # noqa: ASYNC110 - bytes on a socket
        await asyncio.sleep(0.001)
    (connection,) = door.connections
    connection.sweep(connection._phase_since + waited - 2)
    assert not connection.transport.is_closing()
    connection.sweep(connection._phase_since + waited)
    reply = await reader.read()
    assert reply[9:12] == status
    writer.close()


async def test_a_caller_that_leaves_is_forgotten_and_the_next_one_served(door: Door) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(ask())
    await writer.drain()
    writer.transport.abort()
    assert b"x-prediction-id" in await door.talk(ask(LAST))
    del reader
    while door.plane.data.inflight:  # noqa: ASYNC110 - nobody waits for a caller that has gone
        await asyncio.sleep(0.001)


async def test_a_caller_that_leaves_costs_those_of_its_turn_nothing(door: Door) -> None:
    """What left is answered to nobody, with a status that HTTP has no phrase for."""
    model = next(iter(door.plane.data.table.endpoints.values())).champion.model
    model.rows_max, model._curve = 1, [0.002] * len(model._curve)  # on a thread, one after the other
    running, free = threading.Event(), threading.Event()
    run = model.session.run

    def held(*asked: Any) -> Any:
        running.set()
        free.wait(30)
        return run(*asked)

    model.session.run = held  # type: ignore[method-assign]
    first = asyncio.create_task(door.talk(HOT + b"connection: close\r\n\r\n" + BODY))
    await asyncio.to_thread(running.wait, 30)
    _, gone = await asyncio.open_connection("127.0.0.1", door.port)
    gone.write(HOT + b"\r\n" + BODY)
    last = asyncio.create_task(door.talk(HOT + b"connection: close\r\n\r\n" + BODY))
    for _ in range(500):
        if len(next(iter(door.plane.data._queues.values()), ())) == 2:
            break
        await asyncio.sleep(0.01)
    gone.close()
    await asyncio.sleep(0.05)
    free.set()
    assert [(await one).split(b"\r\n", 1)[0] for one in (first, last)] == [b"HTTP/1.1 200 OK"] * 2
    assert door.plane.totals().value("runoff_cancelled_total", endpoint="line") == 1


def statuses(plane: Plane) -> list[int]:
    return sorted(row.status for block in plane.blocks() for row in getattr(block, "requests", []))


async def test_a_deadline_that_passes_while_the_model_runs_is_answered_then(door: Door) -> None:
    staged = stage_linear(door.plane.artifacts)
    door.plane.serve({"champion": staged}, limits={"timeout_s": 0.4})
    model, held = hold(door.plane, staged)
    reply = await door.talk(ask(LAST))
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    answer = orjson.loads(body)
    assert (answer["code"], answer["error"]) == ("deadline_passed", "the deadline passed while the model ran")
    assert f"x-prediction-id: {answer['prediction_id']}" in head.decode()
    assert model.leases == 1
    held.let_go()
    await settled(door.plane, model)
    assert statuses(door.plane) == [504]


async def test_a_caller_that_leaves_while_the_model_runs_is_recorded_as_gone(door: Door) -> None:
    staged = stage_linear(door.plane.artifacts)
    door.plane.serve({"champion": staged}, limits={"timeout_s": 30})
    model, held = hold(door.plane, staged)
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(ask())
    await held.begun()
    writer.transport.abort()
    while door.connections:  # noqa: ASYNC110 - bytes on a socket
        await asyncio.sleep(0.001)
    held.let_go()
    await settled(door.plane, model)
    assert statuses(door.plane) == [499]
