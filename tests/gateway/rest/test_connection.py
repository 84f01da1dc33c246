"""One connection over a transport that is as slow as the test wants: what is read, what waits, what is cut off."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.rest import protocol
from gateway.rest.connection import SLOTS_MAX
from gateway.rest.protocol import WireProtocol
from gateway.settings import Limits
from tests.kit.held import hold, settled
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

BODY = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]})
HOT = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n"
ASK = HOT % len(BODY) + BODY
GARBAGE = b"\x16\x03\x01\r\n\r\n"
HIGH_WATER = 65536
OK, REFUSED = b"HTTP/1.1 200 OK", b"HTTP/1.1 400 Bad Request"


class Wire:
    """A transport whose peer takes what is written only when the test says so."""

    def __init__(self, made: Any) -> None:
        self.connection = made
        self.is_reading = True
        self.written = b""
        self.pending = 0
        self.is_closed = self.is_aborted = False
        made.connection_made(self)

    def write(self, data: bytes) -> None:
        self.written += data
        was, self.pending = self.pending, self.pending + len(data)
        if was <= HIGH_WATER < self.pending:
            self.connection.pause_writing()

    def take(self, size: int) -> None:
        """The peer reads so many bytes."""
        was, self.pending = self.pending, self.pending - size
        if self.pending <= HIGH_WATER // 4 and self.connection.flow.write_paused:
            self.connection.resume_writing()
        assert was >= size

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return self.pending

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def get_extra_info(self, _: str) -> None: ...

    @property
    def statuses(self) -> list[bytes]:
        return re.findall(rb"HTTP/1\.1 [^\r]+", self.written)


class Door:
    """A plane behind the wire door, and what its ASGI app was asked."""

    def __init__(self, plane: Plane, limits: Limits) -> None:
        self.plane = plane
        self.limits = limits
        self.asked: list[tuple[dict[str, Any], bytes]] = []
        self.answer = b"cold"
        self._config = Config(self._app, interface="asgi3", proxy_headers=False, log_config=None)
        self._config.load()
        self._protocol = WireProtocol.bind(plane.data, plane.paths, limits)

    def connect(self) -> Wire:
        return Wire(self._protocol(self._config, ServerState(), {}))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.asked.append((scope, body))
        length = str(len(self.answer)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": self.answer})


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    plane = Plane(tmp_path)
    plane.serve({"champion": stage_linear(plane.artifacts)})
    yield Door(plane, Limits(body_bytes_json_max=1 << 20, inflight_bytes_max=300_000))
    plane.close()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_caller_that_takes_no_replies_is_read_no_further_however_it_pipelines(door: Door) -> None:
    wire = door.connect()
    batch = ASK * 400
    for _ in range(5):
        if wire.is_reading:
            wire.connection.data_received(batch)
        await turns(200)
    assert wire.written.count(OK) == 400
    assert not wire.is_reading
    wire.take(wire.pending)
    assert wire.is_reading


async def test_a_cold_answer_does_not_undo_that(door: Door) -> None:
    wire = door.connect()
    door.answer = b"x" * 2 * HIGH_WATER
    wire.connection.data_received(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\nGET /b HTTP/1.1\r\nhost: h\r\n\r\n")
    await turns()
    assert not wire.is_reading
    assert wire.statuses == [b"HTTP/1.1 200 OK"]
    wire.take(wire.pending)
    await turns()
    wire.take(wire.pending)
    assert wire.statuses == [b"HTTP/1.1 200 OK"] * 2
    assert wire.is_reading


async def test_who_takes_nothing_of_his_replies_is_cut_off_and_who_is_only_slow_is_not(door: Door) -> None:
    stuck, slow, idle = door.connect(), door.connect(), door.connect()
    for wire in (stuck, slow):
        wire.connection.data_received(ASK * 10)
    await turns()
    slow.take(1)
    now = stuck.connection._phase_since
    for step in range(120):
        for wire in (stuck, slow, idle):
            wire.connection.sweep(now + step)
        slow.take(1)
        assert stuck.is_aborted == (step > door.limits.body_s)
    assert not slow.is_aborted
    assert idle.is_closed
    assert not idle.is_aborted


async def test_a_connection_that_waits_for_its_last_reply_to_be_taken_is_refused_once(door: Door) -> None:
    wire = door.connect()
    wire.connection.data_received(b"POST /v2/models/line/infer HTTP/1.1\r\nhost")
    now = wire.connection._phase_since
    for step in range(11, 20):
        wire.connection.sweep(now + step)
    assert wire.statuses == [b"HTTP/1.1 408 Request Timeout"]
    assert door.plane.totals().value("runoff_refused_total", endpoint="", reason="request_too_slow") == 1


async def test_time_in_which_we_did_not_read_is_not_the_callers(door: Door) -> None:
    staged = stage_linear(door.plane.artifacts)
    model, held = hold(door.plane, staged)
    wire = door.connect()
    wire.connection.data_received(ASK * (SLOTS_MAX + 1) + ASK[:-5])
    await turns()
    now = wire.connection._phase_since
    for step in range(60):
        wire.connection.sweep(now + step)
    assert wire.written == b""
    held.let_go()
    await settled(door.plane, model)
    await turns()
    wire.connection.sweep(time.monotonic() + 1)
    assert wire.statuses == [OK] * (SLOTS_MAX + 1)
    wire.connection.data_received(ASK[-5:])
    await settled(door.plane, model)
    await turns()
    assert wire.statuses == [OK] * (SLOTS_MAX + 2)


@pytest.mark.parametrize("count", [1, SLOTS_MAX, SLOTS_MAX + 4, 2 * SLOTS_MAX, 3 * SLOTS_MAX])
async def test_all_that_was_asked_before_garbage_is_answered_before_its_refusal(door: Door, count: int) -> None:
    wire = door.connect()
    wire.connection.data_received(ASK * count + GARBAGE)
    await turns(100)
    assert wire.statuses == [OK] * count + [REFUSED]
    assert wire.is_closed


COLD = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"
BROKEN = b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nz\r\n"


@pytest.mark.parametrize("bad", [GARBAGE, BROKEN], ids=["garbage", "broken body"])
@pytest.mark.parametrize("asked", [[COLD], [COLD] * 3, [ASK, COLD], [ASK] * 20 + [COLD] * 2, [COLD, ASK], []])
async def test_the_refusal_is_behind_what_the_application_answers_too(
    door: Door, asked: list[bytes], bad: bytes
) -> None:
    wire = door.connect()
    wire.connection.data_received(b"".join(asked) + bad)
    await turns(100)
    assert wire.statuses == [OK] * len(asked) + [REFUSED]
    assert (
        wire.written.count(b"cold")
        == len(door.asked)
        == len([one for one in asked if one is COLD]) + (asked == [COLD, ASK])
    )
    assert wire.is_closed


async def test_an_upload_that_arrives_while_the_process_leaves_is_answered(door: Door) -> None:
    wire = door.connect()
    wire.connection.data_received(ASK[:-9])
    wire.connection.leave()
    wire.connection.shutdown()
    assert not wire.is_closed
    wire.connection.data_received(ASK[-9:])
    await turns()
    assert wire.statuses == [OK]
    assert b"\r\nconnection: close\r\n" in wire.written
    assert wire.is_closed


async def test_a_trailer_is_no_header(door: Door) -> None:
    wire = door.connect()
    head = b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    wire.connection.data_received(head + b"3\r\nabc\r\n0\r\nX-Runoff-Variant: b\r\nAuthorization: Bearer k\r\n\r\n")
    await turns()
    ((scope, body),) = door.asked
    assert body == b"abc"
    assert [name for name, _ in scope["headers"]] == [b"host", b"transfer-encoding"]


async def test_trailers_are_bounded_with_the_headers(door: Door) -> None:
    wire = door.connect()
    head = b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    wire.connection.data_received(head + b"a: %b\r\n\r\n" % (b"b" * door.limits.header_bytes_max))
    await turns()
    assert wire.statuses[-1].startswith(b"HTTP/1.1 431")
    assert wire.is_closed


def large(size: int) -> bytes:
    """A request with a body of so many bytes that is read here, and is none."""
    return HOT % size + b"x" * size


async def test_large_bodies_on_their_way_are_bounded_over_all_connections(door: Door) -> None:
    """What is announced and does not come counts nothing, so nobody keeps others out with that."""
    first, second, third = door.connect(), door.connect(), door.connect()
    admission = door.plane.data.admission
    admission._bytes_max = 300_000
    for wire in (first, second):
        request = large(200_000)
        wire.connection.data_received(request[:1000])
    assert admission._heavy_bytes == 0
    first.connection.data_received(b"x" * 150_000)
    third.connection.data_received(large(200_000)[:1000])  # no room for it now: the ordinary path says so
    assert (admission._heavy_bytes > 150_000, first.written, third.connection.cycle is not None) == (True, b"", True)
    second.connection.data_received(b"x" * 160_000)
    answer = orjson.loads(second.written.partition(b"\r\n\r\n")[2])
    assert second.statuses == [b"HTTP/1.1 503 Service Unavailable"]
    assert b"\r\nx-runoff-reason: process_bound\r\n" in second.written
    assert (answer["code"], second.is_closed) == ("not_ready", True)
    first.connection.connection_lost(None)
    assert admission._heavy_bytes == 0
    third.connection.connection_lost(None)


async def test_a_large_body_is_given_back_when_it_is_a_request(door: Door) -> None:
    staged = stage_linear(door.plane.artifacts, columns=4000)
    door.plane.serve({"champion": staged})
    tensor = {"name": "x", "shape": [6, 4000], "datatype": "FP32", "data": [0.12345] * 24_000}
    body = orjson.dumps({"inputs": [tensor]})
    request = HOT % len(body) + body
    wire = door.connect()
    for at in range(0, len(request), 50_000):
        wire.connection.data_received(request[at : at + 50_000])
    await turns()
    assert wire.statuses == [OK]
    assert door.plane.data.admission._heavy_bytes == 0


async def test_an_answer_that_cannot_be_written_is_a_500_and_those_behind_it_are_answered(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, seen = protocol.wire.encode, iter((False, True, False))
    monkeypatch.setattr(protocol.wire, "encode", lambda ticket: 1 / 0 if next(seen) else encode(ticket))
    wire = door.connect()
    wire.connection.data_received(ASK * 3)
    await turns()
    assert wire.statuses == [OK, b"HTTP/1.1 500 Internal Server Error", OK]
    assert b"division" not in wire.written


async def test_a_mistake_of_ours_while_reading_costs_only_the_request_that_met_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, seen = protocol.wire.decode, iter((False, True))
    monkeypatch.setattr(protocol.wire, "decode", lambda *given: 1 / 0 if next(seen) else decode(*given))
    wire = door.connect()
    wire.connection.data_received(ASK * 2)
    await turns()
    assert wire.statuses == [OK, b"HTTP/1.1 500 Internal Server Error"]
    assert wire.is_closed


async def test_a_body_that_is_no_text_costs_those_before_it_nothing(door: Door) -> None:
    wire = door.connect()
    wire.connection.data_received(ASK + ASK.replace(b'"x"', b'"\xff"'))
    await turns()
    assert wire.statuses == [OK, OK]
    assert len(door.asked) == 1
