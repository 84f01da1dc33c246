import asyncio
import sqlite3

import pytest

from gateway.admin import views
from gateway.control.ramp import NothingToPause, Ramps
from tests.kit.control import ANN, ControlPlane, route

BOTH = {"champion": ("models:/phishing@champion", 100), "challenger": ("models:/phishing@challenger", 0)}
STEPS = [{"weights": {"challenger": 1}, "for": "10m"}, {"weights": {"challenger": 10}, "for": "1h"}]
DOCUMENT = route(**BOTH) | {"steps": STEPS}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        made.now = 1_790_000_000.0
        made.wall = made.clock = lambda: made.now
        yield made


@pytest.fixture
async def begun(plane):
    """The first step has been taken."""
    assert (await plane.put(DOCUMENT)).state == "live"
    assert plane.ramps.step()
    return plane


def pass_by(plane, minutes):
    plane.now += minutes * 60
    plane.ramps.step()


def weight(plane):
    return {one["name"]: one["weight"] for one in plane.store.live("phishing").document["variants"]}["challenger"]


def state(plane):
    ramp = plane.store.standings.ramp("phishing")
    return (ramp.state, ramp.step + 1)


def change(plane, **weights):
    expected = plane.store.current("phishing").number
    return plane.changes.weights("phishing", weights, expected=expected, author=ANN)[0]


async def test_steps_begin_with_their_revision_and_go_on_by_time_as_revisions(begun):
    plane = begun
    assert (weight(plane), state(plane)) == (1, ("running", 1))
    pass_by(plane, 9.9)
    assert weight(plane) == 1
    pass_by(plane, 0.2)
    assert (weight(plane), state(plane)) == (10, ("running", 2))
    pass_by(plane, 61)
    assert (weight(plane), state(plane)) == (10, ("finished", 2))
    assert not plane.ramps.step()
    told = [(one.action, one.author, one.reason) for one in plane.store.revisions(limit=9)]
    assert told == [
        ("steps", "system:steps", "step 2 of 2"),
        ("steps", "system:steps", "step 1 of 2"),
        ("put", "local:ann", "because"),
    ]


async def test_a_pause_keeps_what_was_left_of_the_step(begun):
    plane = begun
    pass_by(plane, 4)
    plane.ramps.pause("phishing", author=ANN)
    pass_by(plane, 1000)
    assert (weight(plane), state(plane)) == (1, ("paused", 1))
    assert plane.ramps.resume("phishing", author=ANN)
    pass_by(plane, 5.9)
    assert weight(plane) == 1
    pass_by(plane, 0.2)
    assert weight(plane) == 10


async def test_an_alarm_pauses(begun):
    plane = begun
    ramps = Ramps(
        plane.store,
        plane.changes,
        plane.reconciler,
        alarms=[lambda *_: None, lambda live, route, ramp: f"{route.endpoint} errs"],
    )
    plane.now += 3600
    ramps.step()
    assert (weight(plane), state(plane)) == (1, ("paused", 1))
    assert plane.store.standings.ramp("phishing").reason == "alarm: phishing errs"
    shown = views.steps(plane.store, *plane.store.live_routes()[0])
    assert (shown["alarm"], shown["summary"]) == ("phishing errs", "step 1 of 2, paused: alarm: phishing errs")


async def test_a_guard_that_breaks_neither_pauses_nor_ends_anything(begun):
    plane = begun

    def broken(live, route, ramp):
        raise ArithmeticError("no convergence")

    ramps = Ramps(plane.store, plane.changes, plane.reconciler, alarms=[broken])
    plane.now += 601
    assert ramps.step()
    assert (weight(plane), state(plane)) == (10, ("running", 2))


async def test_whoever_sets_weights_takes_over_until_the_steps_are_resumed(begun):
    plane = begun
    change(plane, challenger=0)
    pass_by(plane, 60)
    assert (weight(plane), state(plane)) == (0, ("paused", 1))
    assert "the weights were changed by local:ann" in plane.store.standings.ramp("phishing").reason
    plane.ramps.resume("phishing", author=ANN)
    assert (weight(plane), state(plane)) == (1, ("running", 1))


async def test_another_version_pauses_too(begun):
    plane = begun
    plane.shelf.publish("phishing", "3", alias="challenger")
    await plane.follower.step()
    revision = plane.changes.follow(
        "phishing", {"challenger": "3"}, expected=plane.store.current("phishing").number, author=ANN
    )
    await plane.ended(revision)
    plane.ramps.step()
    assert state(plane) == ("paused", 1)
    assert "the version of challenger was changed" in plane.store.standings.ramp("phishing").reason


async def test_a_rollback_pauses_and_begins_nothing(begun):
    plane = begun
    pass_by(plane, 10.1)
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    pass_by(plane, 100)
    assert (weight(plane), state(plane)) == (1, ("paused", 2))
    changed = route(**BOTH) | {"steps": STEPS[:1]}
    revision = await plane.put(changed, expected=plane.store.current("phishing").number)
    assert revision.state == "live"
    plane.ramps.step()
    assert state(plane) == ("running", 1)
    plane.changes.rollback("phishing", to=1, move_alias=False, author=ANN)
    pass_by(plane, 100)
    assert (weight(plane), state(plane)) == (0, ("paused", 1))


async def test_the_same_file_applied_again_changes_nothing(begun):
    plane = begun
    plan = await plane.planner.plan("phishing", DOCUMENT)
    assert plan["changes"] == []
    other = DOCUMENT | {"explain": True}
    await plane.put(other, expected=plane.store.current("phishing").number)
    pass_by(plane, 10.1)
    assert (weight(plane), state(plane)) == (10, ("running", 2))


async def test_new_steps_begin_anew_and_none_end_it(begun):
    plane = begun
    steps = [{"weights": {"challenger": 5}, "for": "1h"}]
    await plane.put(DOCUMENT | {"steps": steps}, expected=plane.store.current("phishing").number)
    plane.ramps.step()
    assert (weight(plane), state(plane)) == (5, ("running", 1))
    await plane.put(route(**BOTH), expected=plane.store.current("phishing").number)
    plane.ramps.step()
    assert plane.store.standings.ramp("phishing") is None


async def test_a_promotion_ends_the_steps(begun):
    plane = begun
    expected = plane.store.current("phishing").number
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=expected, author=ANN)
    plane.ramps.step()
    assert plane.store.standings.ramp("phishing") is None


async def test_after_a_restart_the_steps_go_on_where_they_were(begun):
    plane = begun
    await plane.stop()
    plane.start()
    plane.ramps.step()
    assert state(plane) == ("running", 1)
    plane.now += 5000 * 60  # control was away for much longer than the step
    plane.ramps.step()
    assert (weight(plane), state(plane)) == (10, ("running", 2))


async def test_a_step_written_just_before_the_end_of_control_is_not_taken_twice(begun):
    plane = begun
    plane.now += 600
    kept = plane.store.standings.keep_ramp
    plane.store.standings.keep_ramp = lambda *_, **__: None  # control dies here
    plane.ramps.step()
    plane.store.standings.keep_ramp = kept
    assert weight(plane) == 10
    plane.ramps.step()
    assert (weight(plane), state(plane)) == (10, ("running", 2))
    assert len(plane.store.revisions(limit=9)) == 3


async def test_a_wall_clock_that_is_set_takes_no_step_early_and_holds_none_up(begun):
    plane = begun
    jumped = plane.now + 5 * 3600
    plane.wall = lambda: jumped
    plane.ramps.step()
    assert (weight(plane), state(plane)) == (1, ("running", 1))
    plane.ramps.pause("phishing", author=ANN)
    assert plane.store.standings.ramp("phishing").left_us == 600_000_000
    plane.ramps.resume("phishing", author=ANN)
    plane.wall = lambda: jumped - 9 * 3600
    pass_by(plane, 10.1)
    assert (weight(plane), state(plane)) == (10, ("running", 2))


async def test_a_route_that_this_release_refuses_neither_ends_the_ramps_of_others_nor_its_own_for_good(begun):
    plane = begun
    other = DOCUMENT | {"endpoint": "other"}
    await plane.put(other)
    plane.spoil()
    pass_by(plane, 11)
    assert plane.store.standings.ramp("other").state == "running"
    assert (weight(plane), state(plane)) == (1, ("running", 1))
    mended = await plane.put(DOCUMENT, expected=plane.store.current("phishing").number)
    assert mended.state == "live", mended.problems
    plane.ramps.step()
    assert (weight(plane), state(plane)) == (1, ("running", 1))


async def test_a_state_that_cannot_be_written_does_not_end_the_ramps(begun, monkeypatch):
    plane = begun
    asked = []

    async def noted(timeout_s):
        asked.append(timeout_s)
        if len(asked) == 2:
            raise asyncio.CancelledError

    def full():
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(plane.reconciler, "noted", noted)
    monkeypatch.setattr(plane.ramps, "step", full)
    with pytest.raises(asyncio.CancelledError):
        await plane.ramps.run()
    assert asked == [1.0, 1.0]


async def test_a_look_reads_nothing_of_routes_without_steps(begun):
    plane = begun
    await plane.put(route("plain", **BOTH))
    asked = []
    plane.store.current = lambda endpoint, current=plane.store.current: asked.append(endpoint) or current(endpoint)
    plane.ramps.step()
    assert asked == ["phishing"]


async def test_only_what_runs_can_be_paused(plane):
    await plane.put(route(**BOTH))
    plane.ramps.step()
    with pytest.raises(NothingToPause):
        plane.ramps.pause("phishing", author=ANN)
    assert not plane.ramps.resume("phishing", author=ANN)
