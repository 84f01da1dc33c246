"""`make bench`: our REST door against its floors and against itself, side by side in one run: `python -m loadtests.bench [--scene rest …]`.

One worker on core 0; control, shadow, supervisor and the load generator (wrk, one thread) on core 1, unless the scene says else. The
rounds alternate between the contenders, so that a machine whose speed drifts moves all of them alike; what counts is the median of the
rounds' ratios. Before any load every contender's answer is compared with ONNX Runtime's own. A run of all scenes writes `loadtests/results/rest.md`.
"""

import argparse
import contextlib
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from loadtests.contenders import Contender, asked, collector, floor, forms_of, ours
from loadtests.loaded_models import gbm, mlp, pixels
from loadtests.machine import cpu_s, machine, memory_mb, until
from loadtests.whole_gateway import gateway
from loadtests.windows import wrk

RESULTS = Path(__file__).parent / "results"
STICKY = {"unit": {"header": "x-user-id"}}


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
        servers.enter_context(
            ours(
                "runoff, `record: {sample: 0}`",
                work / "unrecorded",
                model,
                script,
                STICKY | UNRECORDED,
                **traced,
            )
        ),
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


def forms(servers: contextlib.ExitStack, work: Path) -> list[Contender]:
    """The same row in every form in which callers send it, to one gateway."""
    model, rows = gbm(work)
    plain = servers.enter_context(ours("V2, JSON", work / "on", model, asked(work, model, rows[0]), STICKY))
    return [plain, *forms_of(plain, work, model, rows[0])]


UNRECORDED = {"record": {"sample": 0}}
SCENES = {
    "rest": Scene(
        title="Small model, 32 connections, one worker on one core",
        note="Every request validated, split by a sticky unit (5,000 of them), recorded (`durability: process`), counted; 1 in 100 traced.",
        connections=32,
        contenders=floors,
    ),
    "forms": Scene(
        title="The same row in other forms, 32 connections",
        note="As above; MLflow's and TensorFlow's JSON, and the row as a binary tensor.",
        connections=32,
        contenders=forms,
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


if __name__ == "__main__":
    sys.exit(main())
