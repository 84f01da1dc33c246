import json

import pandas as pd
import pytest

from runoff.tables import Reply, Table, shown

ROWS = [{"name": "a", "share": 0.9, "hidden": 1}, {"name": "b", "share": 0.1, "hidden": 2}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (0.123456, "0.1235"),
        (1234567.0, "1.235e+06"),
        (1234567, "1234567"),
        ({"a": 0.5, "b": None}, "a 0.5, b "),
        (["x", 1, [True]], "x, 1, yes"),
        ([], ""),
        ("text", "text"),
    ],
)
def test_a_cell_is_short_text(value, text):
    assert shown(value) == text


def test_a_table_is_a_list_of_whole_rows_and_shows_its_columns_in_their_order():
    table = Table(ROWS, ("share", "name"))
    assert table == ROWS
    assert table.cells() == [["0.9", "a"], ["0.1", "b"]]


def test_without_columns_every_name_is_one_in_the_order_they_first_came():
    assert Table([{"b": 1}, {"a": 2, "b": 3}]).columns == ("b", "a")
    assert Table([{"b": 1}, {"a": 2}]).cells() == [["1", ""], ["", "2"]]


def test_its_rows_are_its_own():
    rows = [{"a": 1}]
    Table(rows)[0]["a"] = 2
    assert rows == [{"a": 1}]


def test_as_text_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_tail():
    table = Table([{"n": "long name", "x": 1}, {"n": "b", "x": None}], title="Two")
    assert str(table) == "Two\nn          x\nlong name  1\nb"
    assert str(Table([], ("a", "b"))) == "a  b"


def test_in_a_notebook_text_of_others_is_no_markup():
    html = Table([{"<b>": "<script>"}], title="a & b")._repr_html_()
    assert "<th>&lt;b&gt;</th>" in html
    assert "<td>&lt;script&gt;</td>" in html
    assert "<caption>a &amp; b</caption>" in html
    assert "<script>" not in html


def test_pandas_takes_it_as_it_is():
    assert pd.DataFrame(Table(ROWS, ("name",)))["hidden"].tolist() == [1, 2]


def test_a_reply_is_the_gateways_object_and_reads_as_two_columns():
    reply = Reply({"state": "live", "shares": {"a": 1.0}})
    assert json.loads(json.dumps(reply)) == reply
    assert str(reply) == "state   live\nshares  a 1"
    assert reply.table().cells() == [["state", "live"], ["shares", "a 1"]]
    assert "<td>live</td>" in reply._repr_html_()
    assert str(Reply()) == ""


def test_lists_of_objects_in_a_reply_are_tables_below_without_what_nobody_has_and_what_is_nested_again():
    worst = [{"row": 1}]
    rows = [{"name": "<a>", "n": 1, "auc": None, "worst": worst}, {"name": "b", "n": 2, "auc": None, "worst": []}]
    reply = Reply({"kind": "x", "subject_rows": rows, "problems": []})
    assert str(reply) == "kind      x\nproblems  \n\nsubject rows\nname  n\n<a>   1\nb     2"
    assert reply["subject_rows"][0]["worst"] == worst
    html = reply._repr_html_()
    assert html.count("<table>") == 2
    assert "<caption>subject rows</caption>" in html
    assert "&lt;a&gt;" in html
    assert str(Reply({"only": rows})).startswith("\nonly\nname")
