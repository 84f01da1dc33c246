"""How fast records are written, stored and asked: `python -m loadtests.records`. Temporary files only; ends in under a minute.

Prints the cost of one spool append (by bytes a turn), records a second from spool to lake on one core (by requests a block), and the
seconds of each question over 100,000 predictions with a mirror and half of them labelled, and of what the next iteration needs of them.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gateway.control.replay import Question as ReplayQuestion
from gateway.control.replay import replay
from gateway.evidence import ledger, quality
from gateway.evidence.dataset import Question as DatasetQuestion
from gateway.evidence.dataset import dataset
from gateway.evidence.evidence import Evidence
from gateway.evidence.query import Queries
from gateway.spool.segment import SegmentWriter
from gateway.streams.feed import Feed
from models.catalog import Catalog
from routing.records import Column, PredictionBlock
from tests.kit.spooled import BINARY, Place, encode, label, labels, pid_text, predictions, request, shadows
from tests.kit.staged import stage_linear

_RECORDS = 40_000
_PREDICTIONS = 100_000
_BLOCK = 500


def append(folder: Path) -> None:
    for size in (500, 4000):
        writer = SegmentWriter(folder / f"w{size}", bytes_max=1 << 30)
        payload, took = [b"x" * size], []
        for _ in range(50_000):
            began = time.perf_counter_ns()
            writer.append(payload)
            took.append((time.perf_counter_ns() - began) / 1000)
        writer.close()
        p50, p999 = np.percentile(took, [50, 99.9])
        print(
            f"append of {size} bytes: mean {np.mean(took):.1f} us, p50 {p50:.1f}, p99.9 {p999:.1f}, max {max(took):.0f}"
        )


def block(first: int, count: int) -> PredictionBlock:
    """`count` requests with ten FP32 columns each."""
    values = np.random.default_rng(first).random(count, np.float32)
    inputs = [Column(f"f{at}", "FP32", (1,), values.tobytes()) for at in range(10)]
    return predictions([request(n) for n in range(first, first + count)], values.tolist(), inputs=inputs)


def store(folder: Path) -> None:
    for count in (1, 8, 32):
        place = Place(folder / f"lake{count}")
        writer = place.writer()
        for first in range(0, _RECORDS, count):
            writer.append(encode(block(first, count)))
        lake = place.lake()
        began, cpu = time.perf_counter(), time.process_time()
        while lake.read():
            lake.commit()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        writer.close()
        lake.close()
        print(f"to the lake, blocks of {count}: {_RECORDS / wall:,.0f} records/s, {_RECORDS / cpu:,.0f} per CPU second")


def ask(folder: Path) -> None:
    chance = np.random.default_rng(1)
    p = chance.random(_PREDICTIONS)
    q = np.clip(p + chance.normal(0, 0.05, _PREDICTIONS), 0, 1)
    truth = (chance.random(_PREDICTIONS) < p).astype(int).tolist()
    text = lambda scores: ["1" if score >= 0.5 else "0" for score in scores]
    place = Place(folder / "asked")
    for first in range(0, _PREDICTIONS, 20 * _BLOCK):
        blocks = []
        for start in range(first, first + 20 * _BLOCK, _BLOCK):
            numbers, part = list(range(start, start + _BLOCK)), slice(start, start + _BLOCK)
            units = [f"{n % 60_000:032x}" for n in numbers]
            scores = {"live_scores": p[part].tolist(), "scores": q[part].tolist()}
            blocks += [
                predictions([request(n) for n in numbers], p[part].tolist()),
                shadows(numbers, text(p[part]), text(q[part]), units=units, **scores),
                labels(*[label(n, truth[n]) for n in numbers if n % 2 == 0]),
            ]
        place.store(*blocks, writer=f"worker-{first}")
    evidence = Evidence(place.uri, lambda _: BINARY)
    exogenous = ledger.Question(endpoint="phishing", exogenous=True)
    timed("ledger", lambda: evidence.ledger(ledger.Question(endpoint="phishing")))
    timed("ledger with its test", lambda: evidence.ledger(exogenous))
    timed("the same again", lambda: evidence.ledger(exogenous))
    timed("quality", lambda: evidence.quality(quality.Question(endpoint="phishing")))
    timed("one prediction", lambda: evidence.prediction(pid_text(50_000)))
    timed("labels settled", lambda: evidence.settle(0, 4e9))
    queries = Queries(place.uri)
    timed("data set of 50,000 labelled rows", lambda: dataset(queries, DatasetQuestion(endpoint="phishing")))
    staged = stage_linear(folder / "artifacts", columns=1)
    model = Catalog(folder / "artifacts").load(staged.digest)
    timed("replay of 100,000 rows", lambda: replay(queries, ReplayQuestion(endpoint="phishing"), model))
    timed("all rows through a feed", lambda: drain(Feed(place.uri, "predictions")))
    timed("forgetting one unit", lambda: place.lake().forget([f"{5:032x}"]))


def drain(feed: Feed) -> None:
    position = 0
    while (portion := feed.after(position)) is not None:
        position = portion.last


def timed(name: str, question: Callable[[], object]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    question()
    print(f"{name}: {time.perf_counter() - began:.3f} s, {time.process_time() - cpu:.3f} s of CPU")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="records-"))
    try:
        append(folder)
        store(folder)
        ask(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
