import asyncio
import logging
import sqlite3
from contextlib import closing, suppress

import pytest

from gateway.state.compiled import CompiledModel, CompiledRoute
from gateway.state.reader import StateReader, follow
from gateway.state.revision import Draft
from gateway.state.store import RevisionStale, StateStore
from gateway.telemetry.log import EventLog
from models.signature import Signature
from models.staged import ModelKey
from routing.errors import Problem


@pytest.fixture
def path(tmp_path):
    return tmp_path / "var" / "state.db"


@pytest.fixture
def store(path):
    opened = StateStore(path, clock=iter(range(10_000)).__next__)
    yield opened
    opened.close()


def draft(endpoint="phishing", weight=1.0, **more):
    document = {"endpoint": endpoint, "variants": [{"name": "champion", "model": "models:/m/1", "weight": weight}]}
    fields = {"action": "put", "author": "ann", "reason": "because", "document": document} | more
    return Draft(endpoint=endpoint, **fields)


def compiled(number, endpoint="phishing"):
    model = CompiledModel(key=ModelKey("m", "1"), digest="d" * 64, uri="models:/m/1")
    return CompiledRoute(
        endpoint=endpoint,
        revision=number,
        document={"endpoint": endpoint, "variants": []},
        models={"champion": model},
        split=bytes(65536),
        split_sha256="s",
        signature=Signature(inputs=(), outputs=()),
    )


def live(store, expected=None, **more):
    revision = store.write(draft(**more), expected=expected)
    assert store.activate(revision.number, compiled(revision.number, revision.endpoint))
    return revision.number


def test_a_revision_is_live_only_after_its_activation(store):
    revision = store.write(draft())
    assert store.live("phishing") is None
    assert store.advance(revision.number, "warming", compiled(revision.number))
    assert store.activate(revision.number, compiled(revision.number))
    assert store.live("phishing").number == revision.number


def test_a_writer_who_saw_another_revision_is_refused_and_changes_nothing(store):
    number = live(store)
    with pytest.raises(RevisionStale) as refused:
        store.write(draft(weight=2), expected=number + 5)
    assert refused.value.current == number
    assert len(store.revisions(limit=10)) == 1


def test_a_new_endpoint_may_not_exist_yet(store):
    live(store)
    with pytest.raises(RevisionStale):
        store.write(draft(), expected=None)


def test_a_newer_revision_supersedes_the_one_on_its_way(store):
    first = store.write(draft())
    second = store.write(draft(weight=2), expected=first.number)
    assert store.revision(first.number).state == "superseded"
    assert not store.activate(first.number, compiled(first.number))
    assert [revision.number for revision in store.unfinished()] == [second.number]


def test_a_failed_revision_leaves_the_old_one_live_and_current(store):
    number = live(store)
    bad = store.write(draft(weight=2), expected=number)
    assert store.fail(bad.number, [Problem("variants[0].model", "model_unknown", "no such model")])
    assert store.live("phishing").number == store.current("phishing").number == number
    assert store.revision(bad.number).problems[0].code == "model_unknown"


def test_the_replaced_revision_is_what_a_rollback_goes_back_to(store):
    first = live(store)
    second = live(store, expected=first, weight=2)
    assert store.previous("phishing").number == first
    assert store.revision(second).replaced == first
    assert store.revision(first).state == "superseded"


def test_numbers_are_global(store):
    assert [live(store, endpoint=name) for name in ("a", "b", "c")] == [1, 2, 3]


def test_a_deleted_endpoint_is_gone_and_may_be_made_again(store):
    number = live(store)
    deletion = store.write(draft(action="delete", document=None), expected=number)
    assert store.activate(deletion.number, None)
    assert store.current("phishing") is None
    assert store.endpoints() == []
    again = live(store)
    assert [revision.state for revision in store.revisions(limit=5)] == ["live", "superseded", "superseded"]
    assert store.live("phishing").number == again


def test_every_step_stands_in_the_audit_and_the_chain_holds(store, path):
    number = live(store)
    store.fail(store.write(draft(weight=2), expected=number).number, [Problem("", "x", "y")])
    rows = store.audit(limit=10)
    assert [row.action for row in rows] == ["failed", "put", "live", "put"]
    assert rows[1].detail["changes"] == ["weights: champion 1 → 2"]
    assert StateStore(path).audit_broken_at is None


def test_an_audit_row_cannot_be_changed_or_deleted(store):
    import sqlite3

    live(store)
    for statement in ("UPDATE audit SET author = 'eve'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError):
            store._connection.execute(statement)


def test_a_forged_audit_row_is_found_at_the_next_start(store, path):
    live(store)
    store._connection.execute("DROP TRIGGER audit_is_never_changed")
    store._connection.execute("UPDATE audit SET author = 'eve' WHERE sequence = 2")
    assert StateStore(path).audit_broken_at == 2


def test_a_rollback_pauses_following_until_it_is_resumed(store):
    first = live(store)
    live(store, expected=first, weight=2, action="rollback")
    assert store.standings.followed("phishing").following.state == "paused"
    store.standings.resume("phishing", author="ann", reason="fixed")
    assert store.standings.followed("phishing").following.state != "paused"


def test_old_compiled_forms_are_dropped_and_the_versions_they_served_are_kept(store):
    numbers = [live(store)]
    for _ in range(40):
        numbers.append(live(store, expected=numbers[-1]))
    assert store.compiled(numbers[0]) is None
    assert store.compiled(numbers[-2]) is not None
    assert store.revision(numbers[0]).resolutions["champion"].digest == "d" * 64


def test_files_are_readable_by_their_owner_only(store, path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_reader_sees_live_warming_and_previous_and_its_version_moves(store, path):
    reader = StateReader(path)
    before = reader.data_version()
    first = live(store)
    second = live(store, expected=first, weight=2)
    third = store.write(draft(weight=3), expected=second)
    assert reader.routes()[0].pending is None
    store.advance(third.number, "warming", compiled(third.number))
    (state,) = reader.routes()
    assert (state.live.revision, state.pending.revision, state.previous.revision) == (second, third.number, first)
    assert reader.data_version() != before


def test_a_reader_without_a_database_sees_no_routes_and_finds_it_later(tmp_path):
    path = tmp_path / "state.db"
    reader = StateReader(path)
    assert (reader.data_version(), reader.routes()) == (0, [])
    store = StateStore(path)
    live(store)
    assert [state.endpoint for state in reader.routes()] == ["phishing"]


def test_a_reader_works_after_control_has_closed_the_database(store, path):
    live(store)
    store.close()
    assert [state.endpoint for state in StateReader(path).routes()] == ["phishing"]


def test_live_routes_are_read_once_and_leave_out_what_this_release_refuses(store, caplog):
    live(store)
    live(store, endpoint="other")
    refused = draft(endpoint="old").document | {"unit": {"header": "authorization"}}
    live(store, endpoint="old", document=refused)
    for _ in range(3):
        assert [(revision.endpoint, route.endpoint) for revision, route in store.live_routes()] == [
            ("other", "other"),
            ("phishing", "phishing"),
        ]
    assert caplog.text.count("route_unreadable") == 1
    number = live(store, expected=1, weight=2.0)
    assert store.live_routes()[1][0].number == number
    assert store.routes().keys() == {"other", "phishing"}


def test_a_revision_that_a_reader_cannot_read_costs_no_other_its_own(store, path):
    number = live(store)
    other = live(store, endpoint="churn")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE revisions SET compiled = x'80' WHERE endpoint = 'phishing'")
    churn, phishing = StateReader(path).routes()
    assert (churn.live.revision, churn.unread_live) == (other, None)
    assert (phishing.live, phishing.pending, phishing.unread_live.revision) == (None, None, number)
    assert "endpoint" in phishing.unread_live.problem


async def test_a_look_that_fails_is_told_once_and_the_next_one_comes(caplog):
    caplog.set_level(logging.INFO)
    looks = []

    def look():
        looks.append(1)
        if len(looks) < 5:
            raise sqlite3.OperationalError("database is locked")

    following = asyncio.create_task(follow(look, 0.001, EventLog("gateway.test")))
    async with asyncio.timeout(30):
        while len(looks) < 8:  # noqa: ASYNC110 - looks are what is waited for
            await asyncio.sleep(0.001)
    assert not following.done()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    assert [record.msg["event"] for record in caplog.records] == ["look_failed", "look_succeeded"]
    assert "database is locked" in caplog.text
