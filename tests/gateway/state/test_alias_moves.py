import sqlite3

import pytest

from gateway.state.revision import AliasMove, Draft
from gateway.state.store import StateStore
from tests.gateway.state.test_store import compiled

MOVE = AliasMove(name="phishing", alias="champion", version="2")
DOCUMENT = {
    "endpoint": "phishing",
    "variants": [{"name": "champion", "model": "models:/phishing@champion", "weight": 1}],
}


@pytest.fixture
def store(tmp_path):
    made = StateStore(tmp_path / "state.db")
    yield made
    made.close()


@pytest.fixture
def move(store):
    """Of a live promotion."""
    draft = Draft(
        endpoint="phishing", action="promote", author="ann", reason="why", document=DOCUMENT, alias_moves=(MOVE,)
    )
    revision = store.write(draft)
    assert store.alias_moves.waiting() == []
    assert store.activate(revision.number, compiled(revision.number))
    (waiting,) = store.alias_moves.waiting("phishing")
    return waiting


def test_a_move_waits_until_its_revision_is_live_and_then_until_it_is_done(store, move):
    store.alias_moves.tried(move, problem="registry away")
    (waiting,) = store.alias_moves.waiting()
    assert (waiting.attempts, waiting.problem) == (1, "registry away")
    store.alias_moves.tried(waiting)
    assert store.alias_moves.waiting() == store.alias_moves.given_up() == []


def test_what_an_alias_named_before_is_kept_with_the_move(store, move):
    assert move.found is None
    store.alias_moves.keep_found(move, "1")
    assert store.alias_moves.waiting()[0].found == "1"


def test_a_move_that_was_given_up_is_shown_while_its_revision_is_live(store, move):
    store.alias_moves.tried(move, problem="there is no such version", is_final=True)
    (gone,) = store.alias_moves.given_up("phishing")
    assert (gone.state, gone.attempts, gone.problem) == ("failed", 1, "there is no such version")
    assert store.alias_moves.given_up("other") == store.alias_moves.waiting() == []
    assert store.audit(limit=1)[0].action == "alias_refused"


def test_a_file_of_an_earlier_build_gets_the_columns_that_it_lacks(tmp_path):
    path = tmp_path / "state.db"
    StateStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE alias_moves DROP COLUMN found")
    StateStore(path).close()
    with sqlite3.connect(path) as connection:
        assert "found" in {row[1] for row in connection.execute("PRAGMA table_info(alias_moves)")}
