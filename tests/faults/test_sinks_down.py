"""The lake cannot be written for a while, or holds what nobody can read, or its keeper dies while it tidies up: callers notice nothing."""

import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from gateway.spool.segment import SegmentWriter
from tests.kit import files
from tests.kit.gateway import Gateway, RestCaller, Served, environment, eventually, route
from tests.kit.spooled import Place, encode, pid_text, predictions, request

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LAG_S = 3.0
"""How long a lake is down at least, by what the gateway says of it."""


@contextmanager
def lake_down(gateway: Gateway):
    """The lake's folder is away, and something is in its place."""
    lake, away = gateway.state / "lake", gateway.state / "lake.away"
    lake.rename(away)
    lake.write_text("in the way")
    try:
        yield
    finally:
        lake.unlink()
        away.rename(lake)


def spool_bytes(gateway: Gateway) -> int:
    return sum(path.stat().st_size for path in (gateway.state / "spool").rglob("*.seg"))


def p99_ms(log: Served, since: float, until: float) -> float:
    took = sorted(one["done_at"] - one["sent_at"] for one in log.answered if since < one["sent_at"] < until)
    return 1000 * took[int(len(took) * 0.99)]


def test_a_lake_that_is_down_costs_no_caller_anything_and_is_then_filled_exactly(tmp_path):
    model = files.binary(tmp_path / "model.onnx")
    with Gateway(tmp_path) as gateway:
        gateway.apply(route("phishing", ("champion", model, 1)))
        with Served(RestCaller(gateway, "phishing"), 1) as log:
            log.wait_for(300)
            gateway.stored("predictions", 100)
            began = time.monotonic()
            with lake_down(gateway):
                eventually(lambda: gateway.metric("runoff_sink_lag_seconds", sink="lake") > LAG_S, 60, 0.1)
                ended, held = time.monotonic(), spool_bytes(gateway)
            log.wait_for(300)
        drained = time.monotonic()
        assert not log.failed
        gateway.stored("predictions", len(log.answered), within_s=60)
        drain_s = time.monotonic() - drained
        stored = [found[0] for found in gateway.lake("SELECT prediction_id FROM predictions")]
        assert sorted(stored) == sorted(one["prediction_id"] for one in log.answered)
        eventually(lambda: gateway.metric("runoff_sink_lag_seconds", sink="lake") < 2, 30, 0.2)
        # A segment is let go once a later request has begun the next one, ten seconds on.
        eventually(
            lambda: gateway.infer("phishing", [[1, 2, 3, 4]]).status_code == 200 and spool_bytes(gateway) < held,
            60,
            0.2,
        )
        print(
            f"\nlake down {ended - began:.1f} s: {len(log.answered)} answered, 0 failed, p99 {p99_ms(log, 0, began):.1f} ms"
            f" before, {p99_ms(log, began, ended):.1f} ms while down; {held / 1e6:.1f} MB held, all stored {drain_s:.1f} s later"
        )


def test_a_spool_that_fills_follows_on_failure_stays_in_its_bound_and_heals(tmp_path):
    model, bound = files.binary(tmp_path / "model.onnx"), 400_000
    with Gateway(tmp_path, spool_bytes_max=bound) as gateway:
        gateway.apply(route("open", ("champion", model, 1)))
        gateway.apply(route("closed", ("champion", model, 1), record={"on_failure": "closed"}))
        with Served(RestCaller(gateway, "open"), 1) as opened, Served(RestCaller(gateway, "closed"), 1) as closed:
            opened.wait_for(50)
            with lake_down(gateway):
                eventually(lambda: gateway.metric("runoff_records_total", outcome="failed") > 200, 60, 0.1)
                assert spool_bytes(gateway) <= bound
            eventually(lambda: closed.answered[-1]["sent_at"] > closed.failed[-1]["done_at"], 60, 0.1)
            opened.wait_for(50)
            closed.wait_for(50)
        assert not opened.failed
        assert {one["status"] for one in closed.failed} == {503}
        recorded = gateway.metric("runoff_records_total", outcome="recorded")
        failed = gateway.metric("runoff_records_total", outcome="failed")
        assert recorded + failed == len(opened.answered) + len(closed.answered) + len(closed.failed)
        gateway.stored("predictions", int(recorded), within_s=60)
        stored = gateway.lake("SELECT endpoint, prediction_id FROM predictions")
        assert len(stored) == len(set(stored)) == recorded
        answered = {one["prediction_id"] for one in closed.answered}
        assert answered <= {key for endpoint, key in stored if endpoint == "closed"}


def test_poison_goes_to_the_dead_letters_and_holds_nobody_up(tmp_path):
    model = files.binary(tmp_path / "model.onnx")
    poison = [b"\xc1 no message at all", b"\x93\xa1z\x01\x02", encode(predictions([request(0)], [0.5]))[0][:-7]]
    with Gateway(tmp_path) as gateway:
        gateway.apply(route("phishing", ("champion", model, 1)))
        spool = SegmentWriter(gateway.state / "spool" / "worker-of-an-older-release", bytes_max=1 << 20)
        good = encode(predictions([request(1)], [0.5]))
        spool.append([poison[0], *good, *poison[1:]])
        spool.close()
        for _ in range(20):
            assert gateway.infer("phishing", [[1, 2, 3, 4]]).status_code == 200
        gateway.stored("predictions", 21)
        table = gateway.state / "lake" / "dead_letters"
        eventually(table.is_dir)
        letters = DeltaTable(str(table)).to_pyarrow_dataset().to_table()
        assert sorted(letters["payload"].to_pylist()) == sorted(poison)
        eventually(lambda: gateway.metric("runoff_sink_rows_total", sink="lake", outcome="dead_letter") == len(poison))
        eventually(lambda: not (gateway.state / "spool" / "worker-of-an-older-release").exists())
        assert gateway.lake("SELECT count(*) FROM predictions WHERE prediction_id = ?", pid_text(1)) == [(1,)]


TIDY = """
import sys
from pathlib import Path
from tests.kit.spooled import Place, encode, predictions, request
folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
place = Place(folder)
if not (place.spool / f"worker-{first}").exists() and first >= 0:
    writer = place.writer(f"worker-{first}")
    for number in range(first, first + count):
        writer.append(encode(predictions([request(number)], [number % 100 / 100])))
    writer.close()
    print("spooled", flush=True)
lake = place.lake()
while lake.read():
    lake.commit()
lake.commit()
while True:
    print("tidying", flush=True)
    lake.compact(vacuum_after_h=0)
    print("tidy", flush=True)
    if first < 0:
        break
    place.store(predictions([request(first + count)], [0.25]), writer=f"extra-{first}-{count}")
    print(f"extra {first + count}", flush=True)
    count += 1
    lake = place.lake()
"""


def test_a_crash_while_tables_are_compacted_and_vacuumed_changes_no_row(tmp_path):
    """Killed again and again within the first tenths of a second of a compaction; DuckDB and Polars then read what was written."""
    chance, wanted, cut = random.Random(7), {}, 0
    turns = 0
    while turns < 8 or (cut < 3 and turns < 40):
        first = turns * 1000
        turns += 1
        child = subprocess.Popen(
            [sys.executable, "-c", TIDY, str(tmp_path), str(first), "20"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        said = []
        while not said or said[-1] != "tidying":
            line = child.stdout.readline().strip()
            assert line, child.stderr.read()
            said.append(line)
        time.sleep(chance.uniform(0.0, 0.4))
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read().split("\n")
        child.communicate()
        wanted |= {number: number % 100 / 100 for number in range(first, first + 20)}
        wanted |= {int(line.split()[1]): 0.25 for line in said if line.startswith("extra")}
        cut += [line for line in said if line][-1] == "tidying"
    last = subprocess.run(
        [sys.executable, "-c", TIDY, str(tmp_path), "-1", "0"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert last.returncode == 0, last.stderr
    assert cut >= 3, "hardly any kill fell into a compaction"
    path = Path(Place(tmp_path).uri) / "predictions"
    frame = pl.read_delta(str(path))
    found = duckdb.from_arrow(DeltaTable(str(path)).to_pyarrow_dataset().to_table())
    count, distinct, total = found.aggregate(
        "count(*), count(DISTINCT prediction_id), sum(answer_score::DOUBLE)"
    ).fetchall()[0]
    # What was stored and not said before the kill is there as well, and was a single row of 0.25 each time.
    more = frame.height - len(wanted)
    assert 0 <= more <= turns
    assert set(frame["prediction_id"]) >= {pid_text(number) for number in wanted}
    assert count == distinct == frame.height
    assert total == pytest.approx(sum(wanted.values()) + 0.25 * more, abs=1e-4)
    assert frame["answer_score"].sum() == pytest.approx(total, abs=1e-4)
    print(f"\n{cut} of {turns} kills fell into a compaction; {count} rows, each once")
