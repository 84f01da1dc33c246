import asyncio
import sqlite3

import pytest

from gateway.admin import views
from gateway.state.reader import StateReader
from tests.kit.control import ANN, ControlPlane, route

SPLIT = {"champion": ("models:/phishing@champion", 90), "challenger": ("models:/phishing@challenger", 10)}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        yield made


async def warming(plane, number):
    """Returns once the revision waits for the workers."""
    while plane.store.revision(number).state in {"pending", "loading"}:
        await plane.reconciler._changed.wait()
    return plane.store.revision(number).state


def workers(plane, *names):
    plane.fleet.hear({"event": "workers", "live": list(names)})


def warm(plane, worker, number, event="warm", **more):
    plane.fleet.hear({"event": event, "worker": worker, "endpoint": "phishing", "revision": number, **more})


async def test_without_workers_a_prepared_route_goes_live(plane):
    revision = await plane.put(route(**SPLIT))
    assert revision.state == "live"
    assert plane.live() == {"champion": "1", "challenger": "2"}


async def test_a_route_is_live_only_when_every_live_worker_is_warm(plane):
    workers(plane, "a", "b")
    revision = plane.changes.put("phishing", route(**SPLIT), expected=None, author=ANN)
    assert await warming(plane, revision.number) == "warming"
    (state,) = StateReader(plane.settings.state_file).routes()
    assert state.live is None
    assert state.pending.revision == revision.number
    warm(plane, "a", revision.number)
    await asyncio.sleep(0)
    assert plane.store.live("phishing") is None
    warm(plane, "b", revision.number)
    assert (await plane.ended(revision)).state == "live"


async def test_a_worker_that_dies_while_warming_is_not_waited_for(plane):
    workers(plane, "a", "b")
    revision = plane.changes.put("phishing", route(**SPLIT), expected=None, author=ANN)
    await warming(plane, revision.number)
    warm(plane, "a", revision.number)
    workers(plane, "a")
    assert (await plane.ended(revision)).state == "live"


async def test_a_worker_that_cannot_load_fails_the_revision_and_the_old_one_stays(plane):
    first = await plane.put(route())
    workers(plane, "a")
    revision = plane.changes.put("phishing", route(**SPLIT), expected=first.number, author=ANN)
    await warming(plane, revision.number)
    warm(plane, "a", revision.number, "failed", problem="out of memory")
    ended = await plane.ended(revision)
    assert (ended.state, ended.problems[0].code) == ("failed", "warm_up_failed")
    assert "out of memory" in ended.problems[0].message
    assert plane.store.live("phishing").number == first.number


async def test_workers_that_never_answer_fail_the_revision(tmp_path):
    async with ControlPlane(tmp_path / "var", warm_up_s=0.01) as plane:
        workers(plane, "a")
        ended = await plane.put(route())
        assert (ended.state, ended.problems[0].code) == ("failed", "warm_up_late")


async def test_a_change_of_weights_alone_is_live_at_once_and_asks_nobody(plane):
    first = await plane.put(route(**SPLIT))
    workers(plane, "a")
    plane.shelf.is_down = True
    revision, _ = plane.changes.weights("phishing", {"challenger": 90}, expected=first.number, author=ANN)
    assert revision.state == "live"
    assert plane.store.live("phishing").number == revision.number


async def test_a_document_that_differs_in_weights_alone_keeps_the_versions(plane):
    first = await plane.put(route(**SPLIT))
    plane.shelf.publish("phishing", "3", alias="champion")
    document = route(champion=("models:/phishing@champion", 1), challenger=("models:/phishing@challenger", 1))
    await plane.put(document, expected=first.number)
    assert plane.live()["champion"] == "1"


async def test_putting_the_same_document_again_resolves_aliases_anew(plane):
    first = await plane.put(route(**SPLIT))
    plane.shelf.publish("phishing", "3", alias="champion")
    await plane.put(route(**SPLIT), expected=first.number)
    assert plane.live() == {"champion": "3", "challenger": "2"}


async def test_unknown_models_fail_with_every_problem_and_its_path(plane):
    document = route(
        champion=("models:/phishing/9", 1), challenger=("models:/spam@new", 0), mirror=("models:/nix/1", 0)
    )
    ended = await plane.put(document)
    assert ended.state == "failed"
    assert [(problem.path, problem.code) for problem in ended.problems] == [
        ("variants[0].model", "model_unknown"),
        ("variants[1].model", "model_unknown"),
        ("mirrors[0].model", "model_unknown"),
    ]


async def test_a_model_that_needs_more_inputs_than_the_endpoint_declares_is_refused(plane):
    first = await plane.put(route())
    plane.shelf.publish("phishing", "3", inputs=("x", "extra"))
    document = route(champion=("models:/phishing/1", 1), challenger=("models:/phishing/3", 0))
    ended = await plane.put(document, expected=first.number)
    assert (ended.state, ended.problems[0].path) == ("failed", "variants[1].model")
    assert "extra" in ended.problems[0].message


async def test_with_the_registry_down_pinned_versions_that_were_staged_still_work(plane):
    document = route(champion=("models:/phishing/1", 1))
    first = await plane.put(document)
    plane.shelf.is_down = True
    again = await plane.put(document | {"salt": "another"}, expected=first.number)
    assert again.state == "live"


async def test_with_the_registry_down_an_alias_fails_with_a_clear_problem(plane):
    plane.shelf.is_down = True
    ended = await plane.put(route())
    assert (ended.state, ended.problems[0].code) == ("failed", "registry_unavailable")


async def test_a_newer_revision_overtakes_one_that_waits_for_workers(plane):
    workers(plane, "a")
    first = plane.changes.put("phishing", route(**SPLIT), expected=None, author=ANN)
    await warming(plane, first.number)
    second = plane.changes.put("phishing", route(), expected=first.number, author=ANN)
    assert (await plane.ended(first)).state == "superseded"
    await warming(plane, second.number)
    warm(plane, "a", second.number)
    assert (await plane.ended(second)).state == "live"


async def test_a_restarted_control_goes_on_with_what_was_warming(plane):
    workers(plane, "a")
    revision = plane.changes.put("phishing", route(**SPLIT), expected=None, author=ANN)
    await warming(plane, revision.number)
    await plane.stop()
    plane.start()
    plane.shelf.is_down = True  # what was resolved before is not asked again
    workers(plane, "a")
    warm(plane, "a", revision.number)
    plane.reconciler.start()
    assert (await plane.ended(revision)).state == "live"


async def test_an_unexpected_error_ends_the_revision(plane):
    def broken(*_):
        raise ZeroDivisionError("a model's own trouble")

    plane.preparation._stage = broken
    ended = await plane.put(route())
    assert (ended.state, ended.problems[0].code) == ("failed", "staging_failed")


async def test_an_unfinished_revision_that_this_release_refuses_fails_with_its_problems_at_the_start(plane):
    await plane.put(route(**SPLIT))
    workers(plane, "a")
    plane.shelf.publish("phishing", "3", alias="champion")
    revision = plane.changes.put("phishing", route(**SPLIT), expected=1, author=ANN)
    await warming(plane, revision.number)
    await plane.stop()
    plane.start()
    plane.spoil()
    plane.reconciler.start()
    ended = await plane.ended(revision)
    assert (ended.state, [problem.code for problem in ended.problems]) == ("failed", ["secret_header"])


async def test_a_route_that_this_release_refuses_is_shown_planned_against_replaced_and_deleted(plane):
    await plane.put(route(**SPLIT))
    plane.spoil()
    shown = views.route(plane.store, plane.fleet, plane.store.current("phishing"))["status"]
    assert "this release refuses the stored document" in shown["problem"]
    assert (shown["following"], shown["steps"]) == (None, None)
    plan = await plane.planner.plan("phishing", route(**SPLIT))
    assert (plan["problems"], plan["changes"]) == ([], ["unit: header authorization → none"])
    assert plane.store.routes() == {}
    replaced = await plane.put(route(**SPLIT), expected=1)
    assert replaced.state == "live", replaced.problems
    plane.spoil()
    assert plane.changes.delete("phishing", expected=replaced.number, author=ANN).state == "live"


async def test_a_revision_goes_on_when_the_state_can_be_written_again(plane, monkeypatch):
    monkeypatch.setattr(plane.reconciler, "_retry_s", 0.01)
    advance, refused = plane.store.advance, []

    def full(*asked):
        if len(refused) < 2:
            refused.append(asked)
            raise sqlite3.OperationalError("database or disk is full")
        return advance(*asked)

    monkeypatch.setattr(plane.store, "advance", full)
    revision = await plane.put(route(**SPLIT))
    assert (revision.state, len(refused)) == ("live", 2)


@pytest.mark.parametrize("change", ["weights", "delete"])
async def test_what_could_not_be_made_live_at_once_is_made_live_later(plane, monkeypatch, change):
    first = await plane.put(route(**SPLIT))
    monkeypatch.setattr(plane.reconciler, "_retry_s", 0.01)
    activate, refused = plane.store.activate, []

    def full(*asked):
        if len(refused) < 3:
            refused.append(asked)
            raise sqlite3.OperationalError("database or disk is full")
        return activate(*asked)

    monkeypatch.setattr(plane.store, "activate", full)
    if change == "delete":
        written = plane.changes.delete("phishing", expected=first.number, author=ANN)
    else:
        written, _ = plane.changes.weights("phishing", {"champion": 1}, expected=first.number, author=ANN)
    assert (written.state, (await plane.ended(written)).state, len(refused)) == ("pending", "live", 3)
