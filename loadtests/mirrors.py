"""A mirror at 100% with a candidate that fares ill, beside a champion under load: `python -m loadtests.mirrors`. About six minutes.

For each candidate blocks at one arrival rate, in turns without and with the mirror: one that hangs (a server that never
answers), one that crashes (the shadow process is killed each 4 s), one that answers every row with an error, and one that is
some hundred times slower. Every row that was drawn must be counted, as answered or dropped by its reason. With its full settings it
writes `loadtests/results/mirrors.md`.
"""

import argparse
import contextlib
import itertools
import json
import platform
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.arrivals import Arrivals, p99_ms
from loadtests.machine import machine
from tests.kit import files, remote_server
from tests.kit.gateway import Gateway, eventually, infer_body, route

RESULTS = Path(__file__).parent / "results" / "mirrors.md"
ENDPOINT = "mirrored"
ROW = [666.0, 2.0, 3.0, 4.0]
"""The row that a poisoned model fails on, and that others answer."""
SETTLED_S = 75.0
"""Longer than mirrored rows are kept."""
MEMORY_MAX = 512 << 20


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """`mirror` is its part of the route; `disturb` goes on in a thread while the mirror is there, until it returns False."""

    name: str
    mirror: dict[str, Any]
    disturb: Callable[[Gateway], bool] = lambda _: False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """p99 in ms of the blocks without the mirror (one more) and with it; memory in bytes; `drawn` are the answers while it was in the route."""

    name: str
    without: list[float]
    beside: list[float]
    errors: int
    answers: int
    memory: int
    drawn: int
    counted: Counter[str]
    sized: int


def run(folder: Path, *, rounds: int, block_s: float, rate: float, workers: int) -> list[Outcome]:
    """One candidate after the other."""
    champion = files.binary(folder / "champion.onnx")
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(
            Gateway(folder / "gateway", workers=workers, shadow={"memory_bytes_max": MEMORY_MAX})
        )
        candidates = list(stack.enter_context(all_of_them(folder)))
        plain = route(ENDPOINT, ("champion", champion, 1))
        for candidate in candidates:  # each is staged and measured once, before anything counts
            gateway.apply(plain | {"mirrors": [candidate.mirror]})
        gateway.apply(plain)
        return [
            measure(gateway, plain, candidate, rounds=rounds, block_s=block_s, rate=rate) for candidate in candidates
        ]


@contextlib.contextmanager
def all_of_them(folder: Path) -> Iterator[list[Candidate]]:
    """The four kinds."""

    def silent(handler: remote_server.Handler) -> None:
        handler.server.released.wait()

    def crash(gateway: Gateway) -> bool:
        with contextlib.suppress(ProcessLookupError, StopIteration):
            gateway.kill("shadow")
        time.sleep(4.0)
        return True

    slow, poisoned = files.slow(folder / "slow.onnx", 4_000), files.poisoned(folder / "poisoned.onnx")
    local = files.binary(folder / "local.onnx", 1, 2, 3, 4)
    with remote_server.serving(silent) as server:
        yield [
            Candidate(name="hangs", mirror={"name": "hangs", "remote": {"url": server.url, "model": "m"}}),
            Candidate(name="crashes", mirror={"name": "crashes", "model": local}, disturb=crash),
            Candidate(name="errors", mirror={"name": "errors", "model": poisoned}),
            Candidate(name="slow", mirror={"name": "slow", "model": slow}),
        ]


def measure(
    gateway: Gateway, plain: dict[str, Any], candidate: Candidate, *, rounds: int, block_s: float, rate: float
) -> Outcome:
    """The blocks of one candidate."""
    body = json.dumps(infer_body([ROW])).encode()
    memory, without, beside, revisions = [0], [], [], []

    def watch(stopping: threading.Event) -> None:
        while not stopping.wait(0.2):
            with contextlib.suppress(psutil.NoSuchProcess, StopIteration):
                memory.append(psutil.Process(gateway.pid("shadow")).memory_info().rss)

    def disturb(stopping: threading.Event) -> None:
        while not stopping.is_set() and candidate.disturb(gateway):
            pass

    def block() -> tuple[float, float]:
        began = time.monotonic()
        time.sleep(block_s)
        return began, time.monotonic()

    with Arrivals(gateway.rest, ENDPOINT, rate, body) as load:
        time.sleep(1.0)
        for _ in range(rounds):
            without.append(block())
            revisions.append(gateway.apply(plain | {"mirrors": [candidate.mirror]})["revision"])
            stopping = threading.Event()
            threads = [threading.Thread(target=act, args=(stopping,)) for act in (watch, disturb)]
            for thread in threads:
                thread.start()
            beside.append(block())
            stopping.set()
            for thread in threads:
                thread.join()
            gateway.apply(plain)
        without.append(block())
    answers = load.answers()
    drawn = int((np.isin(answers["revision"], revisions) & (answers["status"] == 200)).sum())
    with contextlib.suppress(AssertionError):  # what is missing then is in the report
        eventually(lambda: counted(gateway, candidate.name).total() >= drawn, SETTLED_S, 0.5)
    sized = counted(gateway, candidate.name, "runoff_mirror_dropped_total", "reason")
    return Outcome(
        name=candidate.name,
        without=[p99_ms(answers, *block) for block in without],
        beside=[p99_ms(answers, *block) for block in beside],
        errors=int((answers["status"] != 200).sum()),
        answers=len(answers),
        memory=max(memory),
        drawn=drawn,
        counted=counted(gateway, candidate.name),
        sized=sized.total(),
    )


def counted(
    gateway: Gateway, mirror: str, metric: str = "runoff_mirrored_total", label: str = "outcome"
) -> Counter[str]:
    """Requests of a mirror by outcome, or by the reason of their loss."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(gateway.metrics_url, timeout=20).text):
        for one in family.samples:
            if one.name == metric and one.labels["variant"] == mirror:
                found[one.labels[label]] += int(one.value)
    return found


def report(outcomes: list[Outcome], rate: float, workers: int, block_s: float) -> str:
    """The figures as Markdown."""
    lines = [
        f"Blocks of {block_s:g} s in turns without and with the mirror, each of these compared with the mean of both around it; medians (all). {rate:g} arrivals a second, {workers} workers; shadow.memory_bytes_max {MEMORY_MAX >> 20} MiB.",
        "",
        "| candidate | p99 without, with, ms | with ÷ without | difference, ms | errors | shadow memory, MiB | drawn | answered | dropped, by reason | uncounted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        usual = [statistics.mean(pair) for pair in itertools.pairwise(one.without)]
        ratios = [during / around for during, around in zip(one.beside, usual, strict=True)]
        more = [during - around for during, around in zip(one.beside, usual, strict=True)]
        lost = {name: count for name, count in sorted(one.counted.items()) if name != "recorded"}
        assert one.sized == sum(lost.values()), "a drop is counted by reason and by size alike"
        reasons = ", ".join(f"{name} {count}" for name, count in lost.items()) or "none"
        lines.append(
            f"| {one.name} | {statistics.median(one.without):.2f}, {statistics.median(one.beside):.2f} | {statistics.median(ratios):.2f} "
            f"| {statistics.median(more):+.2f} ({', '.join(f'{each:+.2f}' for each in more)}) | {one.errors} of {one.answers} "
            f"| {one.memory >> 20} | {one.drawn} | {one.counted['recorded']} | {reasons} | {one.drawn - one.counted.total()} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=float, default=6.0, help="seconds")
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirrors-") as folder:
        outcomes = run(Path(folder), rounds=asked.rounds, block_s=asked.block, rate=asked.rate, workers=asked.workers)
    told = report(outcomes, asked.rate, asked.workers, asked.block)
    print(told)
    if vars(asked) == vars(parser.parse_args([])):
        head = f"# Mirrors that fare ill\n\n{datetime.now(UTC):%Y-%m-%d}, {machine()}, CPython {platform.python_version()}; `python -m loadtests.mirrors`"
        RESULTS.write_text(f"{head}\n\n{told}\n")


if __name__ == "__main__":
    main()
