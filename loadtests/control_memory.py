"""What control's figures take: `python -m loadtests.control_memory --rows 1000000 --rounds 10`, and with `--minutes 20 --rate 200` a soak.

Fills the lake with predictions of today (a tenth mirrored, half of them labelled), then makes quality, ledger, drift and the count of
labels again and again, nothing remembered: seconds of processor time, memory at the peak and between the rounds. With `--days` the
predictions lie in as many days, with a few of five further endpoints beside them: what was recorded long ago must not matter.

With `--minutes` a gateway runs on such a lake instead, asked and labelled on a schedule; each minute it prints what every process holds,
and control's share of a core. Temporary files only.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa

from gateway.evidence.evidence import Evidence, ledgers, qualities
from gateway.streams.arrow import uuids
from gateway.streams.schema import LABELS, PARTITIONS, PREDICTIONS, SCHEMAS, SHADOWS
from gateway.streams.table import LakeTable
from loadtests.machine import machine
from loadtests.outage import Load
from loadtests.points import rows
from tests.kit import files
from tests.kit.gateway import Gateway, route
from tests.kit.spooled import BINARY

ENDPOINT = "outage"
DAY_S = 86_400
_PART = 100_000
_WINDOW = 1_000_000
_OTHERS = 5
_LABELS = 1000


def fill(uri: str, total: int, days: int) -> None:
    """As the lake lays the tables out after its compactions."""
    tables = {
        name: LakeTable(f"{uri}/{name}", SCHEMAS[name], PARTITIONS) for name in ("predictions", "shadows", "labels")
    }
    now = time.time()
    today = now // DAY_S * DAY_S
    sequence = 0
    for back in reversed(range(days)):
        first_s = today - back * DAY_S
        spans = [(ENDPOINT, total // days)] + [(f"other{n}", 300) for n in range(_OTHERS if days > 1 else 0)]
        for endpoint, count in spans:
            for first in range(0, count, _PART):
                part = min(_PART, count - first)
                span_s = min(DAY_S, now - first_s) / count
                us = ((first_s + np.arange(first, first + part) * span_s) * 1e6).astype(np.int64)
                written = _rows(endpoint, us, sequence)
                for name, table in written.items():
                    tables[name].append(table, {"fill": sequence + 1})
                sequence += part
    for made in tables.values():
        made.compact(0)


def _rows(endpoint: str, us: np.ndarray, sequence: int) -> dict[str, pa.Table]:
    count, chance = len(us), np.random.default_rng(sequence)
    keys = chance.integers(0, 256, (count, 16), np.uint8)
    keys[:, :6] = (us // 1000).astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    keys[:, 6], keys[:, 8] = 0x70 | keys[:, 6] & 0x0F, 0x80 | keys[:, 8] & 0x3F
    p = chance.random(count)
    other, truth = np.clip(p + chance.normal(0, 0.05, count), 0, 1), chance.random(count) < p
    at, text = pa.array(us).cast(pa.timestamp("us", "UTC")), lambda value: pa.repeat(pa.scalar(value), count)
    plain = {
        "sequence": pa.array(np.arange(sequence + 1, sequence + 1 + count)),
        "prediction_id": uuids([key.tobytes() for key in keys]),
        "row": pa.array(np.zeros(count, np.int32)),
        "rows": pa.array(np.ones(count, np.int32)),
        "endpoint": text(endpoint),
        "date": at.cast(pa.date32()),
        "received_at": at,
        "unit": pa.array([f"{unit:032x}" for unit in chance.integers(0, 60_000, count)]),
        "experiment": pa.array(np.ones(count, bool)),
        "model": text("filled"),
        "version": text("1"),
    }
    live = {"answer_label": pa.array(np.where(p >= 0.5, "1", "0")), "answer_score": pa.array(p)}
    given = {"variant": text("filled"), "assigned": text("filled"), "assigned_by": text("split"), "digest": text("d1")}
    predicted = rows(PREDICTIONS, plain | live | given)
    for n in range(4):
        predicted = predicted.append_column(f"input_f{n}", pa.array(chance.random(count, np.float32)))
    tenth, half = pa.array(np.arange(0, count, 10)), pa.array(np.arange(0, count, 2))
    mirrored = plain | {
        "version": text("2"),
        "mirror": text("candidate"),
        "outcome": text("recorded"),
        "live_variant": text("filled"),
        "live_model": text("filled"),
        "live_version": text("1"),
        "live_label": live["answer_label"],
        "live_score": live["answer_score"],
        "answer_label": pa.array(np.where(other >= 0.5, "1", "0")),
        "answer_score": pa.array(other),
        "lag_us": pa.array(np.full(count, 900)),
    }
    said = {name: plain[name] for name in ("sequence", "prediction_id", "date", "received_at")}
    false = pa.array(np.zeros(count, bool))
    said |= {"label_text": pa.array(np.where(truth, "1", "0")), "label_number": pa.array(truth.astype(float))}
    said |= {"retracted": false, "keyed": false}
    taken = lambda columns, which: {name: column.take(which) for name, column in columns.items()}
    return {
        "predictions": predicted,
        "shadows": rows(SHADOWS, taken(mirrored, tenth)),
        "labels": rows(LABELS, taken(said, half)),
    }


class Peak:
    """The most memory that this process held since the last call of `taken`, in MB."""

    def __init__(self) -> None:
        self._process, self._bytes = psutil.Process(), 0
        threading.Thread(target=self._watch, daemon=True).start()

    def taken(self) -> float:
        peak, self._bytes = self._bytes, 0
        return peak / 1e6

    def _watch(self) -> None:
        while True:
            self._bytes = max(self._bytes, self._process.memory_info().rss)
            time.sleep(0.005)


def look(folder: Path, uri: str, rounds: int) -> None:
    """A new Evidence each round would forget tests too; here only answers are made anew."""
    evidence, peak, process = Evidence(uri, lambda _: BINARY, spill=folder / "spill"), Peak(), psutil.Process()
    print(f"before: {process.memory_info().rss / 1e6:.0f} MB")
    for number in range(rounds):
        peak.taken()
        spent = time.process_time()
        recent = evidence.recent(ENDPOINT, _WINDOW)
        assert recent is not None
        window = {"since_unix_s": recent.since_unix_s, "one_in": recent.one_in, "label_window_s": 30 * DAY_S + number}
        evidence.quality(qualities.Question(endpoint=ENDPOINT, by="answered", **window))
        asked = ledgers.Question(
            endpoint=ENDPOINT, champion="filled", exogenous=True, label_window_s=30 * DAY_S + number
        )
        evidence.ledger(asked)
        reference = evidence.reference(ENDPOINT, "filled", "1", time.time())
        assert reference is not None
        evidence.drift(reference, ENDPOINT, "filled", "1", time.time())
        evidence.settle(0, time.time())
        spent = time.process_time() - spent
        evidence.give_back()
        print(
            f"round {number + 1}: {spent:.2f} s of CPU, {peak.taken():.0f} MB at its peak,"
            f" {process.memory_info().rss / 1e6:.0f} MB after it",
            flush=True,
        )


async def soak(folder: Path, minutes: float, rate: float, total: int, days: int) -> None:
    model, other = files.binary(folder / "model.onnx"), files.binary(folder / "other.onnx", 1.0, 1.0, 1.0, 0.5)
    served = Gateway(folder / "gateway", workers=1)
    if total:
        fill(str(served.state / "lake"), total, days)
    with served as gateway:
        label = {"exogenous": True, "window": "1d"}
        gateway.apply(route(ENDPOINT, ("champion", model, 1), mirrors={"candidate": other}, label=label))
        load, stop = Load(gateway.rest, rate), asyncio.Event()
        tasks = [asyncio.create_task(load.run(stop)), asyncio.create_task(tell(gateway.rest, load, stop))]
        processes = {name: psutil.Process(gateway.pid(name)) for name in ("control", "worker-0", "shadow")}
        control, last = processes["control"], 0.0
        for minute in range(int(minutes) + 1):
            spent = sum(control.cpu_times()[:2])
            held = ", ".join(f"{name} {one.memory_info().rss / 1e6:.0f} MB" for name, one in processes.items())
            print(
                f"minute {minute}: {held}; control {(spent - last) / 60:.0%} of a core; {len(load.ids)} answered",
                flush=True,
            )
            last = spent
            if minute < int(minutes):
                await asyncio.sleep(60)
        stop.set()
        await asyncio.gather(*tasks)


async def tell(rest: str, load: Load, stop: asyncio.Event) -> None:
    """A label for every second answer, a second after it."""
    told = 0
    async with httpx.AsyncClient(base_url=rest, timeout=30) as client:
        while not stop.is_set():
            await asyncio.sleep(1.0)
            due = load.ids[told : told + 2 * _LABELS]
            told += len(due)
            body = [{"prediction_id": key.decode(), "label": place % 3 > 0} for place, key in enumerate(due[::2])]
            if body:
                (await client.post("/v1/labels", json=body)).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=200.0)
    asked = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="control-memory-") as name:
        folder = Path(name)
        if asked.minutes:
            asyncio.run(soak(folder, asked.minutes, asked.rate, asked.rows, asked.days))
            return
        uri = str(folder / "lake")
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # what writing leaves in memory is not asked about
            apart.submit(fill, uri, asked.rows, asked.days).result()
        look(folder, uri, asked.rounds)


if __name__ == "__main__":
    main()
