"""The two gRPC listeners side by side: our wire door against grpcio's asyncio server, the same model and the same data plane behind both.

    python -m loadtests.grpc_doors [--windows 5] [--seconds 2] [--load 32x1 --load 1x32]

Both servers run in their own processes on one core, the generator (h2load, from nghttp2) on another; windows alternate, so that a
machine that drifts drifts for both, and the answer is the ratio of the medians. Before any load 200 rows go through each door with
grpcio's own client and are compared with ONNX Runtime. Everything is on: validation, split, records, metrics, spool.
Results: `loadtests/results/grpc_doors.md`.
"""

import argparse
import asyncio
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import onnxruntime

from gateway.rpc import open_inference_pb2 as pb
from loadtests.loaded_models import GBM_COLUMNS as COLUMNS
from loadtests.loaded_models import gbm
from loadtests.machine import machine
from loadtests.windows import Window, h2load

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
DOORS: Final = ("wire", "grpcio")
ROWS_CHECKED: Final = 200
RESULTS: Final = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=5, help="measured windows for each door and load")
    parser.add_argument("--seconds", type=int, default=2, help="seconds of one window")
    parser.add_argument("--load", action="append", help="connections x streams on each, e.g. 32x1")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--serve", choices=DOORS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        return _serve(options.serve, options.folder, options.server_core)
    with tempfile.TemporaryDirectory() as folder:
        return _compare(options, Path(folder))


# ── the servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _serve(door: str, folder: Path, core: int) -> int:
    """One server with one endpoint, until its standard input ends. Prints its port; then its CPU seconds for each line that it reads."""
    import uvloop

    os.sched_setaffinity(0, {core})

    async def run() -> None:
        from gateway.settings import Settings
        from tests.kit.plane import Plane

        plane = Plane(folder / door, spool_bytes_max=1 << 33)
        plane.serve({"champion": _staged(plane.artifacts)}, endpoint="gbm")
        settings = Settings(state_dir=str(folder / door))
        server: Any
        if door == "wire":
            from gateway.rpc.wire.server import serve as serve_wire

            server = await serve_wire(plane.data, plane.corridor, socket.create_server(("127.0.0.1", 0)), settings)
        else:
            from gateway.rpc.server import serve

            server = await serve(plane.corridor, "127.0.0.1:0", settings)
        print(server.port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            used = resource.getrusage(resource.RUSAGE_SELF)
            print(used.ru_utime + used.ru_stime, flush=True)
        await server.stop(1.0)
        plane.close()

    uvloop.run(run())
    return 0


def _staged(artifacts: Path) -> Any:
    """The small model of PERFORMANCE.md."""
    from models.signature import Answer, Signature, TensorSpec
    from models.staged import ModelKey, StagedModel

    with tempfile.TemporaryDirectory() as folder:
        content = gbm(Path(folder))[0].read_bytes()
    digest = sha256(content).hexdigest()
    staged = StagedModel(
        key=ModelKey("gbm", "1"),
        digest=digest,
        uri="models:/gbm/1",
        flavor="onnx",
        file="model.onnx",
        file_sha256=digest,
        size_bytes=len(content),
        signature=Signature(
            inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, COLUMNS)),),
            outputs=(
                TensorSpec(name="label", datatype="INT64", shape=(-1,)),
                TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
            ),
        ),
        answer=Answer(kind="classification"),
    )
    (artifacts / digest).mkdir(parents=True)
    (artifacts / digest / "model.onnx").write_bytes(content)
    staged.write(artifacts / digest)
    return staged


class Server:
    """A door in a process of its own."""

    def __init__(self, door: str, folder: Path, core: int) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "loadtests.grpc_doors",
                "--serve",
                door,
                "--folder",
                folder,
                "--server-core",
                str(core),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._line())

    def cpu_s(self) -> float:
        """Processor seconds used so far."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._line())

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start")
        return line


# ── the comparison ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compare(options: argparse.Namespace, folder: Path) -> int:
    servers = {door: Server(door, folder, options.server_core) for door in DOORS}
    body = folder / "body"
    lines = [
        "# The gRPC doors side by side",
        "",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, CPython {platform.python_version()}, grpcio {grpc.__version__}; "
            f"`python -m loadtests.grpc_doors --windows {options.windows} --seconds {options.seconds}`."
        ),
        "",
        "| connections x streams | door | requests/s | p50 µs | p99 µs | processor µs/request | the wire door is |",
        "|---|---|---|---|---|---|---|",
    ]
    try:
        for door, server in servers.items():
            reply_bytes = _check(server.port, folder / door)
        message = _request(np.linspace(0, 30, COLUMNS, dtype=np.float32).reshape(1, -1)).SerializeToString()
        body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        for load in options.load or ["32x1", "1x32", "1x1"]:
            lines += _compare_load(options, load, servers, body, reply_bytes)
    finally:
        for server in servers.values():
            server.stop()
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "grpc_doors.md").write_text(text)
    print(text)
    return 0


def _compare_load(
    options: argparse.Namespace, load: str, servers: dict[str, Server], body: Path, reply_bytes: int
) -> list[str]:
    """A line of the table for each door. Raises RuntimeError where a reply was no success, which shows in its size."""
    windows: dict[str, list[Window]] = {door: [] for door in DOORS}
    costs: dict[str, list[float]] = {door: [] for door in DOORS}
    connections, streams = map(int, load.split("x"))
    for _ in range(options.windows):
        for door, server in servers.items():
            before_s = server.cpu_s()
            url = f"http://127.0.0.1:{server.port}{METHOD}"
            window = h2load(
                url, body, connections=connections, streams=streams, seconds=options.seconds, core=options.client_core
            )
            if abs(window.data_bytes - window.count * reply_bytes) > connections * streams * reply_bytes:
                raise RuntimeError(f"{door}: {window.data_bytes} bytes in {window.count} replies of {reply_bytes}")
            windows[door].append(window)
            costs[door].append((server.cpu_s() - before_s) / window.count * 1e6)
    lines = []
    for door in DOORS:
        seen = windows[door]
        rate, p50, p99 = (
            statistics.median(getattr(one, what) for one in seen) for what in ("rate", "p50_us", "p99_us")
        )
        ratio = statistics.median(ours.rate / one.rate for ours, one in zip(windows["wire"], seen, strict=True))
        cost = statistics.median(costs[door])
        lines.append(f"| {load} | {door} | {rate:,.0f} | {p50:,.0f} | {p99:,.0f} | {cost:.1f} | {ratio:.1f} × |")
    return lines


def _check(port: int, folder: Path) -> int:
    """Many callers at once, each with its own row: everyone gets what ONNX Runtime says of that row. The bytes of a reply's DATA."""
    (path,) = (folder / "artifacts").glob("*/model.onnx")
    session = onnxruntime.InferenceSession(path)
    rows = np.random.default_rng(7).normal(15, 10, (ROWS_CHECKED, COLUMNS)).astype(np.float32)
    wanted = session.run(None, {"X": rows})[1]

    async def ask() -> list[pb.ModelInferResponse]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer: Callable[..., Any] = channel.unary_unary(
                METHOD,
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            return await asyncio.gather(*(infer(_request(row.reshape(1, -1)), timeout=10) for row in rows))

    replies = asyncio.run(ask())
    got = np.frombuffer(b"".join(reply.raw_output_contents[1] for reply in replies), np.float32).reshape(-1, 2)
    if not np.allclose(got, wanted, atol=1e-6):
        raise RuntimeError("the answers are not those of ONNX Runtime")
    return 5 + replies[0].ByteSize()


def _request(rows: np.ndarray[Any, np.dtype[np.float32]]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="gbm")
    request.inputs.add(name="X", datatype="FP32", shape=rows.shape)
    request.raw_input_contents.append(rows.tobytes())
    return request


if __name__ == "__main__":
    sys.exit(main())
