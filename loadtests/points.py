"""One prediction out of millions: `python -m loadtests.points --rows 10000000`. Temporary files only: some 60 bytes a row.

Fills the tables with a month of predictions of one endpoint (and shadows of a tenth, labels of a fiftieth), as the lake lays them out after
its compactions, then asks for random ones as `GET /admin/v1/predictions/{id}` does: the first ask of a process, and those after it.
"""

import argparse
import datetime as dt
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa

from gateway.evidence.evidence import Evidence
from gateway.streams.arrow import uuids
from gateway.streams.schema import LABELS, PARTITIONS, PREDICTIONS, SCHEMAS, SHADOWS
from gateway.streams.table import LakeTable

START_UNIX_S = 1_790_000_000 // 86_400 * 86_400
DAYS = 30
_PART = 250_000


def ids(first: int, count: int, total: int) -> tuple[list[bytes], np.ndarray]:
    """UUIDv7s of rows `first` on, of `total` spread evenly over the days, and their arrival in microseconds."""
    us = START_UNIX_S * 1_000_000 + (np.arange(first, first + count) * (DAYS * 86_400_000_000 / total)).astype(np.int64)
    chance = np.random.default_rng(first).integers(0, 256, (count, 16), np.uint8)
    chance[:, :6] = (us // 1000).astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    chance[:, 6] = 0x70 | chance[:, 6] & 0x0F
    chance[:, 8] = 0x80 | chance[:, 8] & 0x3F
    return [row.tobytes() for row in chance], us


def rows(schema: pa.Schema, columns: dict[str, pa.Array]) -> pa.Table:
    count = len(columns["prediction_id"])
    whole = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in schema]
    return pa.table([column.cast(field.type) for column, field in zip(whole, schema, strict=True)], schema=schema)


def fill(uri: str, total: int) -> list[str]:
    """Writes the tables; some of the ids."""
    tables = {name: LakeTable(f"{uri}/{name}", schema, PARTITIONS) for name, schema in SCHEMAS.items()}
    known, sequence = [], 0
    for first in range(0, total, _PART):
        count = min(_PART, total - first)
        keys, us = ids(first, count, total)
        known += [str(uuid.UUID(bytes=keys[at])) for at in range(0, count, max(1, count // 20))]
        at = pa.array(us).cast(pa.timestamp("us", "UTC"))
        score = pa.array(np.random.default_rng(first).random(count))
        text = lambda value, count=count: pa.repeat(pa.scalar(value), count)
        plain = {
            "sequence": pa.array(np.arange(sequence + 1, sequence + 1 + count)),
            "prediction_id": uuids(keys),
            "row": pa.array(np.zeros(count, np.int32)),
            "rows": pa.array(np.ones(count, np.int32)),
            "endpoint": text("phishing"),
            "date": at.cast(pa.date32()),
            "received_at": at,
            "model": text("phishing"),
            "version": text("1"),
            "answer_label": text("1"),
            "answer_score": score,
        }
        given = {
            "variant": text("champion"),
            "assigned": text("champion"),
            "digest": text("d1"),
            "status": pa.array(np.full(count, 200)),
        }
        inputs = {f"input_f{n}": pa.array(np.random.default_rng(n).random(count, np.float32)) for n in range(4)}
        table = rows(PREDICTIONS, plain | given)
        for name, column in inputs.items():
            table = table.append_column(name, column)
        tables["predictions"].append(table, {"fill": first + 1})
        tenth = pa.array(np.arange(0, count, 10))
        mirrored = {name: column.take(tenth) for name, column in plain.items()}
        more = {
            "mirror": text("candidate").take(tenth),
            "outcome": text("recorded").take(tenth),
            "live_variant": text("champion").take(tenth),
        }
        tables["shadows"].append(rows(SHADOWS, mirrored | more), {"fill": first + 1})
        few = pa.array(np.arange(0, count, 50))
        said = {name: plain[name].take(few) for name in ("sequence", "prediction_id", "row", "date", "received_at")}
        false = pa.array(np.zeros(len(few), bool))
        said |= {"label_text": text("1").take(few), "retracted": false, "keyed": false}
        tables["labels"].append(rows(LABELS, said), {"fill": first + 1})
        sequence += count
    for table in tables.values():
        table.compact(0)
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--asks", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="points-") as folder:
        uri = str(Path(folder) / "lake")
        began = time.perf_counter()
        known = fill(uri, asked.rows)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
        print(f"{asked.rows} rows over {DAYS} days in {time.perf_counter() - began:.0f} s, {size / 1e6:.0f} MB")
        evidence = Evidence(uri, lambda _: None)
        chance, took = np.random.default_rng(dt.date(2026, 11, 23).toordinal()), []
        for key in [known[at] for at in chance.integers(0, len(known), asked.asks)]:
            began = time.perf_counter()
            found = evidence.prediction(key)
            took.append(1000 * (time.perf_counter() - began))
            assert found is not None
            assert found["record"]["prediction_id"] == key
        cuts = statistics.quantiles(took[1:], n=100)
        print(
            f"first ask {took[0]:.1f} ms; then p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, longest {max(took[1:]):.1f} ms"
        )


if __name__ == "__main__":
    main()
