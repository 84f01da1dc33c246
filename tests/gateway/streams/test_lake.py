import os
import signal
import subprocess
import sys

import duckdb
import msgspec
import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from gateway.streams.lake import Tally
from gateway.streams.letters import redriven
from gateway.streams.table import CommitFailed
from routing.records import Column, MetricBlock, MinuteRow
from tests.kit.spooled import Place, encode, label, labels, pid_text, predictions, request, shadows


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def rows(place, table="predictions"):
    return DeltaTable(f"{place.uri}/{table}").to_pyarrow_dataset().to_table().to_pylist()


def ids(place):
    return sorted(row["prediction_id"] for row in rows(place))


def test_one_row_an_input_row_with_typed_columns(place):
    fields = {"unit": "ab" * 16, "trace_id": b"\x01" * 16, "request_id": "r-1", "rule": "beta", "assigned_by": 1}
    place.store(predictions([request(0, **fields), request(1, rows=2, assigned=1)], [0.75, 0.25, 0.5]))
    found = sorted(rows(place), key=lambda row: (row["prediction_id"], row["row"]))
    assert [(row["prediction_id"], row["row"], row["rows"]) for row in found] == [
        (pid_text(0), 0, 1),
        (pid_text(1), 0, 2),
        (pid_text(1), 1, 2),
    ]
    first, last = found[0], found[-1]
    assert first["endpoint"] == "phishing"
    assert (first["assigned"], first["variant"], last["variant"]) == ("champion", "champion", "challenger")
    assert (first["unit"], first["trace_id"], first["request_id"]) == ("ab" * 16, "01" * 16, "r-1")
    assert (first["rule"], first["assigned_by"], first["protocol"]) == ("beta", "rule", "v2-rest")
    assert [(row["answer_label"], row["answer_score"]) for row in found] == [("1", 0.75), ("0", 0.25), ("1", 0.5)]
    assert [row["input_x"] for row in found] == [0.0, 1.0, 2.0]
    assert first["output_probabilities"] == [0.25, 0.75]
    assert first["received_at"].isoformat() == "2026-09-21T14:13:20+00:00"
    assert first["date"] == first["received_at"].date()


def test_a_failure_is_a_row_without_outputs_and_a_fallback_says_so(place):
    place.store(
        predictions([request(0, answered=-1, code="model_failed")], None),
        predictions([request(1, assigned=1, answered=0)], [0.9]),
    )
    failed, fell_back = sorted(rows(place), key=lambda row: row["prediction_id"])
    assert (failed["variant"], failed["status"], failed["code"], failed["fallback"]) == (
        None,
        500,
        "model_failed",
        False,
    )
    assert failed["answer_label"] is None
    assert failed["input_x"] == 0.0
    assert (fell_back["assigned"], fell_back["variant"], fell_back["fallback"]) == ("challenger", "champion", True)


def test_a_name_keeps_its_first_type_and_another_type_gets_another_column(place):
    text = Column("x", "BYTES", (1,), ["red"])
    wide = Column("wide", "FP64", (2, 2), np.arange(4, dtype="<f8").tobytes())
    kept_back = Column("secret", "FP32", (1,), None)
    huge = Column("huge", "UINT64", (), np.array([2**64 - 1], "<u8").tobytes())
    place.store(
        predictions([request(0)], [0.5]),
        predictions([request(1)], [0.5], inputs=[text, wide, kept_back, huge]),
    )
    first, second = sorted(rows(place), key=lambda row: row["prediction_id"])
    assert (first["input_x"], first["input_x__BYTES"]) == (0.0, None)
    assert (second["input_x"], second["input_x__BYTES"]) == (None, "red")
    assert second["input_wide"] == [0.0, 1.0, 2.0, 3.0]
    assert int(second["input_huge"]) == 2**64 - 1
    assert "input_secret" not in second


def test_the_naming_survives_a_restart(place):
    place.store(predictions([request(0)], [0.5]), writer="worker-1")
    place.store(predictions([request(1)], [0.5], inputs=[Column("x", "BYTES", (), ["a"])]), writer="worker-2")
    place.store(predictions([request(2)], [0.5]), writer="worker-3")
    assert [row["input_x"] for row in sorted(rows(place), key=lambda row: row["prediction_id"])] == [0.0, None, 0.0]


def test_rows_are_numbered_in_the_order_of_their_commit_over_all_writers(place):
    place.store(labels(label(0, 1), label(1, "spam"), label(2, True)), writer="worker-1")
    place.store(labels(label(3, 2.5, row=1), label(None, None, endpoint="phishing", request_id="r")), writer="worker-2")
    found = sorted(rows(place, "labels"), key=lambda row: row["sequence"])
    assert [row["sequence"] for row in found] == [1, 2, 3, 4, 5]
    assert [row["label_text"] for row in found] == ["1", "spam", "true", "2.5", None]
    assert [row["label_number"] for row in found] == [1.0, None, 1.0, 2.5, None]
    assert [row["retracted"] for row in found] == [False, False, False, False, True]
    assert [row["row"] for row in found] == [None, None, None, 1, None], "what was not said is not made up"
    assert (found[4]["prediction_id"], found[4]["request_id"], found[4]["endpoint"]) == (None, "r", "phishing")


def test_shadows_and_minutes_have_their_tables(place):
    minute = MinuteRow("phishing", "champion", "phishing", "1", 1_790_000_040, 10, 1, 12, 0.5, [1, 2, 3])
    place.store(
        shadows([0, 1], ["0", "1"], ["0", "0"], live_scores=[0.1, 0.9], scores=[0.2, 0.3]),
        shadows([2], [None], [None], outcome="not_warm"),
        MetricBlock([minute]),
    )
    found = sorted(rows(place, "shadows"), key=lambda row: row["prediction_id"])
    assert [(row["live_label"], row["answer_label"], row["outcome"]) for row in found] == [
        ("0", "0", "recorded"),
        ("1", "0", "recorded"),
        (None, None, "not_warm"),
    ]
    assert {row["live_variant"] for row in found} == {"champion"}
    mirror, live = sorted(rows(place, "metrics"), key=lambda row: row["requests"])
    assert (live["role"], live["requests"], live["latency_buckets"]) == ("live", 10, [1, 2, 3])
    assert (mirror["role"], mirror["requests"], mirror["errors"], mirror["compared"]) == ("mirror", 3, 1, 2)
    assert {row["writer"] for row in rows(place, "metric_parts")} == {"worker-1"}


def test_duckdb_and_polars_read_what_was_written(place):
    place.store(predictions([request(n) for n in range(10)], [n / 10 for n in range(10)]))
    path = f"{place.uri}/predictions"
    source = DeltaTable(path).to_pyarrow_dataset()
    sql = "SELECT count(*), sum(input_x), count(*) FILTER (answer_label = '1') FROM source WHERE endpoint = 'phishing'"
    connection = duckdb.connect()
    connection.register("source", source)
    assert connection.execute(sql).fetchall() == [(10, 45.0, 5)]
    connection.close()
    frame = pl.read_delta(path)
    assert frame.height == 10
    assert frame["answer_score"].max() == pytest.approx(0.9)


def test_segments_go_when_all_tables_hold_them_and_a_dead_writer_with_them(place):
    writer = place.writer(segment_bytes=2000)
    lake = place.lake()
    for n in range(20):
        writer.append(encode(predictions([request(n)], [0.5]), labels(label(n, 1))))
        writer._helper.submit(lambda: None).result()
    before = len(list((place.spool / "worker-1").glob("*.seg")))
    lake.read()
    assert len(list((place.spool / "worker-1").glob("*.seg"))) == before
    assert lake.commit()
    assert len(list((place.spool / "worker-1").glob("*.seg"))) < before
    writer.close()
    lake.read()
    lake.commit()
    assert not (place.spool / "worker-1").exists()
    assert len(ids(place)) == 20
    lake.close()


def test_what_was_read_again_after_a_crash_is_not_written_again(place):
    writer = place.writer()
    writer.append(encode(*[predictions([request(n)], [0.5]) for n in range(5)]))
    first = place.lake()
    first.read()
    first._commit("predictions")  # and dies before the release
    first.close()
    writer.append(encode(predictions([request(5)], [0.5])))
    second = place.lake()
    second.read()
    assert second.commit()
    second.close()
    writer.close()
    assert ids(place) == [pid_text(n) for n in range(6)]


def test_a_commit_whose_reply_was_lost_is_not_repeated(place, monkeypatch):
    writer = place.writer()
    writer.append(encode(predictions([request(0)], [0.5]), labels(label(0, 1))))
    lake = place.lake()
    lake.read()
    for name in ("predictions", "labels"):
        table = lake._tables[name]
        append = table.append

        def lose_the_reply(rows, transactions, append=append, table=table):
            append(rows, transactions)
            monkeypatch.setattr(table, "append", append)
            raise CommitFailed("the reply was lost")

        monkeypatch.setattr(table, "append", lose_the_reply)
    assert lake.commit()
    lake.close()
    writer.close()
    assert len(rows(place)) == len(rows(place, "labels")) == 1


def test_another_process_that_wrote_first_wins_and_nothing_is_doubled(place):
    """As when a control process is started while the one before it still hangs."""
    writer = place.writer()
    writer.append(encode(*[labels(label(n, n)) for n in range(3)]))
    late, early = place.lake(), place.lake()
    late.read()
    early.read()
    assert early.commit()
    writer.append(encode(labels(label(3, 3))))
    late.read()
    assert late.commit()
    early.close()
    late.close()
    writer.close()
    assert sorted(row["sequence"] for row in rows(place, "labels")) == [1, 2, 3, 4]


def test_poison_goes_to_the_dead_letters_and_blocks_nothing(place):
    short = predictions([request(1)], [0.5], inputs=[Column("x", "FP32", (1,), b"\x00" * 6)])
    writer = place.writer()
    good = encode(predictions([request(0)], [0.5]), predictions([request(2)], [0.5]))
    writer.append([good[0], b"\xc1 no messagepack", *encode(short), b"\x91\xa1z", good[1]])
    writer.close()
    lake = place.lake()
    lake.read()
    assert lake.commit()
    lake.close()
    assert ids(place) == [pid_text(0), pid_text(2)]
    assert place.letters.deliver()
    kept = {row["letter"]: row["table"] for row in rows(place, "dead_letters")}
    assert kept == {f"worker-1-{number:012d}": table for number, table in ((2, None), (3, "predictions"), (4, None))}
    assert place.letters.count == 3


def test_a_letter_that_is_read_again_goes_to_the_one_table_that_could_not_take_it(place):
    """A shadow's block is for two tables; what one of them has of it must not come twice."""
    told = msgspec.structs.replace(shadows([0], ["1"], ["1"]), dropped={"late": 2})
    place.store(told, writer=redriven("shadow-1-000000000001", "metric_parts", "try"))
    place.store(predictions([request(0)], [0.5]), writer=redriven("worker-1-000000000001", None, "try"))
    assert (rows(place, "shadows"), len(rows(place, "metrics")), len(rows(place, "predictions"))) == ([], 1, 1)


def test_compaction_changes_no_row_and_no_commit_after_it(place):
    writer = place.writer()
    lake = place.lake()
    for n in range(12):
        writer.append(encode(predictions([request(n)], [0.5])))
        lake.read()
        assert lake.commit()
    lake.compact(vacuum_after_h=0)
    files = len(DeltaTable(f"{place.uri}/predictions").file_uris())
    writer.append(encode(predictions([request(12)], [0.5])))
    lake.read()
    assert lake.commit()
    lake.close()
    writer.close()
    assert files == 1
    assert ids(place) == [pid_text(n) for n in range(13)]


CHILD = """
import os, sys
from pathlib import Path
from gateway.streams.table import LakeTable
from tests.kit.spooled import Place
place, kill_at, after = Place(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3] == "after"
append, commits = LakeTable.append, 0
def counted(table, rows, transactions):
    global commits
    commits += 1
    if commits == kill_at and not after:
        os.kill(os.getpid(), 9)
    append(table, rows, transactions)
    if commits == kill_at:
        os.kill(os.getpid(), 9)
LakeTable.append = counted
lake = place.lake()
while lake.read():
    assert lake.commit()
lake.commit()
print("done", flush=True)
"""


@pytest.mark.faults
def test_kill_9_anywhere_around_a_commit_neither_loses_nor_doubles_a_row(place, tmp_path):
    for name in ("worker-1", "worker-2"):
        writer = place.writer(name)
        base = 0 if name == "worker-1" else 100
        writer.append(encode(*[predictions([request(base + n)], [0.5]) for n in range(50)]))
        writer.append(encode(*[labels(label(base + n, 1)) for n in range(50)]))
        writer.append(encode(shadows([base], ["0"], ["1"])))
        writer.close()
    deaths = 0
    for kill_at, when in [(1, "before"), (1, "after"), (1, "before"), (1, "after"), (1, "after"), (9, "after")]:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path), str(kill_at), when],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": "."},
        )
        deaths += child.returncode == -signal.SIGKILL
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
    assert deaths == 5
    assert ids(place) == sorted(pid_text(n) for n in [*range(50), *range(100, 150)])
    assert len(rows(place, "labels")) == 100
    assert len(rows(place, "shadows")) == 2
    numbers = [row["sequence"] for table in ("predictions", "labels", "shadows") for row in rows(place, table)]
    assert sorted(numbers) == list(range(1, 203))
    assert not list(place.spool.iterdir())


def test_the_tally_counts_rows_by_table(place):
    place.store(predictions([request(0, rows=3)], [0.1, 0.2, 0.3]), labels(label(0, 1)))
    assert {name: rows for name, rows in place.tally.rows.items() if rows} == {"predictions": 3, "labels": 1}
    assert Tally().rows["predictions"] == 0
