from datetime import datetime

import pyarrow as pa
import pytest
from pyarrow import parquet

from gateway.commands.labels import read_labels
from gateway.commands.talk import CommandFailed


@pytest.fixture
def written(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return [row for portion in read_labels(path) for row in portion]

    return write


def test_the_three_forms_say_the_same(written):
    wanted = [{"prediction_id": "a", "label": 1}, {"prediction_id": "b", "row": 2, "label": "spam"}]
    assert written("x.json", '[{"prediction_id":"a","label":1},{"prediction_id":"b","row":2,"label":"spam"}]') == wanted
    assert (
        written("x.jsonl", '{"prediction_id":"a","label":1}\n\n{"prediction_id":"b","row":2,"label":"spam"}\n')
        == wanted
    )
    assert written("x.csv", "prediction_id,row,label\na,,1\nb,2,spam\n") == wanted


def test_one_object_is_one_label(written):
    assert written("x.json", '{"prediction_id":"a","label":true}') == [{"prediction_id": "a", "label": True}]


def test_an_empty_label_in_csv_retracts(written):
    assert written("x.csv", "prediction_id,label\na,\n") == [{"prediction_id": "a", "label": None}]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.json", "{", "not JSON"),
        ("x.json", "[1]", "label 0: wanted an object"),
        ("x.jsonl", '{"label":1}\nnope\n', "line 2"),
        ("x.csv", "id,truth\na,1\n", "wanted the columns"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(written, name, text, words):
    with pytest.raises(CommandFailed, match=words):
        written(name, text)


def test_large_files_come_in_portions(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("prediction_id,label\n" + "a,1\n" * 10_001)
    assert [len(portion) for portion in read_labels(path)] == [10_000, 1]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(CommandFailed, match="cannot be read"):
        list(read_labels(tmp_path / "nix.csv"))


def test_parquet_says_the_same_with_its_own_types(tmp_path):
    path = tmp_path / "x.parquet"
    at = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001  # a file may have no zone
    columns = {
        "prediction_id": ["a", "b", "c"],
        "row": [None, 2, None],
        "label": [1.5, None, 0.0],
        "at": [at, None, None],
    }
    parquet.write_table(pa.table(columns), path)
    assert list(read_labels(path)) == [
        [
            {"prediction_id": "a", "label": 1.5, "at": "2026-01-02T03:04:05+00:00"},
            {"prediction_id": "b", "row": 2, "label": None},
            {"prediction_id": "c", "label": 0.0},
        ]
    ]


def test_parquet_that_is_no_file_of_labels_is_refused(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(CommandFailed, match="cannot be read"):
        list(read_labels(path))
    parquet.write_table(pa.table({"id": [1]}), path)
    with pytest.raises(CommandFailed, match="wanted the columns"):
        list(read_labels(path))
    parquet.write_table(pa.table({"prediction_id": ["a"], "label": [float("nan")]}), path)
    with pytest.raises(CommandFailed, match="no truth"):
        list(read_labels(path))


def test_attributes_come_in_every_form(written, tmp_path):
    wanted = [
        {"prediction_id": "a", "label": 1, "attributes": {"by": "ann", "n": 2}},
        {"prediction_id": "b", "label": 0},
    ]
    assert written("x.csv", 'prediction_id,label,attributes\na,1,"{""by"":""ann"",""n"":2}"\nb,0,\n') == wanted
    path, columns = tmp_path / "x.parquet", {"prediction_id": ["a", "b"], "label": [1, 0]}
    by, n = pa.array(["ann", None]), pa.array([2, None])
    structs = pa.StructArray.from_arrays([by, n], ["by", "n"], mask=pa.array([False, True]))
    for attributes in (pa.array(['{"by":"ann","n":2}', None]), structs):
        parquet.write_table(pa.table({**columns, "attributes": attributes}), path)
        assert [row for portion in read_labels(path) for row in portion] == wanted
    texts = pa.array([[("by", "ann")], None], pa.map_(pa.string(), pa.string()))
    parquet.write_table(pa.table({**columns, "attributes": texts}), path)
    assert next(iter(read_labels(path)))[0]["attributes"] == {"by": "ann"}


def test_a_day_in_parquet_is_its_beginning(tmp_path):
    path = tmp_path / "x.parquet"
    at = pa.array([20_000], pa.date32())
    parquet.write_table(pa.table({"prediction_id": ["a"], "label": [1], "at": at}), path)
    assert next(iter(read_labels(path)))[0]["at"] == "2024-10-04T00:00:00+00:00"
