import datetime as dt
import uuid

import msgspec
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyarrow import parquet

from gateway.rest.labels import decode
from gateway.streams.truth_tables import TruthTable, TruthUnreadable, read, truth_tables

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
CASES = pa.table(
    {
        "case": pa.array([101, 102, 103, 104], pa.int64()),
        "fraud": pa.array([1, 0, None, 1], pa.int8()),
        "closed": pa.array([NOW - 40 * DAY, NOW - 2 * DAY, None, NOW - DAY], pa.timestamp("us", "UTC")),
    }
)


def table(where, **more):
    plain = {"endpoint": "e", "table": str(where), "label": "fraud", "request_id": "case", "at": "closed"}
    return TruthTable(**{**plain, **more})


def labels(truth):
    return [label for portion in read(truth, NOW) for label in portion]


@pytest.mark.parametrize("form", ["delta", "parquet", "folder", "csv", "json"])
def test_every_form_gives_the_same_labels(tmp_path, form):
    where = tmp_path / ("cases" if form in {"delta", "folder"} else f"cases.{form}")
    if form == "delta":
        write_deltalake(str(where), CASES)
    elif form in {"parquet", "folder"}:
        where.parent.mkdir(exist_ok=True)
        if form == "folder":
            where.mkdir()
        parquet.write_table(CASES, where / "part.parquet" if form == "folder" else where)
    elif form == "csv":
        where.write_text(
            "case,fraud,closed\n101,1,2026-10-14T00:00:00Z\n102,0,2026-11-21T00:00:00Z\n103,,\n104,1,2026-11-22T00:00:00Z\n"
        )
    else:
        lines = [
            '{"case": 101, "fraud": 1, "closed": "2026-10-14T00:00:00Z"}',
            '{"case": 102, "fraud": 0, "closed": "2026-11-21T00:00:00Z"}',
        ]
        lines += [
            '{"case": 103, "fraud": null, "closed": null}',
            '{"case": 104, "fraud": 1, "closed": "2026-11-22T00:00:00Z"}',
        ]
        where.write_text("\n".join(lines))
    found = labels(table(where))
    assert [(one["endpoint"], one["request_id"], one["label"]) for one in found] == [
        ("e", "101", 1),
        ("e", "102", 0),
        ("e", "104", 1),
    ]
    assert [dt.datetime.fromisoformat(one["at"]) for one in found] == [NOW - 40 * DAY, NOW - 2 * DAY, NOW - DAY]


def test_what_is_not_known_yet_is_passed_over_or_retracts(tmp_path):
    write_deltalake(str(tmp_path / "t"), CASES)
    assert len(labels(table(tmp_path / "t"))) == 3
    retracting = labels(table(tmp_path / "t", nulls="retract"))
    assert retracting[2] == {"endpoint": "e", "request_id": "103", "label": None}


def test_only_the_last_days_are_looked_at_where_it_says_so(tmp_path):
    write_deltalake(str(tmp_path / "t"), CASES)
    assert [one["request_id"] for one in labels(table(tmp_path / "t", days=7))] == ["102", "104"]


def test_labels_by_prediction_and_row_name_no_endpoint(tmp_path):
    parquet.write_table(pa.table({"p": ["x"], "n": [2], "y": [0.5]}), tmp_path / "t.parquet")
    truth = TruthTable(endpoint="e", table=str(tmp_path / "t.parquet"), label="y", prediction_id="p", row="n")
    assert labels(truth) == [{"prediction_id": "x", "row": 2, "label": 0.5}]


def test_days_are_moments_and_not_a_number_is_no_label(tmp_path):
    rows = pa.table(
        {"case": ["a", "b"], "fraud": [float("nan"), 2.0], "closed": pa.array([20_000, 20_000], pa.date32())}
    )
    parquet.write_table(rows, tmp_path / "t.parquet")
    assert labels(table(tmp_path / "t.parquet")) == [
        {"endpoint": "e", "request_id": "b", "label": 2.0, "at": "2024-10-04T00:00:00+00:00"}
    ]


def test_more_than_a_portion_comes_in_several(tmp_path):
    count = 25_000
    parquet.write_table(
        pa.table({"case": list(range(count)), "fraud": [1] * count, "closed": [NOW] * count}), tmp_path / "t.parquet"
    )
    sizes = [len(portion) for portion in read(table(tmp_path / "t.parquet"), NOW)]
    assert sum(sizes) == count
    assert max(sizes) <= 10_000


def test_a_table_that_is_not_there_or_lacks_a_column_is_named(tmp_path):
    with pytest.raises(TruthUnreadable, match=r"none\.parquet"):
        labels(table(tmp_path / "none.parquet"))
    parquet.write_table(CASES, tmp_path / "t.parquet")
    with pytest.raises(TruthUnreadable, match=r"no column 'y'; it has case, fraud, closed"):
        labels(table(tmp_path / "t.parquet", label="y"))
    with pytest.raises(TruthUnreadable, match="feast:"):
        labels(table(f"feast:{tmp_path}#view"))


def test_the_file_says_which_tables_and_is_told_what_is_wrong_with_it(tmp_path):
    path = tmp_path / "labels.toml"
    path.write_text('[[labels]]\nendpoint = "e"\ntable = "t"\nlabel = "y"\nrequest_id = "case"\nevery_s = 60\n')
    assert truth_tables(path) == [TruthTable(endpoint="e", table="t", label="y", request_id="case", every_s=60)]
    for text, reason in (
        ("labels = 3", "Expected `array`"),
        ('[[labels]]\nendpoint = "e"\ntable = "t"\nlabel = "y"', "one of prediction_id and request_id"),
        ('[[labels]]\nendpoint = "e"\ntable = "t"\nlabel = "y"\nrequest_id = "c"\ndays = 3', "days needs the column"),
        ('[[labels]]\nendpoint = "e"\ntable = "t"\nlabel = "y"\nrequest_id = "c"\nid = 3', "unknown field"),
        ("[[labels", "Expected"),
    ):
        path.write_text(text)
        with pytest.raises(TruthUnreadable, match=reason):
            truth_tables(path)
    with pytest.raises(TruthUnreadable, match=r"none\.toml"):
        truth_tables(tmp_path / "none.toml")


@pytest.mark.parametrize("nulls", ["skip", "retract"])
def test_an_infinite_label_is_told_of_and_retracts_nothing(tmp_path, nulls):
    rows = pa.table({"case": ["a", "b"], "fraud": [float("inf"), float("-inf")], "closed": [NOW] * 2})
    parquet.write_table(rows, tmp_path / "t.parquet")
    found = labels(table(tmp_path / "t.parquet", nulls=nulls))
    taken, rejected = decode(msgspec.json.encode(found), 0, keyed=True)
    assert (taken, [one.code for one in rejected]) == ([], ["label_missing"] * 2)


def test_attributes_come_with_their_labels_under_the_names_of_their_columns(tmp_path):
    columns = {
        "p": ["x", "z"],
        "y": [1, 0],
        "origin": ["east", None],
        "seen": [NOW, None],
        "weight": [float("nan")] * 2,
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    given = {"label": "y", "prediction_id": "p", "attributes": ("origin", "seen", "weight", "y")}
    found = labels(TruthTable(endpoint="e", table=str(tmp_path / "t.parquet"), **given))
    assert found == [
        {"prediction_id": "x", "label": 1, "attributes": {"origin": "east", "seen": NOW.isoformat(), "y": 1}},
        {"prediction_id": "z", "label": 0, "attributes": {"y": 0}},
    ]
    assert not decode(
        msgspec.json.encode(found[0] | {"prediction_id": str(uuid.UUID(int=7 << 76 | 1 << 63))}), 0, keyed=True
    )[1]


def test_a_column_of_attributes_that_is_not_there_is_named(tmp_path):
    write_deltalake(str(tmp_path / "t"), CASES)
    with pytest.raises(TruthUnreadable, match="no column 'origin'; it has case, fraud, closed"):
        labels(table(tmp_path / "t", attributes=("origin",)))
