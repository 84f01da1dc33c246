import datetime as dt
import threading

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyarrow import parquet

from gateway.streams import ingest as ingest_module
from gateway.streams.ingest import ingest

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "lake" / "ingested" / "customers")


def take(uri, source):
    return [(one.file.rpartition("/")[2], one.state, one.rows) for one in ingest(uri, str(source), NOW)]


def stored(uri, columns="*"):
    with duckdb.connect() as connection:
        connection.register("t", DeltaTable(uri).to_pyarrow_dataset())
        return connection.execute(f"SELECT {columns} FROM t ORDER BY _file, _row").fetchall()


def test_a_folder_is_taken_whole_and_each_file_once_by_what_it_holds(uri, tmp_path):
    inbox = tmp_path / "inbox" / "deep"
    inbox.mkdir(parents=True)
    (inbox / "a.csv").write_text("id,age\n1,30\n2,40\n")
    (inbox.parent / "b.json").write_text('[{"id": 3, "age": 50}]')
    parquet.write_table(pa.table({"id": [4], "age": [60]}), inbox / "c.parquet")
    (inbox / ".hidden.csv").write_text("id\n9\n")
    (inbox / "logo.png").write_bytes(b"\x89PNG\0\xff\0\xff")
    assert take(uri, tmp_path / "inbox") == [
        ("b.json", "added", 1),
        ("a.csv", "added", 2),
        ("c.parquet", "added", 1),
        ("logo.png", "refused", 0),
    ]
    (inbox / "a.csv").rename(inbox / "same bytes, other name.csv")
    assert {state for _, state, _ in take(uri, tmp_path / "inbox")} == {"known", "refused"}
    assert sorted(row for row in stored(uri, "id, age")) == [(1, 30), (2, 40), (3, 50), (4, 60)]


def test_columns_come_and_change_their_types_and_nothing_is_lost(uri, tmp_path):
    (tmp_path / "1.csv").write_text("age,first name\n30,Ann\n")
    (tmp_path / "2.csv").write_text("age,first name,City\nunknown,Bob,Ulm\n")
    (tmp_path / "3.csv").write_text("age,first name,city\n31,,Bonn\n")
    for number in "123":
        take(uri, tmp_path / f"{number}.csv")
    assert stored(uri, "age, age__string, first_name, City") == [
        (30, None, "Ann", None),
        (None, "unknown", "Bob", "Ulm"),
        (31, None, None, "Bonn"),
    ]


def test_types_that_delta_has_not_are_stored_as_the_next_wider_or_as_text(uri, tmp_path):
    rows = {
        "u": pa.array([2**64 - 1], pa.uint64()),
        "half": pa.array([0.5], pa.float16()),
        "ns": pa.array([1], pa.timestamp("ns")),
        "kind": pa.array(["a"]).dictionary_encode(),
        "nothing": pa.nulls(1),
        "time": pa.array([dt.time(1, 2)]),
        "a b": pa.array([1]),
        "A_B": pa.array([2]),
    }
    parquet.write_table(pa.table(rows), tmp_path / "x.parquet")
    take(uri, tmp_path / "x.parquet")
    assert stored(uri, 'u::VARCHAR, half, kind, nothing, "time", a_b, "A_B_2"') == [
        ("18446744073709551615", 0.5, "a", None, "01:02:00", 1, 2)
    ]


def test_polars_reads_what_was_ingested_with_where_it_came_from(uri, tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n2\n")
    take(uri, tmp_path / "a.csv")
    found = pl.read_delta(uri)
    assert found["_row"].to_list() == [0, 1]
    assert found["_file"].unique().to_list() == [str(tmp_path / "a.csv")]
    assert found["_ingested_at"].unique().to_list() == [NOW]


def test_two_at_once_take_each_file_once(uri, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(6):
        (inbox / f"{number}.csv").write_text(f"n\n{number}\n")
    take(uri, inbox / "0.csv")
    threads = [threading.Thread(target=take, args=(uri, inbox)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stored(uri, "n")) == [(number,) for number in range(6)]


def test_a_source_that_is_not_there_is_said(uri, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such"):
        take(uri, tmp_path / "none")


def put(uri, folder, **texts):
    """Files, each taken for itself, in order."""
    for name, content in texts.items():
        path = folder / f"{name}.json"
        if isinstance(content, pa.Table):
            parquet.write_table(content, path)
        else:
            path.write_text(content)
        assert [state for _, state, _ in take(uri, path)] == ["added"]


def test_a_value_that_would_not_come_back_from_the_columns_type_gets_a_column_of_its_own(uri, tmp_path):
    put(uri, tmp_path, a="paid,zip,part\ntrue,89073,1.5\n", b="paid,zip,part\n5,1,1\n")
    put(uri, tmp_path, c='[{"paid": "1", "zip": "00123", "part": "1.50"}]')
    assert stored(uri, "paid, paid__int64, paid__string, zip, zip__string, part, part__string") == [
        (True, None, None, 89073, None, 1.5, None),
        (None, 5, None, 1, None, 1.0, None),
        (None, None, "1", None, "00123", None, "1.50"),
    ]


def test_objects_of_another_form_than_before_keep_all_their_fields(uri, tmp_path):
    put(uri, tmp_path, a='[{"n": {"a": 1}}]', b='[{"n": {"a": 2, "b": "x"}}]', c='[{"n": {"b": "y"}}]')
    assert stored(uri, "n.a, n__json") == [(1, None), (None, '{"a":2,"b":"x"}'), (None, '{"b":"y"}')]


def test_moments_numbers_and_clocks_without_a_zone_are_not_taken_for_each_other(uri, tmp_path):
    zoned = pa.array([0], pa.timestamp("us", "UTC"))
    put(uri, tmp_path, a=pa.table({"at": zoned}), b="at\n2026-01-01 00:00:00\n", c="at\n7\n")
    put(uri, tmp_path, d='[{"at": "2026-01-01T00:00:00+02:00"}]')
    assert stored(uri, 'epoch("at"), at__timestamp_us::VARCHAR, at__int64') == [
        (0, None, None),
        (None, "2026-01-01 00:00:00", None),
        (None, None, 7),
        (1767218400, None, None),
    ]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pa.array([{"a": 255}], pa.struct([("a", pa.uint8())])), {"a": 255}),
        (pa.array([[65535]], pa.list_(pa.uint16())), [65535]),
        (pa.array([[0.5]], pa.list_(pa.float16())), [0.5]),
        (
            pa.array([[1500]], pa.list_(pa.timestamp("ns"))),
            [dt.datetime(1970, 1, 1, 0, 0, 0, 1, dt.UTC).replace(tzinfo=None)],
        ),
        (pa.array([[None]], pa.list_(pa.null())), [None]),
        (pa.array([{"t": dt.time(1)}]), '{"t":"01:00:00"}'),
        (pa.array([[dt.timedelta(1)]]), '["P1D"]'),
        (pa.array([{}], pa.struct([])), "{}"),
        (pa.array([{"a": {}}]), '{"a":{}}'),
        (pa.array([[1]], pa.list_view(pa.int8())), "[1]"),
        (pa.array(["1" * 50]).cast(pa.decimal256(50, 0)), "1" * 50),
    ],
)
def test_any_nested_or_wide_type_is_stored_for_every_reader(uri, tmp_path, monkeypatch, values, found):
    monkeypatch.setattr(ingest_module, "rows_of", lambda *_: pa.table({"v": values, "w": values}))
    put(uri, tmp_path, x="Parquet has not all of these")
    assert stored(uri, "v, w") == [(found, found)]
    assert pl.read_delta(uri).height == 1


def test_one_file_with_empty_objects_holds_up_no_other(uri, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.jsonl").write_text('{"id": 1, "tags": {}}\n')
    (inbox / "b.jsonl").write_text("{}\n{}\n")
    (inbox / "c.jsonl").write_text('{"id": 3}\n')
    assert take(uri, inbox) == [("a.jsonl", "added", 1), ("b.jsonl", "added", 2), ("c.jsonl", "added", 1)]
    assert stored(uri, 'id, tags, "value"') == [
        (1, "{}", None),
        (None, None, "{}"),
        (None, None, "{}"),
        (3, None, None),
    ]
