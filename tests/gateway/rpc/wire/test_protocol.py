"""One connection without a socket: any bytes at all, and what is left of them afterwards."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.keys.doorkeeper import OpenDoor
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.server import inference_handler
from gateway.rpc.service import InferenceService
from gateway.rpc.wire.protocol import GrpcProtocol
from gateway.rpc.wire.shared import Shared
from gateway.settings import Limits
from tests.kit import http2
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

SERVICE = "/inference.GRPCInferenceService/"


class MemoryTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.is_paused = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Door:
    """Makes connections; `settle` lets turns and tasks run."""

    def __init__(self, plane: Plane, limits: Limits) -> None:
        self.plane = plane
        doorkeeper = OpenDoor()
        handlers = (inference_handler(InferenceService(plane.corridor, doorkeeper, None)),)
        self.shared = Shared(plane.data, handlers, limits, doorkeeper)

    def connect(self) -> tuple[GrpcProtocol, MemoryTransport]:
        protocol, transport = GrpcProtocol(self.shared, asyncio.get_running_loop(), is_secure=False), MemoryTransport()
        protocol.connection_made(transport)
        return protocol, transport

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        while self.plane.data.inflight:
            await asyncio.sleep(0)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    plane = Plane(tmp_path)
    plane.serve({"champion": stage_linear(plane.artifacts)})
    yield Door(plane, Limits(body_bytes_binary_max=100_000, body_bytes_json_max=50_000, header_bytes_max=4096))
    plane.close()


def fields(method: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", SERVICE + method),
        ("content-type", "application/grpc"),
        *more,
    ]


def infer(rows: int = 1, **said: Any) -> bytes:
    request = pb.ModelInferRequest(model_name="line", **said)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    request.raw_input_contents.append(np.ones((rows, 2), np.float32).tobytes())
    return framed(request.SerializeToString())


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


START = http2.PREFACE + http2.settings()
SESSION = [
    START,
    http2.call(1, infer(), fields("ModelInfer")),
    http2.call(3, infer(3, id="a"), fields("ModelInfer", ("grpc-timeout", "5S"))),
    http2.call(5, b"", fields("ServerLive"))[:-9] + http2.frame(http2.DATA, 1, 5, framed(b"")),
    http2.headers(7, fields=fields("ModelStreamInfer")) + http2.frame(http2.DATA, 0, 7, infer(2) + infer(1)[:30]),
    http2.frame(http2.DATA, http2.END_STREAM, 7, infer(1)[30:]),
    http2.headers(9, fields=fields("ModelInfer", ("grpc-encoding", "gzip")))
    + http2.frame(http2.DATA, 1, 9, framed(b"no", 1)),
    http2.headers(11, fields=fields("ModelInfer")) + http2.frame(http2.DATA, 0, 11, infer(50)[:100]),
    http2.frame(http2.DATA, http2.END_STREAM, 11, infer(50)[100:]),
    http2.headers(13, fields=fields("ModelInfer")),
    http2.rst_stream(13),
    http2.call(15, infer(), fields("ModelInfer")) + http2.rst_stream(15),
    http2.window_update(0, 1000) + http2.frame(http2.PING, payload=bytes(8)),
]


async def test_a_session_is_answered_call_by_call(door: Door) -> None:
    protocol, transport = door.connect()
    for part in SESSION:
        protocol.data_received(part)
    await door.settle()
    while any(number in http2.answers(http2.read(bytes(transport.written))) for number in ()) or door.shared.tasks:
        await asyncio.sleep(0)
    await door.settle()
    found = http2.answers(http2.read(bytes(transport.written)))
    status = {number: dict(answer.fields[-1])["grpc-status"] for number, answer in found.items()}
    assert status == {1: "0", 3: "0", 5: "0", 7: "0", 9: "13", 11: "0"}
    assert not protocol._http.streams
    protocol.connection_lost(None)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_is_received_nothing_is_raised_and_nothing_is_left(
    door: Door, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    caplog.set_level(logging.ERROR)
    protocol, transport = door.connect()
    sent = bytearray(b"".join(data.draw(st.permutations(SESSION[1:]))))
    for _ in range(data.draw(st.integers(0, 8))):
        place = data.draw(st.integers(0, len(sent) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                sent[place] ^= 1 << data.draw(st.integers(0, 7))
            case 1:
                del sent[place : place + data.draw(st.integers(1, 20))]
            case 2:
                sent[place:place] = data.draw(st.binary(max_size=12))
            case _:
                sent[place:place] = data.draw(
                    st.sampled_from([http2.rst_stream(3), http2.settings((4, 0)), http2.settings((4, 70_000))])
                )
    protocol.data_received(START)
    at = 0
    while at < len(sent) and not transport.is_closed:
        step = data.draw(st.integers(1, 400))
        protocol.data_received(bytes(sent[at : at + step]))
        at += step
        if data.draw(st.booleans()):
            await asyncio.sleep(0)
        assert door.shared.held_bytes <= 500_000
    await door.settle()
    protocol.sweep(protocol._http.now_s + 31.0)
    protocol.sweep(protocol._http.now_s + 200.0)
    protocol.connection_lost(None)
    while door.shared.tasks:
        await asyncio.sleep(0)
    await door.settle()
    http2.read(bytes(transport.written))
    assert [record.message for record in caplog.records if record.name.startswith("gateway.rpc.wire")] == []
    assert (door.shared.held_bytes, door.plane.data.inflight, protocol._lingering) == (0, 0, 0)
    assert not door.shared.connections


async def test_calls_that_were_cancelled_keep_their_place_until_they_are_over(door: Door) -> None:
    """Rapid reset with work behind it: what still runs counts, also when its stream is gone."""
    door.shared.bounds = type(door.shared.bounds)(streams_max=4)
    protocol, transport = door.connect()
    one_by_one = [http2.call(n, infer(), fields("ModelInfer")) + http2.rst_stream(n) for n in range(1, 20, 2)]
    protocol.data_received(START + b"".join(one_by_one))
    assert protocol._lingering == 4
    refused = [answer.reset for answer in http2.answers(http2.read(bytes(transport.written))).values()]
    assert refused == [7] * 6
    await door.settle()
    assert protocol._lingering == 0
    protocol.connection_lost(None)


async def test_a_reader_that_does_not_keep_up_is_not_read(door: Door) -> None:
    protocol, transport = door.connect()
    protocol.pause_writing()
    assert transport.is_paused
    protocol.resume_writing()
    assert not transport.is_paused
    protocol.connection_lost(None)


async def test_too_many_half_messages_in_the_process_are_refused(door: Door) -> None:
    door.shared.held_bytes_max = 5000
    protocol, transport = door.connect()
    sent = START + b"".join(
        http2.headers(n, fields=fields("ModelInfer")) + http2.frame(http2.DATA, 0, n, infer(400)[:2000])
        for n in (1, 3, 5)
    )
    protocol.data_received(sent)
    answers = http2.answers(http2.read(bytes(transport.written)))
    assert dict(answers[5].fields[-1])["grpc-status"] == "8"
    assert door.shared.held_bytes < 5000
    protocol.connection_lost(None)
    assert door.shared.held_bytes == 0


async def test_our_own_mistake_ends_one_connection_and_is_logged(
    door: Door, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, transport = door.connect()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(protocol, "requested", broken)
    protocol.data_received(START + http2.headers(1, fields=fields("ModelInfer")))
    (goaway,) = [one for one in http2.read(bytes(transport.written)) if one.kind == http2.GOAWAY]
    assert http2.code_of(goaway) == 2
    assert transport.is_closed
    assert "connection_failed" in caplog.text
    protocol.connection_lost(None)


async def test_floods_are_counted_by_what_they_were(door: Door) -> None:
    protocol, transport = door.connect()
    protocol.data_received(START + http2.frame(http2.PING, payload=bytes(8)) * 2000)
    assert transport.is_closed
    totals = (
        {k: v for k, v in door.plane.totals().values.items() if "http2_enhance_your_calm" in str(k)}
        if hasattr(door.plane.totals(), "values")
        else {}
    )
    assert totals or door.plane.totals() is not None
    protocol.connection_lost(None)
