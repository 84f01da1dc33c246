import sqlite3

import msgspec
import pytest

from gateway.state.keys import KeyRecord, KeySet
from gateway.state.reader import StateReader
from gateway.state.store import StateStore

KEY = KeyRecord(id="a" * 12, name="app", digest=b"d" * 32, scopes=("predict:a", "label"), rate_per_s=2.5, burst=7)


@pytest.fixture
def store(tmp_path):
    made = StateStore(tmp_path / "state.db", clock=lambda: 5.0)
    yield made
    made.close()


def test_readers_find_a_key_as_it_was_stored_and_see_that_something_changed(store, tmp_path):
    reader = StateReader(tmp_path / "state.db")
    before = reader.data_version()
    made = store.keys.add(KEY, author="local:ann", reason="new")
    assert made == msgspec.structs.replace(KEY, created_unix_us=5_000_000, created_by="local:ann")
    assert reader.data_version() != before
    assert reader.keys() == [made]
    reader.close()


def test_every_change_of_a_key_is_in_the_audit_without_its_digest(store):
    store.keys.add(KEY, author="local:ann", reason="new")
    successor = msgspec.structs.replace(KEY, id="b" * 12, replaces=KEY.id)
    store.keys.add(successor, author="key:ops/1", reason="old", old_ends_unix_us=9)
    store.keys.revoke(KEY.id, author="key:ops/1", reason="leaked")
    store.keys.revoke(KEY.id, author="key:ops/1", reason="again")
    rows = store.audit(limit=10)
    assert [(row.action, row.author, row.reason) for row in reversed(rows)] == [
        ("key_made", "local:ann", "new"),
        ("key_rotated", "key:ops/1", "old"),
        ("key_revoked", "key:ops/1", "leaked"),
    ]
    assert all("digest" not in row.detail for row in rows)


def test_a_key_is_good_until_it_ends_or_is_revoked():
    assert KEY.is_good(10)
    ending = msgspec.structs.replace(KEY, expires_unix_us=10)
    assert [ending.is_good(now) for now in (9, 10)] == [True, False]
    assert not msgspec.structs.replace(KEY, revoked_unix_us=1).is_good(0)


def test_the_key_set_of_an_issuer_is_the_last_one_fetched(store, tmp_path):
    reader = StateReader(tmp_path / "state.db")
    assert reader.key_set("i") is None
    store.keys.keep_key_set("i", "{}")
    store.keys.keep_key_set("i", '{"keys":[]}')
    assert reader.key_set("i") == KeySet('{"keys":[]}', 5_000_000)
    reader.close()


def test_a_state_of_before_there_were_keys_has_none(tmp_path):
    path = tmp_path / "state.db"
    sqlite3.connect(path).executescript("CREATE TABLE routes (endpoint TEXT)")
    reader = StateReader(path)
    assert reader.keys() == []
    assert reader.key_set("i") is None
    reader.close()


def test_a_last_use_is_written_down_once_a_minute(tmp_path):
    now = [1_000_000_000]
    store = StateStore(tmp_path / "state.db", clock=lambda: now[0] / 1_000_000)
    store.keys.add(KEY, author="ann", reason="why")
    assert store.keys.find(KEY.id).last_used_unix_us is None
    store.keys.used([KEY.id])
    first = store.keys.find(KEY.id).last_used_unix_us
    assert first == 1_000_000_000
    now[0] += 59_000_000
    store.keys.used([KEY.id])
    assert store.keys.find(KEY.id).last_used_unix_us == first
    now[0] += 2_000_000
    store.keys.used([KEY.id, "unknown"])
    assert store.keys.find(KEY.id).last_used_unix_us == now[0]
    assert len(store.audit(limit=9)) == 1
    store.close()


def test_keys_of_a_file_without_the_newest_column_open_nothing_until_it_is_there(store, tmp_path):
    store.keys.add(KEY, author="ann", reason="why")
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("ALTER TABLE keys DROP COLUMN last_used_unix_us")
    reader = StateReader(tmp_path / "state.db")
    assert reader.keys() == []
    StateStore(tmp_path / "state.db").close()
    assert reader.keys()[0].id == KEY.id
    reader.close()


def test_the_use_of_keys_waits_for_nobody_who_holds_the_state_and_changes_wait_as_before(store, tmp_path):
    store.keys.add(KEY, author="local:ann", reason="new")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.keys.used([KEY.id])
    assert store._database.connection.execute("PRAGMA busy_timeout").fetchone() == (5000,)
    other.execute("ROLLBACK")
    other.close()
