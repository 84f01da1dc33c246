"""What one model's callers feel of another's: `python -m loadtests.neighbours [--rounds 3] [--seconds 5]`.

`lag`: a model that computes half a second, asked by two callers without pause, beside a small one asked by eight. How late the worker's event loop
wakes (its own gauge: the worst of each second), with the worker on one core and on two.
`share`: two endpoints of two small models. One is asked by four callers, alone and then beside forty callers of the other. Rounds alternate.
Results go to `loadtests/results/neighbours.md`.
"""

import argparse
import contextlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import onnx

from loadtests.contenders import asked
from loadtests.loaded_models import gbm, laborious
from loadtests.machine import machine
from loadtests.whole_gateway import Running, gateway
from loadtests.windows import wrk

RESULTS = Path(__file__).parent / "results" / "neighbours.md"
_LAG = re.compile(r'^runoff_eventloop_lag_seconds\{[^}]*process="worker[^}]*\} (\S+)', re.MULTILINE)


def main() -> int:
    """Measures both, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    lines = [
        "# Neighbours",
        "",
        (
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, CPython {platform.python_version()}; "
            f"`python -m loadtests.neighbours --rounds {options.rounds} --seconds {options.seconds}`."
        ),
        *lag(options.rounds, options.seconds),
        *share(options.rounds, options.seconds),
    ]
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def lag(rounds: int, seconds: int) -> list[str]:
    """The loop's lateness beside a model of half a second."""
    lines = [
        "",
        "## A small model beside one of half a second",
        "",
        "| worker | loop late, median of seconds | worst second | small p50 µs | p99 µs | alone p50 µs | p99 µs |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        small, rows = gbm(work)
        large, ones, seconds_a_run = laborious(work, 0.5)
        small_script = asked(work, small, rows[0])
        (work / "large").mkdir()
        large_script = asked(work / "large", large, ones[0])
        for title, is_pinned in (("on one core", True), ("on two, shared with the generator", False)):
            with gateway(work / title[:6], {"small": small, "large": large}, {}, is_pinned=is_pinned) as running:
                url = f"{running.rest}/v2/models/small/infer"
                late, beside, alone = [], [], []
                for _ in range(rounds):
                    alone.append(wrk(url, small_script, connections=8, seconds=seconds))
                    with loaded(f"{running.rest}/v2/models/large/infer", large_script, 2), watched(running) as seen:
                        time.sleep(1)
                        beside.append(wrk(url, small_script, connections=8, seconds=seconds))
                    late += seen
            cells = [
                f"{statistics.median(late) * 1e3:.1f} ms",
                f"{max(late) * 1e3:.1f} ms",
                *(
                    f"{statistics.median(one.p50_us for one in of):,.0f} | {statistics.median(one.p99_us for one in of):,.0f}"
                    for of in (beside, alone)
                ),
            ]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    lines[2] = f"One run of the large model takes {seconds_a_run:.2f} s alone."
    lines.insert(3, "")
    return lines


def share(rounds: int, seconds: int) -> list[str]:
    """The p99 of one endpoint, alone and beside another that is offered ten times as much."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model, rows = gbm(work)
        other = work / "other.onnx"
        twin = onnx.load(model)
        twin.doc_string = "the same trees, another model"
        onnx.save(twin, other)
        script = asked(work, model, rows[0])
        alone, beside = [], []
        with gateway(work / "state", {"quiet": model, "loud": other}, {}) as running:
            url = f"{running.rest}/v2/models/quiet/infer"
            for _ in range(rounds):
                alone.append(wrk(url, script, connections=4, seconds=seconds))
                with loaded(f"{running.rest}/v2/models/loud/infer", script, 40):
                    time.sleep(0.5)
                    beside.append(wrk(url, script, connections=4, seconds=seconds))
    ratio = statistics.median(b.p99_us / a.p99_us for a, b in zip(alone, beside, strict=True))
    return [
        "",
        "## An endpoint with 4 callers beside one with 40",
        "",
        "| | requests/s | p50 µs | p99 µs |",
        "|---|---|---|---|",
        *(
            f"| {title} | {statistics.median(one.rate for one in of):,.0f} | {statistics.median(one.p50_us for one in of):,.0f} "
            f"| {statistics.median(one.p99_us for one in of):,.0f} |"
            for title, of in (("alone", alone), ("beside 40", beside))
        ),
        "",
        f"p99 beside the other, as a multiple: {ratio:.2f}. Both generators share core 1.",
    ]


@contextlib.contextmanager
def loaded(url: str, script: Path, connections: int) -> Iterator[None]:
    """A second generator, until the end."""
    command = [
        "taskset",
        "-c",
        "1",
        "wrk",
        "-t1",
        f"-c{connections}",
        "-d600s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        url,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def watched(running: Running) -> Iterator[list[float]]:
    """The worst lateness of each second, as the worker tells it."""
    seen: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(1.0):
            seen.extend(map(float, _LAG.findall(httpx.get(running.metrics).text)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
