import datetime as dt
import threading

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from gateway.streams.table import CommitFailed, LakeTable

SCHEMA = pa.schema([("endpoint", pa.string()), ("date", pa.date32()), ("id", pa.int64()), ("unit", pa.string())])
DAY = dt.date(2026, 11, 1)


def rows(ids, units=10):
    ids = list(ids)
    whose = [f"u{n % units}" for n in ids]
    return pa.table({"endpoint": ["e"] * len(ids), "date": [DAY] * len(ids), "id": ids, "unit": whose}, schema=SCHEMA)


def opened(folder):
    return LakeTable(f"{folder}/table", SCHEMA, ("endpoint", "date"))


def stored(folder):
    return sorted(DeltaTable(f"{folder}/table").to_pyarrow_dataset().to_table()["id"].to_pylist())


def test_what_was_appended_since_a_handle_was_loaded_outlives_a_drop(tmp_path):
    """An overwrite by predicate on a stale handle must not take rows with it that it never read."""
    first, late = opened(tmp_path), opened(tmp_path)
    first.append(rows(range(20)), {"w": 1})
    late.reload()
    first.append(rows(range(20, 30)), {"w": 2})
    assert late.drop(pc.field("unit") == "u3") == 3
    assert stored(tmp_path) == [n for n in range(30) if n % 10 != 3]
    assert late.committed("w") == 2


def test_rows_that_are_appended_while_others_are_dropped_are_there_once(tmp_path):
    """Another process appends now and then, while this one deletes unit after unit: whoever loses the race looks again."""
    opened(tmp_path).append(rows(range(500)), {"w": 500})
    is_over = threading.Event()
    appended = []

    def append():
        table = opened(tmp_path)
        while not is_over.wait(0.02):
            number = 1000 + len(appended)
            while table.committed("w") < number:
                try:
                    table.append(rows([number], units=1_000_000), {"w": number})
                except CommitFailed:
                    table.reload()
            appended.append(number)

    other = threading.Thread(target=append)
    other.start()
    try:
        unit = gone = 0
        while unit < 8 or len(appended) < 12:
            try:
                gone += opened(tmp_path).drop(pc.field("unit") == f"u{unit % 8}")
            except CommitFailed:  # it lost every one of its tries, and asking again ends it
                continue
            unit += 1
    finally:
        is_over.set()
        other.join()
    assert gone == 400
    assert stored(tmp_path) == [n for n in range(500) if n % 10 > 7] + appended


def test_two_that_drop_at_once_drop_each_row_once(tmp_path):
    opened(tmp_path).append(rows(range(100)), {"w": 1})
    counts = []

    def drop(unit):
        for _ in range(20):
            try:
                counts.append(opened(tmp_path).drop(pc.field("unit") == unit))
                return
            except CommitFailed:
                pass

    threads = [threading.Thread(target=drop, args=(f"u{unit}",)) for unit in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [10, 10, 10]
    assert stored(tmp_path) == [n for n in range(100) if n % 10 > 2]


def test_a_table_that_cannot_be_rewritten_says_so(tmp_path):
    table = opened(tmp_path)
    table.append(rows(range(10)), {"w": 1})
    for path in (tmp_path / "table").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(CommitFailed):
        table.drop(pc.field("unit") == "u1")
