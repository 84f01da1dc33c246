"""A soak of the gRPC wire door with rude real callers: grpcio's clients that cancel, expire, stream, burst and leave.

    python -m loadtests.grpc_soak [--seconds 60] [--callers 12] [--seed 1]

The server is a process of its own, on uvloop, as in a worker. Every answer that comes must be right; afterwards nothing may be left of the
calls: no connection, task, ticket, held or unsent byte. Prints how the calls ended, and the server's memory before and after.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import uvloop

from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.wire.server import serve
from gateway.settings import Settings
from tests.kit.plane import Plane
from tests.kit.staged import stage_dense, stage_linear

SERVICE = "/inference.GRPCInferenceService/"
LEFT = ("connections", "tasks", "held_bytes", "unsent_bytes", "inflight")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--callers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    return uvloop.run(_serve()) if options.serve else asyncio.run(_soak(options))


async def _serve() -> int:
    """The server, until its standard input ends. Prints its port; then what it holds for each line that it reads."""
    with tempfile.TemporaryDirectory() as folder:
        plane = Plane(Path(folder), spool_bytes_max=1 << 33)
        plane.serve({"champion": stage_linear(plane.artifacts)})
        plane.serve({"champion": stage_linear(plane.artifacts, name="wide", columns=50_000)}, endpoint="wide")
        plane.serve({"champion": stage_dense(plane.artifacts, width=512, layers=4)}, endpoint="slow")
        sock = socket.create_server(("127.0.0.1", 0))
        server = await serve(plane.data, plane.corridor, sock, Settings(state_dir=folder))
        print(server.port, flush=True)
        shared = server._shared  # noqa: SLF001  # what nobody but a soak wants to know
        while await asyncio.to_thread(sys.stdin.readline):
            held = (server.connections, len(shared.tasks), shared.held_bytes, shared.unsent.bytes, plane.data.inflight)
            memory_mb = psutil.Process().memory_info().rss >> 20
            print(json.dumps({**dict(zip(LEFT, held, strict=True)), "memory_mb": memory_mb}), flush=True)
        await server.stop(1.0)
        plane.close()
    return 0


class Caller:
    """One caller after another, each with a connection of its own, until the time is up. `ends` counts how their calls ended."""

    def __init__(self, port: str, seed: int, until_s: float, ends: "Counter[str]") -> None:
        self._address = f"127.0.0.1:{port}"
        self._chance = random.Random(seed)
        self._until_s = until_s
        self._ends = ends
        self._bodies = [_request(1, 2, "line"), _request(20, 50_000, "wide"), _request(500, 512, "slow")]

    async def run(self) -> None:
        while time.monotonic() < self._until_s:
            async with self._channel() as channel:
                for _ in range(self._chance.randrange(1, 60)):
                    try:
                        self._ends[await self._call(channel)] += 1
                    except asyncio.CancelledError:
                        self._ends["cancelled"] += 1
                    except grpc.aio.AioRpcError as error:
                        self._ends[error.code().name] += 1

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            yield channel

    async def _call(self, channel: grpc.aio.Channel) -> str:
        chance = self._chance
        infer = channel.unary_unary(SERVICE + "ModelInfer", response_deserializer=pb.ModelInferResponse.FromString)
        body = chance.choices(self._bodies, (20, 1, 1))[0]
        match chance.choices(("whole", "cancelled", "expired", "stream", "burst"), (60, 15, 10, 10, 5))[0]:
            case "whole":
                _check(await infer(body, timeout=20))
                return "answered"
            case "cancelled":
                call = infer(body, timeout=20)
                await asyncio.sleep(chance.random() * 0.01)
                call.cancel()
                await call
                return "answered before it was cancelled"
            case "expired":
                await infer(body, timeout=chance.random() * 0.01)
                return "answered in time"
            case "stream":
                return await self._stream(channel, chance.randrange(1, 20))
            case _:
                for reply in await asyncio.gather(*(infer(self._bodies[0], timeout=20) for _ in range(50))):
                    _check(reply)
                return "burst of 50 answered"

    async def _stream(self, channel: grpc.aio.Channel, count: int) -> str:
        call: Any = channel.stream_stream(SERVICE + "ModelStreamInfer")(timeout=20)
        for _ in range(count):
            await call.write(self._bodies[0])
        if self._chance.random() < 0.5:
            call.cancel()
            return "stream left"
        await call.done_writing()
        if len([message async for message in call]) != count:
            raise RuntimeError("a stream with other than one reply for each request")
        return "stream answered"


async def _soak(options: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "loadtests.grpc_soak", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: ASYNC220  # before any load
        assert server.stdin is not None
        assert server.stdout is not None
        port = server.stdout.readline().strip()

        def holds() -> dict[str, int]:
            print(file=server.stdin, flush=True)
            found: dict[str, int] = json.loads(server.stdout.readline())  # type: ignore[union-attr]
            return found

        before, ends, until_s = holds(), Counter[str](), time.monotonic() + options.seconds
        callers = (Caller(port, options.seed + number, until_s, ends) for number in range(options.callers))
        await asyncio.gather(*(caller.run() for caller in callers))
        await asyncio.sleep(2)  # what was cancelled last ends
        after = holds()
        server.stdin.close()
    print(f"{sum(ends.values())} calls: {dict(ends.most_common())}")
    print(
        f"memory {before['memory_mb']} MB before, {after['memory_mb']} MB after; left: {[after[name] for name in LEFT]}"
    )
    odd = set(ends) & {"UNAVAILABLE", "INTERNAL", "UNKNOWN", "INVALID_ARGUMENT", "DATA_LOSS"}
    return 1 if odd or any(after[name] for name in LEFT) else 0


def _request(rows: int, columns: int, model: str) -> bytes:
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, columns])
    request.raw_input_contents.append(np.ones((rows, columns), np.float32).tobytes())
    return request.SerializeToString()


def _check(reply: pb.ModelInferResponse) -> None:
    if len(reply.outputs) != len(reply.raw_output_contents) or not reply.outputs:
        raise RuntimeError(f"a reply without its outputs: {reply.outputs}")


if __name__ == "__main__":
    sys.exit(main())
