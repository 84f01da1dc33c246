"""`make bench`: our REST door against its floors and against itself, side by side in one run: `python -m loadtests.bench [--scene rest …]`.

One worker on core 0; control, shadow, supervisor and the load generator (wrk, one thread) on core 1, unless the scene says else. The
rounds alternate between the contenders, so that a machine whose speed drifts moves all of them alike; what counts is the median of the
rounds' ratios. Before any load every contender's answer is compared with ONNX Runtime's own. A run of all scenes writes `loadtests/results/rest.md`.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import onnxruntime

from loadtests.loaded_models import gbm, mlp, pixels
from loadtests.machine import cpu_s, free_port, machine, memory_mb, pin, until
from loadtests.whole_gateway import ROOT, gateway
from loadtests.windows import UNITS, post_script, wrk

RESULTS = Path(__file__).parent / "results"
_REPEATED_BYTES = 10_000
"""Larger requests are kept once, without different units: the generator holds all of them in memory."""
STICKY = {"unit": {"header": "x-user-id"}}


@dataclass
class Contender:
    """A server under one load. `pids` are those whose processor time counts as the server's own, `others` what works beside them."""

    name: str
    url: str
    pids: list[int]
    others: list[int]
    script: Path
    rates: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    beside_us: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """`contenders` come up in an ExitStack of their own; the first is compared with each other one. `core` is the generator's."""

    title: str
    note: str
    connections: int
    contenders: Callable[[contextlib.ExitStack, Path], list[Contender]]
    core: str = "1"


def main() -> int:
    """Runs the scenes and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", action="append", choices=SCENES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is needed (Debian: apt-get install wrk)", file=sys.stderr)
        return 1
    tables = [
        (
            f"# REST\n\n{datetime.now(UTC):%Y-%m-%d}, {machine()}, CPython {platform.python_version()}; `make bench` "
            f"({arguments.rounds} alternating rounds of {arguments.seconds:g} s, medians). What is `beside` is the processor time that control, shadow "
            "and supervisor spend on core 1 for each request."
        )
    ]
    for name in arguments.scene or SCENES:
        tables.append(played(SCENES[name], arguments.rounds, arguments.seconds))
        print(tables[-1], end="\n\n")
    if not arguments.scene:
        tables.append(started(arguments.rounds))
        print(tables[-1])
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "rest.md").write_text("\n\n".join(tables) + "\n")
    return 0


def played(scene: Scene, rounds: int, seconds: float) -> str:
    """The table of one scene."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        contenders = scene.contenders(servers, Path(folder))
        for contender in contenders:
            load(scene, contender, 1, keep=False)
        for number in range(rounds):
            for contender in contenders:
                load(scene, contender, seconds)
            print(f"{scene.title}: round {number + 1} of {rounds}", file=sys.stderr)
    return table(scene, contenders)


def load(scene: Scene, contender: Contender, seconds: float, *, keep: bool = True) -> None:
    """One window of load; a reply that is not 2xx fails the benchmark."""
    before = cpu_s(contender.pids), cpu_s(contender.others)
    window = wrk(contender.url, contender.script, connections=scene.connections, seconds=seconds, core=scene.core)
    used, beside = cpu_s(contender.pids) - before[0], cpu_s(contender.others) - before[1]
    if keep:
        contender.rates.append(window.rate)
        contender.p50_us.append(window.p50_us)
        contender.p99_us.append(window.p99_us)
        contender.cpu_us.append(used / window.count * 1e6)
        contender.beside_us.append(beside / window.count * 1e6)


def table(scene: Scene, contenders: list[Contender]) -> str:
    """Medians, and how the first contender compares with the others."""
    first = contenders[0]
    lines = [
        f"## {scene.title}",
        "",
        scene.note,
        "",
        f"| | requests/s | p50 µs | p99 µs | processor µs/request | beside | {first.name} is |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in contenders:
        rate, p50, p99, cpu, beside = (
            statistics.median(values) for values in (one.rates, one.p50_us, one.p99_us, one.cpu_us, one.beside_us)
        )
        ratio = statistics.median(a / b for a, b in zip(first.rates, one.rates, strict=True))
        cells = f"{rate:,.0f} | {p50:,.0f} | {p99:,.0f} | {cpu:.1f} | {f'{beside:.1f}' if one.others else ''}"
        lines.append(f"| {one.name} | {cells} | {ratio:.2f} × |")
    return "\n".join(lines)


def started(rounds: int) -> str:
    """How long a gateway and a restarted worker take, and what a worker weighs."""
    ready, again, weight = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, rows = gbm(work)
        body = asked(work, model, rows[0]).with_suffix(".body").read_bytes()
        for number in range(rounds):
            with gateway(work / str(number), {"model": model}, STICKY) as running:
                url = f"{running.rest}/v2/models/model/infer"
                httpx.post(url, content=body)
                ready.append(running.ready_s)
                weight.append(memory_mb(running.workers))
                os.kill(running.workers[0], signal.SIGKILL)
                began = time.monotonic()
                until(lambda url=url: httpx.post(url, content=body, timeout=5).status_code == 200, pause_s=0.01)
                again.append(time.monotonic() - began)
    return "\n".join(
        [
            "## Start and memory, one small model",
            "",
            "| | median | worst |",
            "|---|---|---|",
            f"| from the command to a ready gateway, s | {statistics.median(ready):.2f} | {max(ready):.2f} |",
            f"| from `kill -9` of the only worker to its next answer, s | {statistics.median(again):.2f} | {max(again):.2f} |",
            f"| memory of the worker (PSS), MB | {statistics.median(weight):.0f} | {max(weight):.0f} |",
        ]
    )


# ── the scenes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def floors(servers: contextlib.ExitStack, work: Path) -> list[Contender]:
    """Our door with everything on, with as little as can be, by the ordinary framework; and what no door can beat."""
    model, rows = gbm(work)
    script = asked(work, model, rows[0])
    traced = {"telemetry_otlp_endpoint": servers.enter_context(collector()), "telemetry_sample_ratio": "0.01"}
    return [
        servers.enter_context(ours("runoff", work / "on", model, script, STICKY, **traced)),
        servers.enter_context(ours("runoff, no records, unit, traces", work / "off", model, script, UNRECORDED)),
        servers.enter_context(ours("runoff, plain ASGI door", work / "asgi", model, script, STICKY, door="asgi")),
        servers.enter_context(floor("handler", model, script)),
        servers.enter_context(floor("transport", model, script)),
        servers.enter_context(floor("hello", model, script)),
    ]


def single(servers: contextlib.ExitStack, work: Path) -> list[Contender]:
    """One caller who waits for each answer."""
    model, rows = gbm(work)
    script = asked(work, model, rows[0])
    return [
        servers.enter_context(ours("runoff", work / "on", model, script, STICKY)),
        servers.enter_context(floor("handler", model, script)),
        servers.enter_context(floor("transport", model, script)),
    ]


def durable(servers: contextlib.ExitStack, work: Path) -> list[Contender]:
    """The three durabilities of a record."""
    model, rows = gbm(work)
    script = asked(work, model, rows[0])
    return [
        servers.enter_context(
            ours(f"`{level}`", work / level, model, script, STICKY | {"record": {"durability": level}})
        )
        for level in ("disk", "process", "async")
    ]


def larger(servers: contextlib.ExitStack, work: Path) -> list[Contender]:
    """An MLP of 8 MB."""
    model, rows = mlp(work)
    script = asked(work, model, rows[0])
    return [
        servers.enter_context(ours("runoff", work / "on", model, script, STICKY)),
        servers.enter_context(floor("handler", model, script)),
    ]


def image(servers: contextlib.ExitStack, work: Path) -> list[Contender]:
    """The same tensor as bytes and as text, to one gateway."""
    model, rows = pixels(work)
    as_bytes, as_text = asked(work, model, rows[0], binary=True), asked(work, model, rows[0])
    binary = servers.enter_context(ours("as binary tensor", work / "on", model, as_bytes, {}))
    return [binary, Contender("as JSON", binary.url, binary.pids, binary.others, as_text)]


def shared(servers: contextlib.ExitStack, work: Path) -> list[Contender]:
    """Two workers and the generator on two cores, nothing pinned."""
    model, rows = gbm(work)
    script = asked(work, model, rows[0])
    return [
        servers.enter_context(ours(title, work / count, model, script, STICKY, is_pinned=False, workers=count))
        for title, count in (("two workers", "2"), ("one worker", "1"))
    ]


UNRECORDED = {"record": {"sample": 0}}
SCENES = {
    "rest": Scene(
        title="Small model, 32 connections, one worker on one core",
        note="Every request validated, split by a sticky unit (5,000 of them), recorded (`durability: process`), counted; 1 in 100 traced.",
        connections=32,
        contenders=floors,
    ),
    "single": Scene(title="Small model, one connection", note="As above.", connections=1, contenders=single),
    "durable": Scene(
        title="Small model, 256 connections, by the durability of records",
        note="`disk` answers after the sync of its group.",
        connections=256,
        contenders=durable,
    ),
    "larger": Scene(
        title="An MLP of 8 MB, 32 connections", note="512 floats as JSON.", connections=32, contenders=larger
    ),
    "image": Scene(
        title="A picture of 602 kB, 8 connections",
        note="3 × 224 × 224 floats into a model that only takes their mean; recorded as digest and shape, as by default.",
        connections=8,
        contenders=image,
    ),
    "shared": Scene(
        title="Small model, 64 connections, two cores shared with the generator",
        note="Nothing is pinned.",
        connections=64,
        contenders=shared,
        core="0,1",
    ),
}


# ── the contenders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def ours(
    name: str,
    state: Path,
    model: Path,
    script: Path,
    route: dict[str, object],
    *,
    is_pinned: bool = True,
    **settings: str,
) -> Iterator[Contender]:
    """A whole gateway with one worker."""
    with gateway(state, {"model": model}, route, is_pinned=is_pinned, **settings) as running:
        url = f"{running.rest}/v2/models/model/infer"
        check(name, url, script)
        yield Contender(name, url, running.workers, running.others, script)


@contextlib.contextmanager
def floor(name: str, model: Path, script: Path) -> Iterator[Contender]:
    """One of `loadtests.floors`, on core 0."""
    titles = {
        "handler": "plain raw-ASGI handler",
        "transport": "transport-only protocol, POST",
        "hello": "raw-ASGI hello",
    }
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "loadtests.floors", name, str(port), str(model)], cwd=ROOT)
    try:
        pin(process.pid, 0)
        until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
        url = f"http://127.0.0.1:{port}/v2/models/model/infer"
        if name == "handler":
            check(titles[name], url, script)
        yield Contender(titles[name], url, [process.pid], [], script)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Takes traces, and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def asked(work: Path, model: Path, row: np.ndarray, *, binary: bool = False) -> Path:
    """Wrk's script for one row; beside it lie the request and what ONNX Runtime answers to it, for `check`."""
    session = onnxruntime.InferenceSession(str(model))
    name = session.get_inputs()[0].name
    answers = session.run(None, {name: row[None]})
    answer = next(one for one in answers if one.dtype == np.float32).ravel()
    tensor: dict[str, object] = {"name": name, "shape": [1, *row.shape], "datatype": "FP32"}
    headers = {"content-type": "application/json"}
    if binary:
        tensor["parameters"] = {"binary_data_size": row.nbytes}
        head = json.dumps({"inputs": [tensor]}).encode()
        body = head + row.tobytes()
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    else:
        tensor["data"] = [float(str(value)) for value in row.ravel()]
        body = json.dumps({"inputs": [tensor]}).encode()
    place = work / ("binary" if binary else "json")
    place.with_suffix(".headers").write_text(json.dumps(headers))
    np.save(place.with_suffix(".npy"), answer)
    units = UNITS if len(body) < _REPEATED_BYTES else 1
    return post_script(place.with_suffix(".lua"), body, headers=headers, units=units)


def check(name: str, url: str, script: Path) -> None:
    """Whatever claims to run the model must answer as ONNX Runtime does."""
    headers = json.loads(script.with_suffix(".headers").read_text())
    content = script.with_suffix(".body").read_bytes()
    reply = httpx.post(url, content=content, headers={"x-user-id": "user-1", **headers})
    assert reply.status_code == 200, f"{name}: {reply.status_code} {reply.text[:200]}"
    got = next(out["data"] for out in reply.json()["outputs"] if out["datatype"] == "FP32")
    np.testing.assert_allclose(got, np.load(script.with_suffix(".npy")), rtol=1e-5)


if __name__ == "__main__":
    sys.exit(main())
