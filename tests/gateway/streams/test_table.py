import datetime as dt
import secrets
import threading

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from gateway.streams.table import KEPT_H, CommitFailed, LakeTable, joined_bytes

SCHEMA = pa.schema([("endpoint", pa.string()), ("date", pa.date32()), ("id", pa.int64()), ("unit", pa.string())])
DAY = dt.date(2026, 11, 1)


def rows(ids, units=10):
    ids = list(ids)
    whose = [f"u{n % units}" for n in ids]
    return pa.table({"endpoint": ["e"] * len(ids), "date": [DAY] * len(ids), "id": ids, "unit": whose}, schema=SCHEMA)


def opened(folder, partitions=("endpoint", "date")):
    return LakeTable(f"{folder}/table", SCHEMA, partitions)


def stored(folder):
    return sorted(DeltaTable(f"{folder}/table").to_pyarrow_dataset().to_table()["id"].to_pylist())


def test_a_table_without_partitions_drops_rows_whatever_others_do_meanwhile(tmp_path):
    """What they append stays for the next drop, what they join is not there twice."""
    first, late = opened(tmp_path, ()), opened(tmp_path, ())
    for at in range(2):
        first.append(rows(range(10 * at, 10 * at + 10)), {"w": at + 1})
    late.reload()
    first.append(rows(range(20, 30)), {"w": 3})
    assert late.drop(pc.field("id") < 5) == 5
    assert stored(tmp_path) == list(range(5, 30))
    first.reload()
    first.compact(KEPT_H)
    assert late.drop(pc.field("id") < 7) == 2
    assert stored(tmp_path) == list(range(7, 30))
    assert [late.drop(pc.field("id") < least) for least in (7, 99, 99)] == [0, 23, 0]
    late.reload()
    assert late.committed("w") == 3


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
        # After twelve it leaves off, or on a busy machine no drop would ever be first.
        while len(appended) < 12 and not is_over.wait(0.02):
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
        while unit < 8:
            try:
                gone += opened(tmp_path).drop(pc.field("unit") == f"u{unit % 8}")
            except CommitFailed:  # it lost every one of its tries, and asking again ends it
                continue
            unit += 1
    except BaseException:
        is_over.set()
        raise
    finally:
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


@pytest.mark.parametrize(
    ("sizes", "joined"),
    [
        ([], 0),
        ([7], 0),
        ([10, 10], 20),
        ([1, 10, 10], 21),
        ([1, 10, 100], 0),
        ([100, 1, 1, 2], 4),
        ([100, 60, 40], 200),
        ([90 << 20, 80 << 20], 0),
        ([80 << 20, 80 << 20], 128 << 20),
    ],
)
def test_a_file_is_joined_once_those_smaller_than_it_are_as_much(sizes, joined):
    assert joined_bytes(sizes) == joined


def test_small_files_are_joined_and_a_row_is_rewritten_as_often_as_its_table_doubles(tmp_path):
    table = opened(tmp_path)
    for number in range(64):
        hard = pa.array([secrets.token_hex(100) for _ in range(100)])  # to compress: files grow as their rows do
        table.append(
            rows(range(number * 100, number * 100 + 100)).set_column(3, SCHEMA.field("unit"), hard), {"w": number + 1}
        )
        table.join()
    assert stored(tmp_path) == list(range(6400))
    assert table.files <= 7
    written = sum(pq.read_metadata(file).num_rows for file in (tmp_path / "table").rglob("e*/**/*.parquet"))
    assert written <= 6400 * 8


def test_each_partition_is_joined_by_itself_also_that_without_an_endpoint(tmp_path):
    table = opened(tmp_path)
    for number, endpoint in enumerate([None, None, "a b='c'", "a b='c'", "large", "e"]):
        ids = range(number * 1000, number * 1000 + (900 if endpoint == "large" else 1))
        with_endpoint = rows(ids).set_column(0, SCHEMA.field("endpoint"), pa.array([endpoint] * len(ids), pa.string()))
        table.append(with_endpoint, {"w": number + 1})
    table.append(rows([9999]).set_column(0, SCHEMA.field("endpoint"), pa.array(["large"])), {"w": 9})
    table.join()
    assert table.files == 5
    assert len(stored(tmp_path)) == 906


def test_the_log_names_deleted_files_for_longer_than_they_are_kept(tmp_path):
    """What a checkpoint does not name any more, no vacuum deletes."""
    opened(tmp_path).append(rows(range(3)), {"w": 1})
    kept = DeltaTable(f"{tmp_path}/table").metadata().configuration["delta.deletedFileRetentionDuration"]
    assert int(kept.split()[1]) > KEPT_H


def test_files_that_no_commit_names_go_too(tmp_path):
    """A rewriting that was overtaken or killed leaves one: rows of somebody who was forgotten since would lie there for ever."""
    first, late = opened(tmp_path), opened(tmp_path)
    first.append(rows(range(20)), {"w": 1})
    late.reload()
    first.append(rows(range(20, 30)), {"w": 2})
    late.drop(pc.field("unit") == "u3")
    late.drop(pc.field("unit") == "u4")
    left = tmp_path / "table" / "endpoint=e" / f"date={DAY}" / "part-of-a-killed-process.parquet"
    pq.write_table(rows([4]).drop(["endpoint", "date"]), left)
    late.compact(1)
    assert left.exists(), "it may be a commit under way"
    late.compact(0)
    found = [pq.ParquetFile(path).read(["unit"])["unit"].to_pylist() for path in left.parent.glob("*.parquet")]
    assert len(found) == 1
    assert not {"u3", "u4"} & set(found[0])
    assert (tmp_path / "table" / "_synced.json").exists()
