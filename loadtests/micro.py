"""Processor time of each room of the hot path, without sockets: `python -m loadtests.micro [--requests 32] [--turns 4000]`.

A whole data plane (real model, spool, counters) behind the wire door's own protocol, one request a connection and turn. Each room is timed
a turn at a time; of all turns the fastest tenth counts, since other processes only ever add. The yardstick is what a plain handler does
for the same request in the same process and run: read the JSON, make an array, run the model, write the JSON. A room's budget is a share of it.
"""

# ruff: noqa: SLF001  # a room is timed by calling what the turn calls
import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import orjson
from uvicorn.config import Config
from uvicorn.server import ServerState

import gateway.dataplane
from gateway.rest.protocol import WireProtocol
from gateway.settings import Limits
from loadtests.loaded_models import gbm
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey
from tests.kit.plane import Plane
from tests.kit.staged import write

BUDGETS = {
    "decode": 0.55,
    "think": 0.25,
    "batch": 0.30,
    "record": 0.25,
    "encode": 0.30,
    "all": 1.60,
}
"""Of the yardstick, with 32 requests a turn. `decode`: head, JSON, checks; `think`: id, split, admission; `record` with the counters."""
UNITS = 5_000


def main() -> int:
    """Prints the table; 1 where a budget is exceeded with 32 requests a turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, action="append", help="requests a turn, default 1, 8 and 32")
    parser.add_argument("--turns", type=int, default=4000)
    options = parser.parse_args()
    sizes = options.requests or [1, 8, 32]
    measured = {size: asyncio.run(measure(size, options.turns)) for size in sizes}
    print(f"| µs a request | {' | '.join(f'{size} a turn' for size in sizes)} | budget at 32 |")
    print("|---|" + "---|" * (len(sizes) + 1))
    over = []
    for room in ("yardstick", *BUDGETS):
        budget = BUDGETS.get(room, 0) * measured[sizes[-1]]["yardstick"]
        cells = " | ".join(f"{measured[size][room]:.2f}" for size in sizes)
        print(f"| {room} | {cells} | {f'{budget:.2f}' if budget else ''} |")
        if budget and sizes[-1] == 32 and measured[32][room] > budget:
            over.append(room)
    if over:
        print(f"over budget: {', '.join(over)}", file=sys.stderr)
    return bool(over)


async def measure(size: int, turns: int) -> dict[str, float]:
    """Microseconds a request by room, with `size` requests in each turn."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path, rows = gbm(work)
        plane, body = planed(work, path, rows[0])
        try:
            return {"yardstick": plain(path, body)} | rooms(plane, body, size, turns)
        finally:
            plane.close()


def planed(work: Path, path: Path, row: np.ndarray[Any, Any]) -> tuple[Plane, bytes]:
    """A data plane with the model as an endpoint with a sticky unit, and a request's body."""
    model = onnx.load(path)
    graph, label, scores = model.graph, model.graph.output[0].name, model.graph.output[1].name
    signature = Signature(
        inputs=(TensorSpec(name=graph.input[0].name, datatype="FP32", shape=(-1, len(row))),),
        outputs=(
            TensorSpec(name=label, datatype="INT64", shape=(-1,)),
            TensorSpec(name=scores, datatype="FP32", shape=(-1, 2)),
        ),
    )
    answer = Answer(kind="classification", label_output=label, score_output=scores, classes=(0, 1))
    plane = Plane(work, spool_bytes_max=1 << 33)
    opsets = list(model.opset_import)
    staged = [write(plane.artifacts, graph, signature, answer, ModelKey("gbm", v), opsets=opsets) for v in "12"]
    variants = [
        {"name": name, "model": one.uri, "weight": 1 - at}
        for at, (name, one) in enumerate(zip(("a", "b"), staged, strict=True))
    ]
    plane.serve(dict(zip(("a", "b"), staged, strict=True)), variants=variants, unit={"header": "x-user-id"})
    values = [round(float(value), 4) for value in row]
    tensor = {"name": signature.inputs[0].name, "shape": [1, len(row)], "datatype": "FP32", "data": values}
    return plane, orjson.dumps({"inputs": [tensor]})


class Nowhere:
    """A transport that takes everything."""

    def write(self, data: bytes) -> None:
        """Nothing."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_extra_info(self, name: str) -> None:
        """Nothing is known."""


def rooms(plane: Plane, body: bytes, size: int, turns: int) -> dict[str, float]:
    """The turns of the plane, called by hand."""
    data: Any = plane.data
    data._schedule = lambda: None  # the turn is ours
    protocol = WireProtocol.bind(data, plane.paths, Limits())
    config, state = Config(nobody), ServerState()
    config.load()
    connections = []
    for _ in range(size):
        made: Any = protocol(config, state, {})
        made.connection_made(Nowhere())
        connections.append(made)
    head = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\nx-user-id: user-%d\r\ncontent-length: %d\r\n\r\n"
    requests = [head % (unit, len(body)) + body for unit in range(UNITS)]
    spent: dict[str, int] = dict.fromkeys(BUDGETS, 0)
    for room, owner, name in (
        ("think", data, "_admit"),
        ("batch", data, "_cut"),
        ("batch", gateway.dataplane, "run"),
        ("record", data._recorder, "add"),
        ("record", data._recorder, "flush"),
        ("record", data.meter, "finished"),
        ("encode", data._replies, "now"),
    ):
        setattr(owner, name, timed(getattr(owner, name), spent, room))
    seen: list[dict[str, int]] = []
    at = 0
    for _ in range(turns):
        spent.update(dict.fromkeys(spent, 0))
        began = time.perf_counter_ns()
        for connection in connections:
            connection.data_received(requests[at])
            at = (at + 1) % UNITS
        spent["decode"] = time.perf_counter_ns() - began
        data._turn()
        spent["all"] = time.perf_counter_ns() - began
        seen.append(dict(spent))
    seen = sorted(seen[len(seen) // 5 :], key=lambda one: one["all"])[: max(1, len(seen) // 10)]
    return {room: statistics.median(one[room] for one in seen) / size / 1e3 for room in BUDGETS}


def timed(function: Callable[..., Any], spent: dict[str, int], room: str) -> Callable[..., Any]:
    """The function, its time added to the room's."""

    def call(*arguments: Any) -> Any:
        began = time.perf_counter_ns()
        try:
            return function(*arguments)
        finally:
            spent[room] += time.perf_counter_ns() - began

    return call


def plain(path: Path, body: bytes, times: int = 2000) -> float:
    """Microseconds of the plain handler's own work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    name = session.get_inputs()[0].name
    took = []
    for _ in range(times):
        began = time.perf_counter_ns()
        tensor = orjson.loads(body)["inputs"][0]
        results = session.run(None, {name: np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])})
        orjson.dumps({"outputs": [{"shape": result.shape, "data": result.ravel().tolist()} for result in results]})
        took.append(time.perf_counter_ns() - began)
    return statistics.median(sorted(took)[: times // 10]) / 1e3


async def nobody(_scope: Any, _receive: Any, _send: Any) -> None:
    """No request of this benchmark is cold."""
    raise AssertionError


if __name__ == "__main__":
    sys.exit(main())
