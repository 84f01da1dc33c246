import gzip

import pyarrow as pa
import pytest
from pyarrow import parquet

from gateway.streams.files import INVALID, FileUnreadable, rows_of


def read(name, text):
    return rows_of(name, text.encode() if isinstance(text, str) else text)


def test_csv_has_types_by_all_of_its_values():
    rows = read("a.csv", "age,name,paid,at\n1,Ann,true,2026-01-01\n2,,false,2026-01-02\n")
    assert rows.to_pylist()[1] == {"age": 2, "name": None, "paid": False, "at": rows["at"][1].as_py()}
    late = "n\n" + "1\n" * 200_000 + "x\n"
    assert pa.types.is_string(read("b.csv", late)["n"].type)


@pytest.mark.parametrize(
    ("text", "names"), [("a;b\n1;2\n", ["a", "b"]), ("a\tb\n1\t2\n", ["a", "b"]), ("a|b\n1|2\n", ["a", "b"])]
)
def test_csv_is_split_by_what_its_first_line_is_split_by(text, names):
    assert read("a.csv", text).column_names == names


def test_lines_of_another_length_are_kept_as_lines():
    rows = read("a.csv", 'a,b\n1,2\n3\n"4","x\ny"\n5,6,7\n')
    assert rows["b"].to_pylist()[:2] == ["2", "x\ny"]
    assert sorted(filter(None, rows[INVALID].to_pylist())) == ["3", "5,6,7"]


def test_json_is_a_list_an_object_or_one_a_line():
    assert read("a.json", '[{"a": 1}, {"b": "x"}]').to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    assert read("a.json", '{"a": 1}').to_pylist() == [{"a": 1}]
    rows = read("a.jsonl", '{"a": 1}\n{"a": {"deep": true}}\n{oops\n')
    assert rows["a"].to_pylist()[:2] == ["1", '{"deep":true}']
    assert rows[INVALID].to_pylist()[2] == "{oops"
    assert read("a.json", "[1, 2]")["value"].to_pylist() == [1, 2]


def test_nested_json_stays_nested():
    rows = read("a.json", '[{"a": {"b": [1, 2]}}]')
    assert rows["a"].to_pylist() == [{"b": [1, 2]}]


def test_packed_and_foreign_texts_are_read(tmp_path):
    assert read("a.csv.gz", gzip.compress(b"a\n1\n"))["a"].to_pylist() == [1]
    assert read("a.csv", "name\nMüller\n".encode("latin-1"))["name"].to_pylist() == ["Müller"]
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "x")
    assert rows_of("no name says it", (tmp_path / "x").read_bytes())["a"].to_pylist() == [1]


@pytest.mark.parametrize("data", [b"PAR1 but no more", b"\x1f\x8bno", b"\x89PNG\0\xff\0\xff"])
def test_what_is_neither_is_refused(data):
    with pytest.raises(FileUnreadable):
        rows_of("x", data)


@pytest.mark.parametrize("text", ["", "\n\n", "only,a,head\n"])
def test_files_without_rows_are_no_trouble(text):
    assert read("a.csv", text).num_rows == 0


def test_codes_of_digits_are_texts_and_numbers_are_numbers():
    rows = read(
        "a.csv", "zip,phone,card,n,x,id\n00123,+41791,12345678901234567,-0.5,0,1\n,1,1.5,1e3,10,12345678901234567\n"
    )
    assert rows.to_pylist() == [
        {"zip": "00123", "phone": "+41791", "card": "12345678901234567", "n": -0.5, "x": 0, "id": 1},
        {"zip": None, "phone": "1", "card": "1.5", "n": 1000.0, "x": 10, "id": 12345678901234567},
    ]
    assert read("a.csv", "zip,b\n7,1\n007,2\n3\n")[INVALID].to_pylist() == [None, None, "3"]
    assert read("a.csv", "x\n9223372036854775808\n")["x"].to_pylist() == ["9223372036854775808"]


def test_a_text_in_json_may_hold_what_ends_lines_elsewhere():
    assert read("a.jsonl", '{"t":"a\u2028b"}\r\n{"t":"x\x85y\x0c"}\n')["t"].to_pylist()[0] == "a\u2028b"
    assert INVALID not in read("a.jsonl", '{"t":"a\u2028b"}\r\n{"t":"x\x85y"}\n').column_names


def test_json_may_have_the_nan_of_python():
    rows = read("a.jsonl", '{"x": NaN}\n{"x": -Infinity}\n{"x": 1}\n')
    assert str(rows["x"].to_pylist()) == "[nan, -inf, 1.0]"
    assert str(read("a.json", '[{"x": NaN}]')["x"].to_pylist()) == "[nan]"
    assert read("a.jsonl", '{"x": 1}\n{"x": "\\ud800"}\n')[INVALID].to_pylist() == [None, '{"x": "\\ud800"}']


def test_json_that_is_nested_too_deeply_is_kept_as_a_line():
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert read("a.jsonl", f'{{"a": 1}}\n{deep}\n')[INVALID].to_pylist() == [None, deep]


def test_objects_without_a_name_are_rows():
    assert read("a.jsonl", "{}\n{}\n").num_rows == 2


def test_what_spreadsheets_write_is_read_in_their_letters():
    assert read("a.csv", "name\n€ “q”\n".encode("cp1252"))["name"].to_pylist() == ["€ “q”"]
    assert read("a.txt", "a\tb\n1\té\n".encode("utf-16")).to_pylist() == [{"a": 1, "b": "é"}]


def test_names_in_brackets_are_the_head_of_a_csv_file():
    assert read("a.csv", "[id],name\n1,a\n").column_names == ["[id]", "name"]
    assert read("a.csv", "{id},name\n1,a\n").column_names == ["{id}", "name"]


def test_empty_lines_before_the_head_are_nothing():
    assert read("a.csv", "\n\nid\n1\n").to_pylist() == [{"id": 1}]
