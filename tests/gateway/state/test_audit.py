import itertools
import sqlite3
from importlib import resources

import pytest

from gateway.state.audit import GENESIS, Audit


@pytest.fixture
def connection():
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.executescript((resources.files("gateway.state") / "schema.sql").read_text("utf-8"))
    yield opened
    opened.close()


@pytest.fixture
def audit(connection):
    """Five rows, of two endpoints and of none."""
    made = Audit(connection, itertools.count().__next__)
    for n, endpoint in enumerate(["a", "b", "a", None, "a"]):
        made.append("ann", "put", endpoint=endpoint, reason="why", detail={"z": 1.5, "ä": [n, None]})
    return made


def forge(connection, sql, *values):
    """What somebody with the file in hand can do: the triggers hold nobody up for long."""
    connection.execute("DROP TRIGGER audit_is_never_changed")
    connection.execute("DROP TRIGGER audit_is_never_deleted")
    assert connection.execute(sql, values).rowcount == 1


def test_each_row_holds_the_hash_of_the_one_before(audit):
    rows = audit.rows(limit=10)[::-1]
    assert [row.sequence for row in rows] == [1, 2, 3, 4, 5]
    assert [row.previous_hash for row in rows] == [GENESIS, *(row.hash for row in rows[:-1])]
    assert all(row.hash == row.digest() for row in rows)
    assert audit.broken_at() is None


def test_an_empty_audit_is_whole(connection):
    assert Audit(connection, int).broken_at() is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("author", "bob"),
        ("action", "delete"),
        ("endpoint", "b"),
        ("revision", 9),
        ("reason", ""),
        ("at_unix_us", 77),
        ("detail", "{}"),
        ("previous_hash", GENESIS),
        ("hash", GENESIS),
    ],
)
def test_a_change_of_any_column_shows_at_its_row(audit, connection, column, value):
    forge(connection, f"UPDATE audit SET {column} = ? WHERE sequence = 3", value)
    assert audit.broken_at() == 3


def test_a_row_that_was_taken_out_shows_where_it_was(audit, connection):
    forge(connection, "DELETE FROM audit WHERE sequence = 2")
    assert audit.broken_at() == 2


def test_a_changed_row_with_a_hash_to_fit_shows_at_the_next(audit, connection):
    row = audit.rows(limit=1, before=4)[0]
    forged = type(row)(**{name: getattr(row, name) for name in row.__struct_fields__} | {"author": "bob"})
    forge(connection, "UPDATE audit SET author = 'bob', hash = ? WHERE sequence = 3", forged.digest())
    assert audit.broken_at() == 4


def test_the_hash_is_a_function_of_the_content_and_not_of_the_order_of_its_keys(audit):
    row = audit.rows(limit=1)[0]
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    turned = type(row)(**fields | {"detail": dict(reversed(row.detail.items()))})
    assert turned.digest() == row.hash


def test_a_row_that_is_rolled_back_leaves_no_gap(audit, connection):
    connection.execute("BEGIN")
    audit.append("ann", "put")
    connection.execute("ROLLBACK")
    audit.append("bob", "put")
    assert [(row.sequence, row.author) for row in audit.rows(limit=1)] == [(6, "bob")]
    assert audit.broken_at() is None


def test_pages_go_back_in_time_and_may_be_of_one_endpoint(audit):
    assert [row.sequence for row in audit.rows(limit=2)] == [5, 4]
    assert [row.sequence for row in audit.rows(limit=2, before=4)] == [3, 2]
    assert [row.sequence for row in audit.rows(limit=2, endpoint="a")] == [5, 3]
    assert [row.sequence for row in audit.rows(limit=2, before=3, endpoint="a")] == [1]
    assert audit.rows(limit=2, endpoint="nobody") == []


def test_a_row_that_is_no_json_any_more_hides_no_other(audit, connection):
    forge(connection, "UPDATE audit SET detail = ? WHERE sequence = 3", "{torn")
    assert audit.broken_at() == 3
    assert [row.sequence for row in audit.rows(limit=9)][-3:] == [3, 2, 1]
    assert {row.sequence: row.detail for row in audit.rows(limit=9)}[3] == {"unreadable": "{torn"}
