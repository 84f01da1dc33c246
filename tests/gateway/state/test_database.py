import sqlite3

import pytest

from gateway.state.database import SCHEMA_VERSION, Database, StateForeign


@pytest.fixture
def database(tmp_path):
    made = Database(tmp_path / "var" / "state.db", clock=lambda: 5.0)
    yield made
    made.close()


def test_only_the_owner_may_read_it(database, tmp_path):
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var" / "state.db").stat().st_mode & 0o777 == 0o600


def test_what_goes_wrong_inside_a_transaction_leaves_nothing_behind_nor_a_line_about_it(database):
    def half() -> None:
        with database.transaction():
            database.connection.execute("INSERT INTO routes (endpoint) VALUES ('phishing')")
            database.audit.append("ann", "put", endpoint="phishing", reason="why")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert database.connection.execute("SELECT count(*) FROM routes").fetchone() == (0,)
    assert database.audit.rows(limit=9) == []


def test_a_line_is_as_of_now_and_follows_from_the_one_before(database):
    for reason in ("first", "second"):
        with database.transaction():
            database.audit.append("ann", "put", endpoint="phishing", revision=3, reason=reason, detail={"n": 1})
    newest, oldest = database.audit.rows(limit=9)
    assert (newest.at_unix_us, newest.reason, newest.revision) == (5_000_000, "second", 3)
    assert newest.previous_hash == oldest.hash
    assert database.audit.broken_at() is None


def test_a_file_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StateForeign, match=f"has version {SCHEMA_VERSION + 1}, this release knows {SCHEMA_VERSION}"):
        Database(path)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_columns_that_an_earlier_build_did_not_know_are_added(tmp_path):
    path = tmp_path / "state.db"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE alias_moves DROP COLUMN found")
    Database(path).connection.execute("SELECT found FROM alias_moves").fetchall()
