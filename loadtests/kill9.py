"""`kill -9` of workers at random instants under load: `python -m loadtests.kill9 --times 100`. Temporary files only; some eight seconds a kill.

A real gateway serves the same model with every durability, over REST and gRPC. Each caller keeps a log of what it was answered; at
the end that log is compared with the lake. Prints how long no worker was there to answer, and what was lost or doubled.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from gateway.processes.backoff import STEADY_S
from tests.kit import files
from tests.kit.gateway import Gateway, RestCaller, RpcCaller, Served, eventually, route

LEVELS = ("process", "disk", "async")
UP_MIN_S = STEADY_S + 0.3
"""How long a worker lives at least: what ends sooner counts as a crash loop."""


@dataclass(kw_only=True)
class Outcome:
    """What the callers saw, and what the lake holds of it. `lost` by durability: answered and not stored."""

    restarts_s: list[float] = field(default_factory=list)
    silences_s: list[float] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    stored: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    doubled: int = 0
    counted_lost: int = 0


def run(
    folder: Path, *, times: int, seed: int, workers: int = 1, up_s: tuple[float, float] = (UP_MIN_S, UP_MIN_S + 4)
) -> Outcome:
    """Kills a worker `times` times, each after it lived for a random time out of `up_s`."""
    chance, outcome = random.Random(seed), Outcome()
    model = files.binary(folder / "model.onnx")
    with Gateway(folder / "gateway", workers=workers) as gateway:
        for level in LEVELS:
            gateway.apply(route(level, ("champion", model, 1), record={"durability": level}))
        callers = {level: [Served(RestCaller(gateway, level), 1)] for level in LEVELS}
        callers["process"].append(Served(RpcCaller(gateway, "process"), 1))
        everybody = [served for group in callers.values() for served in group]
        for served in everybody:
            served.__enter__()
        try:
            for _ in range(times):
                threading.Event().wait(chance.uniform(*up_s))
                _kill(gateway, f"worker-{chance.randrange(workers)}", callers["process"][0], outcome)
            everybody[0].wait_for(20)
        finally:
            for served in everybody:
                served.stop()
        outcome.counted_lost = round(gateway.metric("runoff_records_total", outcome="lost"))
        gateway.stop()
        outcome.refused = sum(len(served.failed) for served in everybody)
        for level, group in callers.items():
            _compare(gateway, level, [one["prediction_id"] for served in group for one in served.answered], outcome)
    return outcome


def _kill(gateway: Gateway, worker: str, watched: Served, outcome: Outcome) -> None:
    """Kills, and waits until the successor is ready and somebody was answered again."""
    before = len(gateway.happened("worker_ready"))
    gateway.kill(worker)
    died_at = time.monotonic()
    eventually(lambda: len(gateway.happened("worker_ready")) > before, 60, 0.005)
    outcome.restarts_s.append(time.monotonic() - died_at)
    eventually(lambda: any(one["sent_at"] > died_at for one in watched.answered[-50:]), 60, 0.01)
    outcome.silences_s.append(min(one["done_at"] for one in watched.answered if one["sent_at"] > died_at) - died_at)


def _compare(gateway: Gateway, level: str, answered: list[str], outcome: Outcome) -> None:
    """The callers' log of one endpoint against the lake."""
    stored = [found[0] for found in gateway.lake("SELECT prediction_id FROM predictions WHERE endpoint = ?", level)]
    outcome.answered[level] = len(answered)
    outcome.stored += len(stored)
    outcome.lost[level] = len(set(answered) - set(stored))
    outcome.doubled += len(stored) - len(set(stored))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill9-") as folder:
        outcome = run(Path(folder), times=asked.times, seed=asked.seed, workers=asked.workers)
    for name, seconds in (
        ("worker ready again after", outcome.restarts_s),
        ("no answer for", outcome.silences_s),
    ):
        print(
            f"{name}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, of {len(seconds)} kills"
        )
    for level in LEVELS:
        print(f"durability {level}: {outcome.answered[level]} answered, {outcome.lost[level]} of them not stored")
    print(f"{outcome.stored} stored, {outcome.doubled} twice; {outcome.refused} calls without an answer")
    print(f"runoff_records_total{{outcome=lost}}: {outcome.counted_lost}, unanswered requests of the killed included")


if __name__ == "__main__":
    main()
