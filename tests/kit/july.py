"""A small July: a lake as the gateway writes it and the applications' log beside it, from one seed, for the demo's report."""

import csv
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from gateway.demo.replay import ANSWERS_CSV, ANSWERS_HEAD, LABELS_CSV, LABELS_HEAD
from gateway.streams.schema import LABELS, PREDICTIONS, SHADOWS

_BEGAN_US = 1_750_000_000_000_000


@dataclass(frozen=True, slots=True)
class July:
    """Where the two lie; `answers` and `labels` are the rows of the log, to be changed before `log` writes it again."""

    lake: str
    client: Path
    answers: list[list[object]]
    labels: list[list[object]]

    def log(self) -> None:
        for name, head, rows in ((ANSWERS_CSV, ANSWERS_HEAD, self.answers), (LABELS_CSV, LABELS_HEAD, self.labels)):
            with (self.client / name).open("w", newline="") as file:
                csv.writer(file).writerows([head, *rows])


def write_july(
    folder: Path,
    *,
    flights: int = 600,
    days: int = 6,
    champion_right: float = 0.6,
    challenger_right: float = 0.8,
    candidate_right: float = 0.9,
) -> July:
    """Every 50th flight never lands. Half of July goes by 90 to 10, half by even shares; each model is right with its share."""
    random = np.random.default_rng(7)
    ids = [str(UUID(int=int(n))) for n in random.permutation(flights) + 1]
    is_late = random.random(flights) < 0.3
    even = np.arange(flights) >= flights // 2
    share = np.where(even, 0.5, 0.1)
    is_challenger = random.random(flights) < share
    variant = np.where(is_challenger, "challenger", "champion").tolist()
    live_right = random.random(flights) < np.where(is_challenger, challenger_right, champion_right)
    live = np.where(live_right, is_late, ~is_late)
    candidate = np.where(random.random(flights) < candidate_right, is_late, ~is_late)
    hours = np.arange(flights) * days * 24 // flights
    requests = [f"UA{n}.EWR.201307{hour // 24 + 1:02d}T{4 + hour % 20:02d}00Z" for n, hour in enumerate(hours.tolist())]
    units = [None if n % 40 == 0 else f"N{n}/2013-07" for n in range(flights)]
    received = pa.array(_BEGAN_US + np.arange(flights) * 2500).cast(pa.timestamp("us", "UTC"))
    protocols = ["v2-rest", "mlflow", "v2-rest", "v2-grpc"] * (flights // 4 + 1)
    score = np.where(live, 0.8, 0.2) + random.random(flights) / 10
    common = {
        "prediction_id": ids,
        "row": [0] * flights,
        "rows": [1] * flights,
        "endpoint": ["flights"] * flights,
        "date": received.cast(pa.date32()),
        "received_at": received,
        "revision": np.where(even, 2, 1),
        "unit": units,
        "experiment": [unit is not None for unit in units],
        "model": ["flights"] * flights,
    }
    predictions = {
        **common,
        "sequence": np.arange(1, flights + 1),
        "request_id": requests,
        "assigned": variant,
        "variant": variant,
        "assigned_by": ["split"] * flights,
        "fallback": [False] * flights,
        "propensity": np.where(is_challenger, share, 1 - share),
        "unit_missing": [unit is None for unit in units],
        "protocol": protocols[:flights],
        "status": [200] * flights,
        "version": np.where(is_challenger, "2", "1").tolist(),
        "queue_us": [50] * flights,
        "compute_us": [100] * flights,
        "total_us": random.integers(200, 900, flights),
        "batch_rows": [1] * flights,
        "answer_label": np.where(live, "1", "0").tolist(),
        "answer_score": score,
    }
    shadows = {
        **common,
        "sequence": np.arange(flights + 1, 2 * flights + 1),
        "mirror": ["candidate"] * flights,
        "version": ["3"] * flights,
        "live_variant": variant,
        "outcome": ["recorded"] * flights,
        "compute_us": [100] * flights,
        "batch_rows": [1] * flights,
        "lag_us": random.integers(1000, 9000, flights),
        "answer_label": np.where(candidate, "1", "0").tolist(),
        "answer_score": np.where(candidate, 0.75, 0.15) + random.random(flights) / 10,
    }
    landed = [n for n in range(flights) if n % 50]
    labels = {
        "sequence": np.arange(2 * flights + 1, 2 * flights + 1 + len(landed)),
        "prediction_id": [ids[n] for n in landed],
        "date": received.cast(pa.date32()).take(pa.array(landed)),
        "row": [None] * len(landed),
        "label_text": [str(int(is_late[n])) for n in landed],
        "label_number": [float(is_late[n]) for n in landed],
        "received_at": received.take(pa.array(landed)),
        "keyed": [False] * len(landed),
        "retracted": [False] * len(landed),
    }
    for name, schema, columns in (
        ("predictions", PREDICTIONS, predictions),
        ("shadows", SHADOWS, shadows),
        ("labels", LABELS, labels),
    ):
        write_deltalake(str(folder / "lake" / name), _table(schema, columns))
    client = folder / "client"
    client.mkdir()
    revisions = np.where(even, 2, 1).tolist()
    july = July(
        lake=str(folder / "lake"),
        client=client,
        answers=[
            [requests[n], 0, protocols[n], 200, ids[n], variant[n], revisions[n], int(live[n]), 2000 + n, ""]
            for n in range(flights)
        ],
        labels=[[ids[n], int(is_late[n]), 0, 1] for n in landed],
    )
    july.log()
    return july


def _table(schema: pa.Schema, columns: dict[str, object]) -> pa.Table:
    rows = len(columns["prediction_id"])  # type: ignore[arg-type]
    return pa.table(
        {
            field.name: pa.array(columns[field.name], field.type)
            if field.name in columns and not isinstance(columns[field.name], pa.Array)
            else columns.get(field.name, pa.nulls(rows, field.type))
            for field in schema
        }
    )
