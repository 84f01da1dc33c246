"""The keeper of the lake is killed while it compacts, vacuums, deletes what is too old, or forgets: every reader then sees every row once.

What was stored is known from the keeper's own words before it died, and compared with DuckDB, Polars and Feast, in count and sum.
"""

import random
import runpy
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

feast = pytest.importorskip("feast")

from feast import Entity, FeatureService, FeatureView, FileSource, PushSource  # noqa: E402

from gateway.streams.feast_repo import repo  # noqa: E402
from gateway.streams.feast_view import rows_of_view  # noqa: E402
from tests.kit.gateway import environment  # noqa: E402
from tests.kit.spooled import Place  # noqa: E402

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300)]

TURNS = 6
KEEPER = """
import sys
from pathlib import Path
from gateway.streams import upkeep
from routing.traffic import Retention
from tests.kit.spooled import START_UNIX_US, Place, label, labels, predictions, request
folder, act, turn, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
place, day_us = Place(folder), 86_400_000_000
for at in range(rounds):
    first = turn * 100_000 + at * 100
    kept = [request(n, unit="kept", received_unix_us=START_UNIX_US + n * 1000) for n in range(first, first + 10)]
    gone = [request(n, unit="gone", received_unix_us=START_UNIX_US - 10 * day_us + n) for n in range(first + 50, first + 60)]
    rows = [*kept, *gone] if act in ("retention", "forget") else kept
    truths = labels(*[label(n, 1) for n in range(first, first + 10)])
    place.store(predictions(rows, [0.5] * len(rows)), truths, writer=f"worker-{turn}-{at}")
    print(f"stored {first}", flush=True)
    lake = place.lake()
    if act == "retention":
        upkeep.expire(lake._tables, place.letters, {"phishing": Retention(5 * 86_400)}, START_UNIX_US)
    elif act == "forget":
        lake.forget(["gone"])
    elif act == "vacuum":
        for table in lake._tables.values():
            table._delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        if at % 2:
            lake.compact(0)
    else:
        lake.join()
        lake.compact(24)
    print("done", flush=True)
"""


def keeper(folder, act, turn, rounds=10_000):
    return subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(folder), act, str(turn), str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def killed(folder, act, turn, pause_s):
    """The rounds that it said were stored, and whether it died in the act."""
    child = keeper(folder, act, turn)
    said = [child.stdout.readline().strip()]
    assert said[0], child.stderr.read()
    time.sleep(pause_s)
    child.send_signal(signal.SIGKILL)
    said += child.stdout.read().split("\n")[:-1]
    child.communicate()
    return [int(line.split()[1]) for line in said if line.startswith("stored ")], said[-1].startswith("stored")


def feature_repo(folder, place):
    for path, text in repo(folder, "phishing", place.uri, []).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "data").mkdir()
    made = runpy.run_path(str(folder / "phishing.py")).values()
    known = Entity | FeatureView | FileSource | PushSource | FeatureService
    feast.FeatureStore(str(folder)).apply([one for one in made if isinstance(one, known)])
    return str(folder)


def read(place, features):
    """Kept rows as each reader sees them: ids and the sum of the scores."""
    path = f"{place.uri}/predictions"
    of_duckdb = duckdb.from_arrow(DeltaTable(path).to_pyarrow_dataset()).filter("unit = 'kept'")
    of_polars = pl.scan_delta(path).filter(pl.col("unit") == "kept").select("prediction_id", "answer_score").collect()
    window = datetime.fromtimestamp(0, UTC), datetime(2100, 1, 1, tzinfo=UTC)
    of_feast = rows_of_view(features, "phishing_latest", ["prediction_id", "answer_score", "unit"], *window).to_pandas()
    of_feast = of_feast[of_feast["unit"] == "kept"]
    return {
        "duckdb": [tuple(row) for row in of_duckdb.project("prediction_id, answer_score").fetchall()],
        "polars": list(of_polars.iter_rows()),
        "feast": list(zip(of_feast["prediction_id"], of_feast["answer_score"], strict=True)),
    }


@pytest.mark.parametrize("act", ["compaction", "vacuum", "retention", "forget"])
def test_a_keeper_killed_in_the_act_leaves_every_row_once_for_every_reader(tmp_path, act):
    chance, rounds, cut, features = random.Random(act), [], 0, None
    place = Place(tmp_path)
    turn = -1
    while turn < TURNS - 1 or (not cut and turn < 10 * TURNS):  # once at least, however quick the machine
        turn += 1
        stored, is_cut = killed(tmp_path, act, turn, chance.uniform(0.0, 0.5))
        rounds, cut = rounds + stored, cut + is_cut
        features = features or feature_repo(tmp_path / "features", place)
        seen = read(place, features)
        for reader, rows in seen.items():
            more = len(rows) - 10 * len(rounds)
            assert more in range(0, 10 * (turn + 1) + 1, 10), f"{reader}: {len(rows)} rows of {len(rounds)} rounds"
            assert len({key for key, _ in rows}) == len(rows), f"{reader}: a row twice"
            assert sum(score for _, score in rows) == pytest.approx(0.5 * len(rows))
        assert sorted(seen["duckdb"]) == sorted(seen["polars"]) == sorted(seen["feast"])
    last = keeper(tmp_path, act, turn + 1, rounds=1)
    assert last.wait(60) == 0, last.communicate()
    last.communicate()
    left = duckdb.from_arrow(DeltaTable(f"{place.uri}/predictions").to_pyarrow_dataset())
    assert left.filter("unit = 'gone'").aggregate("count(*)").fetchall() == [(0,)], "a successor ends what was begun"
    assert cut >= 1, "no kill fell into the act"
    print(f"\n{act}: {cut} of {turn + 1} kills fell into it, {len(rounds)} rounds before them")
