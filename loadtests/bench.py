"""`make bench`: our REST door against its floors, side by side in one run, with everything on.

One worker on core 0; control, shadow, supervisor and the load generator (wrk, one thread) on core 1. The rounds alternate between the
contenders, so that a machine whose speed drifts moves all of them alike; what counts is the ratio of medians. Before any load every
contender's answer is compared with ONNX Runtime's own. Results go to `loadtests/results/`, with the command that made them.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import psutil

from runoff import Runoff

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
UNITS = 5_000
"""Different units in the load, so that nothing profits from asking for the same one again."""


@dataclass
class Contender:
    """A server under load. `pids` are those whose processor time counts as the server's own."""

    name: str
    url: str
    pids: list[int]
    rates: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def main() -> int:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is needed (Debian: apt-get install wrk)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        work = Path(folder)
        model, body, wanted = small_model(work)
        contenders = [
            *servers.enter_context(gateway(work / "on", model, {"unit": {"header": "x-user-id"}}, "runoff, all on")),
            *servers.enter_context(
                gateway(work / "off", model, {"record": {"sample": 0}}, "runoff, no records, no unit")
            ),
            *servers.enter_context(gateway(work / "asgi", model, {}, "runoff, plain ASGI door", door="asgi")),
            servers.enter_context(floor("handler", model)),
            servers.enter_context(floor("transport", model)),
            servers.enter_context(floor("hello", model)),
        ]
        script = lua(work, body)
        for contender in contenders:
            check(contender, body, wanted)
            load(contender, script, arguments.connections, 1, keep=False)
        for number in range(arguments.rounds):
            for contender in contenders:
                load(contender, script, arguments.connections, arguments.seconds)
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    report(contenders, arguments)
    return 0


def small_model(work: Path) -> tuple[Path, bytes, list[float]]:
    """Gradient boosting of 100 trees on 30 floats, as ONNX; a request for its first row, and what the model answers to it."""
    from skl2onnx import to_onnx  # only here: seven seconds
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype(np.float32)
    fitted = GradientBoostingClassifier(n_estimators=100, random_state=0).fit(x, y)
    converted = to_onnx(fitted, x[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
    path = work / "gbm.onnx"
    path.write_bytes(converted.SerializeToString())
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    row = [round(float(value), 4) for value in x[0]]
    answer = session.run(None, {name: np.array([row], np.float32)})[1][0].tolist()
    tensor = {"name": name, "shape": [1, 30], "datatype": "FP32", "data": row}
    return path, json.dumps({"inputs": [tensor]}).encode(), answer


@contextlib.contextmanager
def gateway(
    state: Path, model: Path, route: dict[str, object], name: str, door: str = "wire"
) -> Iterator[list[Contender]]:
    """A whole gateway with one worker: supervisor, worker, shadow, control, as `runoff serve` starts them."""
    ports = {key: free_port() for key in ("rest", "grpc", "metrics", "admin")}
    environ = os.environ | {f"RUNOFF_{key.upper()}_PORT": str(port) for key, port in ports.items()}
    environ |= {"RUNOFF_STATE_DIR": str(state), "RUNOFF_DOOR": door, "RUNOFF_WORKERS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "serve"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: httpx.get(f"http://127.0.0.1:{ports['metrics']}/readyz").status_code == 200)
        client = Runoff(f"http://127.0.0.1:{ports['admin']}")
        until(lambda: client.routes() is not None)
        variants = [
            {"name": "champion", "model": str(model), "weight": 90},
            {"name": "challenger", "model": str(model), "weight": 10},
        ]
        client.apply({"endpoint": "gbm", "variants": variants, **route}, reason="benchmark", wait_s=120)
        url = f"http://127.0.0.1:{ports['rest']}/v2/models/gbm/infer"
        until(lambda: httpx.get(url.removesuffix("/infer")).status_code == 200)
        workers = []
        for child in psutil.Process(process.pid).children(recursive=True):
            is_worker = "gateway.worker" in child.cmdline()
            pin(child.pid, 0 if is_worker else 1)
            workers += [child.pid] if is_worker else []
        pin(process.pid, 1)
        yield [Contender(name, url, workers)]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def floor(name: str, model: Path) -> Iterator[Contender]:
    """One of `loadtests.floors`, on core 0."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "loadtests.floors", name, str(port), str(model)], cwd=ROOT)
    try:
        pin(process.pid, 0)
        until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
        titles = {
            "handler": "plain raw-ASGI handler",
            "transport": "transport-only protocol, POST",
            "hello": "raw-ASGI hello",
        }
        yield Contender(titles[name], f"http://127.0.0.1:{port}/v2/models/gbm/infer", [process.pid])
    finally:
        process.kill()
        process.wait()


def check(contender: Contender, body: bytes, wanted: list[float]) -> None:
    """Whatever claims to run the model must answer as ONNX Runtime does."""
    reply = httpx.post(contender.url, content=body, headers={"x-user-id": "user-1"})
    assert reply.status_code == 200, f"{contender.name}: {reply.status_code} {reply.text[:200]}"
    if reply.text.startswith("{"):
        got = next(out["data"] for out in reply.json()["outputs"] if out["datatype"] == "FP32")
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def load(contender: Contender, script: Path, connections: int, seconds: int, *, keep: bool = True) -> None:
    """One window of load; a reply that is not 2xx fails the benchmark."""
    before = cpu_s(contender.pids)
    command = [
        "taskset",
        "-c",
        "1",
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--latency",
        "-s",
        str(script),
        contender.url,
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_s(contender.pids) - before
    assert "Non-2xx" not in printed, f"{contender.name}: {printed}"
    if keep:
        count = float(re.search(r"(\d+) requests in", printed)[1])  # type: ignore[index]
        contender.rates.append(float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1]))  # type: ignore[index]
        contender.p50_us.append(latency_us(printed, "50%"))
        contender.p99_us.append(latency_us(printed, "99%"))
        contender.cpu_us.append(used / count * 1e6)


def latency_us(printed: str, quantile: str) -> float:
    """A quantile out of wrk's table, in microseconds."""
    found = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s)\b", printed)
    assert found
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]]


def lua(work: Path, body: bytes) -> Path:
    """The load: one POST with a unit that differs from request to request."""
    path = work / "post.lua"
    path.write_text(
        f"local body = [==[{body.decode()}]==]\n"
        "local requests, at = {}, 0\n"
        "init = function()\n"
        f"  for i = 1, {UNITS} do\n"
        '    requests[i] = wrk.format("POST", nil, {["content-type"] = "application/json", ["x-user-id"] = "user-" .. i}, body)\n'
        "  end\n"
        "end\n"
        f"request = function() at = at % {UNITS} + 1; return requests[at] end\n"
    )
    return path


def report(contenders: list[Contender], arguments: argparse.Namespace) -> None:
    """Prints the table and writes it, with machine and command, to `loadtests/results/rest.md`."""
    ours = contenders[0]
    lines = [
        f"# REST, small model, {arguments.connections} connections, one worker on one core",
        "",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, CPython {platform.python_version()}; "
            f"`make bench` ({arguments.rounds} alternating rounds of {arguments.seconds:g} s, medians; {UNITS} units)."
        ),
        "Every request validated, split by a sticky unit, recorded (`durability: process`), counted.",
        "",
        "| | requests/s | p50 µs | p99 µs | processor µs/request | runoff, all on, is |",
        "|---|---|---|---|---|---|",
    ]
    for one in contenders:
        rate, p50, p99, cpu = (statistics.median(values) for values in (one.rates, one.p50_us, one.p99_us, one.cpu_us))
        ratio = statistics.median(a / b for a, b in zip(ours.rates, one.rates, strict=True))
        lines.append(f"| {one.name} | {rate:,.0f} | {p50:,.0f} | {p99:,.0f} | {cpu:.1f} | {ratio:.2f} × |")
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rest.md").write_text(text)
    print(text)


def machine() -> str:
    """The processor, as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} processors"
    return platform.machine()


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def pin(pid: int, core: int) -> None:
    """Keeps all threads of a process on one core."""
    for thread in psutil.Process(pid).threads():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread.id, {core})


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(is_true: object, timeout_s: float = 60.0) -> None:
    """Calls `is_true` until it is, taking connection errors for not yet."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, httpx.HTTPError, Exception):
            if is_true():  # type: ignore[operator]
                return
        time.sleep(0.1)
    raise TimeoutError("a contender did not come up")


if __name__ == "__main__":
    sys.exit(main())
