import asyncio
import sqlite3

import numpy as np
import pytest

from gateway.control import follow
from gateway.control.changes import Author, NothingToFollow
from tests.kit.control import ANN, ControlPlane, route

BOTH = {"champion": ("models:/phishing@champion", 90), "challenger": ("models:/phishing@challenger", 10)}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        made.shelf.publish("phishing", "3")
        yield made


async def put(plane, mode, **arms):
    """A route that follows so, looked at once."""
    ended = await plane.put(route(**(arms or BOTH)) | {"follow": mode})
    assert ended.state == "live", ended.problems
    await plane.follower.step()
    return ended


async def step(plane):
    """One look, and the end of what it started."""
    await plane.follower.step()
    for revision in plane.store.unfinished():
        await plane.ended(revision)


def state(plane):
    return plane.store.standings.followed("phishing").following.state


def move(plane, version, alias="champion"):
    plane.shelf.aliases["phishing", alias] = version


async def test_an_auto_route_switches_when_its_alias_moves(plane):
    first = await put(plane, "auto")
    move(plane, "3")
    await step(plane)
    live = plane.store.live("phishing")
    assert plane.live() == {"champion": "3", "challenger": "2"}
    assert (live.author, live.action) == ("system:follow", "follow")
    assert live.reason == "models:/phishing@champion moved from version 1 to 3"
    assert plane.store.previous("phishing").number == first.number
    await step(plane)
    assert state(plane) == "current"
    assert len(plane.store.revisions(limit=9)) == 2


async def test_aliases_that_swap_are_taken_in_one_revision(plane):
    await put(plane, "auto")
    move(plane, "2")
    move(plane, "1", "challenger")
    await step(plane)
    assert plane.live() == {"champion": "2", "challenger": "1"}
    assert len(plane.store.revisions(limit=9)) == 2


async def test_a_mirror_follows_its_alias_too(plane):
    plane.shelf.aliases["phishing", "candidate"] = "2"
    await put(plane, "auto", champion=("models:/phishing/1", 1), mirror=("models:/phishing@candidate", 0))
    move(plane, "3", "candidate")
    await step(plane)
    assert plane.live() == {"champion": "1", "mirror": "3"}


async def test_a_proposal_waits_for_a_person_and_is_made_ready_meanwhile(plane):
    await put(plane, "propose")
    move(plane, "3")
    await step(plane)
    await asyncio.gather(*plane.follower._rehearsals.values())
    followed = plane.store.standings.followed("phishing")
    assert (followed.following.state, followed.following.wanted) == ("proposed", {"champion": "3"})
    assert followed.is_checked
    assert followed.problems == ()
    assert plane.live()["champion"] == "1"
    assert plane.store.staged.find("models:/phishing/3")
    current = plane.store.current("phishing")
    plane.shelf.is_down = True  # what is ready needs no registry
    revision = plane.changes.follow("phishing", plane.changes.offered("phishing"), expected=current.number, author=ANN)
    assert (await plane.ended(revision)).state == "live"
    assert (plane.live()["champion"], plane.store.live("phishing").author) == ("3", "local:ann")
    plane.shelf.is_down = False
    await step(plane)
    assert state(plane) == "current"


async def test_a_proposal_says_what_stands_against_it(plane):
    await put(plane, "propose")
    plane.shelf.publish("phishing", "4", inputs=("x", "extra"), alias="champion")
    await step(plane)
    await asyncio.gather(*plane.follower._rehearsals.values())
    assert "extra" in plane.store.standings.followed("phishing").problems[0].message
    plan = await plane.planner.plan("phishing", None)
    assert "extra" in plan["warnings"][0].message


async def test_a_proposal_is_withdrawn_when_the_alias_goes_back(plane):
    await put(plane, "propose")
    move(plane, "3")
    await step(plane)
    assert state(plane) == "proposed"
    move(plane, "1")
    await step(plane)
    assert state(plane) == "current"
    with pytest.raises(NothingToFollow):
        plane.changes.follow("phishing", plane.changes.offered("phishing"), expected=1, author=ANN)


async def test_a_rollback_is_not_undone_by_another_alias_that_moves(plane):
    await put(plane, "auto")
    move(plane, "3")
    await step(plane)
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    await step(plane)
    assert (state(plane), plane.live()) == ("paused", {"champion": "1", "challenger": "2"})
    move(plane, "3", "challenger")
    await step(plane)
    assert plane.live() == {"champion": "1", "challenger": "3"}
    assert plane.store.live("phishing").reason == "models:/phishing@challenger moved from version 2 to 3"
    await step(plane)
    followed = plane.store.standings.followed("phishing")
    served = {"champion": "1", "challenger": "3"}
    assert follow.summary(followed, served) == "paused: champion 1 → 3"
    move(plane, "2")
    await step(plane)
    assert plane.live() == {"champion": "2", "challenger": "3"}


async def test_a_rollback_to_another_alias_waits_for_that_one_to_move(plane):
    plane.shelf.aliases["phishing", "prod"] = "1"
    first = await put(plane, "auto", champion=("models:/phishing@prod", 1))
    await plane.put(route(champion=("models:/phishing@champion", 1)) | {"follow": "auto"}, expected=first.number)
    await step(plane)
    move(plane, "3", "prod")
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    await step(plane)
    assert (state(plane), plane.live()) == ("paused", {"champion": "1"})
    move(plane, "2", "prod")
    await step(plane)
    assert plane.live() == {"champion": "2"}


async def test_a_promotion_that_moves_its_alias_while_the_registry_is_asked_is_no_move_of_somebody(plane):
    await put(plane, "auto")
    plane.shelf.is_down = True
    current = plane.store.current("phishing").number
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=current, author=ANN)
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    plane.shelf.is_down = False
    (due,) = plane.store.alias_moves.waiting()
    before = dict(plane.shelf.aliases)
    loop = asyncio.get_running_loop()

    def asked_too_early():  # and the move is made, and noted, before the answer is looked at
        move(plane, "2")
        asyncio.run_coroutine_threadsafe(noted(), loop).result()
        return before

    async def noted():
        plane.store.alias_moves.tried(due)

    ask, plane.follower._ask = plane.follower._ask, asked_too_early
    await plane.follower.step()
    plane.follower._ask = ask
    await step(plane)
    assert (state(plane), plane.live()["champion"]) == ("paused", "1")


async def test_an_ignoring_route_keeps_what_it_has(plane):
    await put(plane, "ignore")
    move(plane, "3")
    await step(plane)
    assert (state(plane), plane.live()["champion"]) == ("ignored", "1")


async def test_a_version_that_does_not_fit_is_refused_once_and_the_old_one_serves_on(plane):
    first = await put(plane, "auto")
    plane.shelf.publish("phishing", "4", inputs=("x", "extra"), alias="champion")
    for _ in range(4):
        await step(plane)
    assert plane.store.live("phishing").number == first.number
    assert [one.state for one in plane.store.revisions(limit=9)] == ["failed", "live"]
    followed = plane.store.standings.followed("phishing")
    assert (followed.following.state, followed.following.refused) == ("refused", {"champion": "4"})
    assert "extra" in followed.problems[0].message
    assert any(row.action == "refused" for row in plane.store.audit(limit=9))
    move(plane, "3")
    await step(plane)
    assert plane.live()["champion"] == "3"


async def test_a_version_that_answers_in_another_range_is_refused_and_passes_by_override(plane):
    plane.shelf.publish("phishing", "900")
    plane.recorded = {"x": np.full((50, 1), 0.5, np.float32)}
    await put(plane, "auto")
    move(plane, "900")
    await step(plane)
    await step(plane)
    assert plane.live()["champion"] == "1"
    (problem,) = plane.store.standings.followed("phishing").problems
    assert (problem.path, problem.code) == ("variants[0].model", "answers_differ")
    assert "50 recorded rows" in problem.message
    revision = plane.changes.follow(
        "phishing",
        plane.changes.offered("phishing"),
        expected=plane.store.current("phishing").number,
        author=Author("local:ann", "the unit of measure changed on purpose"),
        override=True,
    )
    ended = await plane.ended(revision)
    assert (ended.state, ended.action, plane.live()["champion"]) == ("live", "override", "900")
    await step(plane)
    assert state(plane) == "current"


async def test_an_override_declares_the_endpoint_anew_and_a_rollback_takes_that_back(plane):
    await put(plane, "auto", champion=("models:/phishing@champion", 1))
    plane.shelf.publish("phishing", "4", inputs=("x", "extra"), alias="champion")
    await step(plane)
    await step(plane)
    revision = plane.changes.follow("phishing", {"champion": "4"}, expected=1, author=ANN, override=True)
    assert (await plane.ended(revision)).state == "live"
    compiled = plane.store.compiled(plane.store.live("phishing").number)
    assert [spec.name for spec in compiled.signature.inputs] == ["x", "extra"]
    back = plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    assert back.state == "live"
    compiled = plane.store.compiled(plane.store.live("phishing").number)
    assert [spec.name for spec in compiled.signature.inputs] == ["x"]


async def test_after_a_rollback_following_waits_for_the_next_move(plane):
    await put(plane, "auto")
    move(plane, "3")
    await step(plane)
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    for _ in range(3):
        await step(plane)
    assert (plane.live()["champion"], state(plane)) == ("1", "paused")
    move(plane, "2")
    await step(plane)
    assert plane.live()["champion"] == "2"


async def test_a_change_of_weights_does_not_end_the_pause(plane):
    await put(plane, "auto")
    move(plane, "3")
    await step(plane)
    back = plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    plane.changes.weights("phishing", {"challenger": 50}, expected=back.number, author=ANN)
    await step(plane)
    assert (plane.live()["champion"], state(plane)) == ("1", "paused")


async def test_resuming_takes_what_the_alias_names(plane):
    await put(plane, "auto")
    move(plane, "3")
    await step(plane)
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    plane.changes.resume("phishing", author=ANN)
    await step(plane)
    assert plane.live()["champion"] == "3"


async def test_a_promotion_is_not_undone_while_its_alias_waits_for_the_registry(plane):
    first = await put(plane, "auto")
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    assert plane.live()["champion"] == "2"
    for _ in range(3):
        await step(plane)
    assert plane.live()["champion"] == "2"
    await plane.aliases.step()
    await step(plane)
    assert (plane.live()["champion"], state(plane)) == ("2", "current")


async def test_while_the_registry_is_away_nothing_changes_and_it_shows(plane):
    first = await put(plane, "auto")
    move(plane, "3")
    plane.shelf.is_down = True
    await step(plane)
    assert plane.store.live("phishing").number == first.number
    assert "does not answer" in plane.follower.heard.problem
    plane.shelf.is_down = False
    await step(plane)
    assert plane.follower.heard.problem is None
    assert plane.live()["champion"] == "3"


async def test_a_registry_that_goes_away_during_a_switch_is_tried_again_later(plane):
    now = [1000.0]
    plane.wall = lambda: now[0]
    first = await put(plane, "auto")
    move(plane, "3")
    plane.shelf.is_down = False
    stage = plane.preparation._stage

    def away(*_):
        plane.preparation._stage = stage
        plane.shelf.is_down = True
        return stage(*_)

    plane.preparation._stage = away
    await step(plane)
    plane.shelf.is_down = False
    await step(plane)
    assert plane.store.live("phishing").number == first.number
    assert state(plane) == "trying"
    now[0] += follow.RETRIES_S[0] + 1
    await step(plane)
    assert plane.live()["champion"] == "3"


async def test_a_switch_that_a_registry_interrupted_is_tried_as_soon_as_that_is_heard_again(plane):
    await put(plane, "auto")
    move(plane, "3")
    stage = plane.preparation._stage

    def away(*_):
        plane.preparation._stage = stage
        plane.shelf.is_down = True
        return stage(*_)

    plane.preparation._stage = away
    await step(plane)
    await step(plane)  # nobody answers now either
    assert state(plane) == "trying"
    plane.shelf.is_down = False
    await step(plane)
    assert plane.live()["champion"] == "3"


async def test_a_revision_on_its_way_is_not_overtaken_by_an_alias(plane):
    first = await put(plane, "auto")
    plane.fleet.hear({"event": "workers", "live": ["a"]})
    document = route(champion=("models:/phishing@champion", 1), other=("models:/phishing/3", 0)) | {"follow": "auto"}
    pending = plane.changes.put("phishing", document, expected=first.number, author=ANN)
    move(plane, "2")
    await plane.follower.step()
    assert plane.store.current("phishing").number == pending.number


async def test_what_was_decided_outlives_a_restart(plane):
    await put(plane, "auto")
    move(plane, "3")
    await step(plane)
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    await plane.stop()
    plane.start()
    plane.fleet.hear({"event": "workers", "live": []})
    await step(plane)
    assert (plane.live()["champion"], state(plane)) == ("1", "paused")


async def test_a_move_that_nobody_watched_is_seen_at_the_next_start(plane):
    await put(plane, "auto")
    await plane.stop()
    move(plane, "3")
    plane.start()
    await step(plane)
    assert plane.live()["champion"] == "3"


async def test_routes_without_an_alias_ask_the_registry_nothing(plane):
    await plane.put(route(champion=("models:/phishing/1", 1)))
    asked = plane.shelf.asked
    await step(plane)
    assert plane.shelf.asked == asked


async def test_a_nudge_looks_at_once(plane):
    await put(plane, "auto")
    slow = follow.Follower(plane.store, plane.changes, plane.reconciler, plane.shelf.named, plane._threads, poll_s=3600)
    running = asyncio.create_task(slow.run())
    while slow.heard.at_unix_us is None:  # noqa: ASYNC110  # a look that changes nothing wakes nobody
        await asyncio.sleep(0)
    move(plane, "3")
    slow.nudge()
    while plane.live()["champion"] != "3":
        await plane.reconciler._changed.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_route_that_this_release_refuses_does_not_stop_the_following_of_others(plane):
    await put(plane, "auto")
    await plane.put(route("other", **BOTH))
    plane.spoil("other")
    move(plane, "3")
    await step(plane)
    assert plane.live() == {"champion": "3", "challenger": "2"}


async def test_a_state_that_cannot_be_written_does_not_end_following(plane, monkeypatch):
    looks = []

    async def full():
        looks.append(1)
        plane.follower.nudge()
        if len(looks) == 3:
            raise asyncio.CancelledError
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(plane.follower, "step", full)
    with pytest.raises(asyncio.CancelledError):
        await plane.follower.run()
    assert len(looks) == 3
