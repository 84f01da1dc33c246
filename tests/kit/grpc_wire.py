"""The gRPC wire door without a socket, and the bytes that its callers send."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from gateway.keys.doorkeeper import OpenDoor
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.handlers import handlers as all_handlers
from gateway.rpc.wire.protocol import GrpcProtocol
from gateway.rpc.wire.shared import Shared
from gateway.settings import Limits
from tests.kit import http2
from tests.kit.plane import Plane

SERVICE = "/inference.GRPCInferenceService/"
START = http2.PREFACE + http2.settings() + http2.frame(http2.SETTINGS, http2.ACK)


class MemoryTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False
        self.is_aborted = False
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

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class WireDoor:
    """Makes connections; `settle` lets turns and tasks run, all of them once every connection is over."""

    def __init__(self, plane: Plane, limits: Limits, handlers: Sequence[grpc.GenericRpcHandler] = ()) -> None:
        self.plane = plane
        doorkeeper = OpenDoor()
        self.shared = Shared(plane.data, (*handlers, *all_handlers(plane.corridor, doorkeeper)), limits, doorkeeper)

    def connect(self) -> "Caller":
        protocol = GrpcProtocol(self.shared, asyncio.get_running_loop(), is_secure=False)
        caller = Caller(protocol, MemoryTransport())
        protocol.connection_made(caller.transport)
        return caller

    async def settle(self, *, is_over: bool = False) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        while self.plane.data.inflight or (is_over and self.shared.tasks):  # noqa: ASYNC110 - turns are what is waited for
            await asyncio.sleep(0)


class Caller:
    """One connection seen from its other end."""

    def __init__(self, protocol: GrpcProtocol, transport: MemoryTransport) -> None:
        self.protocol = protocol
        self.transport = transport

    def say(self, *sent: bytes) -> None:
        self.protocol.data_received(b"".join(sent))

    def sweep(self, later_s: float) -> None:
        """The server looks after its connections, so many seconds after the last byte."""
        self.protocol.sweep(self.protocol._http.now_s + later_s)

    @property
    def open_streams(self) -> int:
        return len(self.protocol._http.streams)

    @property
    def lingering(self) -> int:
        """Calls without a caller that are not over yet."""
        return self.protocol._lingering

    @property
    def fault(self) -> str | None:
        """The code with which the server ended the connection, None while it has not."""
        fault = self.protocol._http.fault
        return None if fault is None else fault.code.name

    @property
    def frames(self) -> list[http2.Frame]:
        """All that has come back so far."""
        return http2.read(bytes(self.transport.written))

    @property
    def answers(self) -> dict[int, http2.Answer]:
        return http2.answers(self.frames)

    def status(self, stream: int) -> dict[str, str]:
        """The last field section of a stream."""
        return dict(self.answers[stream].fields[-1])

    def messages(self, stream: int) -> list[bytes]:
        """The whole messages that came on a stream."""
        body, found = self.answers[stream].body, []
        while len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
            stop = 5 + int.from_bytes(body[1:5], "big")
            found.append(body[5:stop])
            body = body[stop:]
        return found

    async def ended(self, stream: int) -> None:
        """Until the stream's answer is complete, or the server has reset it."""
        async with asyncio.timeout(30):
            while True:
                answer = self.answers.get(stream)
                if answer is not None and (answer.is_ended or answer.reset is not None):
                    return
                await asyncio.sleep(0)

    def leave(self) -> None:
        """The connection is gone."""
        self.protocol.connection_lost(None)


def fields(path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The head of a call; a bare method is one of the inference service."""
    path = path if path.startswith("/") else SERVICE + path
    return [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc"), *more]


def framed(message: bytes, flag: int = 0) -> bytes:
    """A message behind its prefix."""
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def infer(rows: int = 1, **said: Any) -> bytes:
    """A ModelInfer of the kit's linear model, behind its prefix."""
    request = pb.ModelInferRequest(**{"model_name": "line", **said})
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    request.raw_input_contents.append(np.ones((rows, 2), np.float32).tobytes())
    return framed(request.SerializeToString())


SESSION = [
    http2.call(1, infer(), fields("ModelInfer")),
    http2.call(3, infer(3, id="a"), fields("ModelInfer", ("grpc-timeout", "5S"))),
    http2.call(5, framed(b""), fields("ServerLive")),
    http2.headers(7, fields=fields("ModelStreamInfer")) + http2.frame(http2.DATA, 0, 7, infer(2) + infer(1)[:30]),
    http2.frame(http2.DATA, http2.END_STREAM, 7, infer(1)[30:]),
    http2.call(9, framed(b"no", 1), fields("ModelInfer", ("grpc-encoding", "gzip"))),
    http2.headers(11, fields=fields("ModelInfer")) + http2.frame(http2.DATA, 0, 11, infer(50)[:100]),
    http2.frame(http2.DATA, http2.END_STREAM, 11, infer(50)[100:]),
    http2.headers(13, fields=fields("ModelInfer")),
    http2.rst_stream(13),
    http2.call(15, infer(), fields("ModelInfer")) + http2.rst_stream(15),
    http2.window_update(0, 1000) + http2.frame(http2.PING, payload=bytes(8)),
]
"""Calls of every kind, after START: stream 9 is answered INTERNAL, 13 and 15 are cancelled, all others succeed."""
