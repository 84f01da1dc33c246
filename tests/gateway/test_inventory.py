import asyncio

import pytest

from gateway.inventory import inventory
from tests.gateway.test_activation import World, stage


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


def shown(world, endpoint="a"):
    return {one.version: one.state for one in world.activation.index() if one.endpoint == endpoint}


def test_nothing_is_held_without_routes():
    assert inventory([], {}, is_loaded=bool, problem_of=lambda _: None, leaving=[]) == []


async def test_a_version_is_loading_until_requests_can_reach_it_and_kept_after_its_successor(world):
    world.written("a", {"champion": stage(world, "1")})
    world.activation.look()
    assert shown(world) == {"1": "LOADING"}
    await world.until(lambda: world.activation.is_settled)
    assert shown(world) == {"1": "READY"}
    second = world.written("a", {"champion": stage(world, "2")}, live=False)
    world.activation.look()
    assert shown(world) == {"1": "READY", "2": "LOADING"}
    await world.until(lambda: ("warm", "a", second) in world.events())
    world.activate(second)
    await world.until(lambda: world.served() == {"a": second})
    assert shown(world) == {"1": "READY", "2": "READY"}


async def test_what_is_kept_for_a_rollback_and_does_not_fit_any_more_is_unavailable_and_says_why(world):
    world.written("a", {"champion": stage(world, "1", columns=3)})
    await world.until(world.served)
    number = world.written("a", {"champion": stage(world, "2")})
    await world.until(lambda: world.served() == {"a": number})
    assert shown(world) == {"1": "UNAVAILABLE", "2": "READY"}
    reasons = {one.version: one.reason for one in world.activation.index()}
    assert reasons["1"].startswith("kept warm for a rollback; it does not fit")


async def test_a_version_that_cannot_be_loaded_is_unavailable_and_says_why(world):
    staged = stage(world, "1")
    (world.plane.artifacts / staged.digest / staged.file).write_bytes(b"broken")
    number = world.written("a", {"champion": staged})
    await world.until(lambda: ("failed", "a", number) in world.events())
    (row,) = world.activation.index()
    assert (row.state, row.version) == ("UNAVAILABLE", "1")
    assert "digest" in row.reason


async def test_the_reason_names_no_path(world):
    staged = stage(world, "1")
    (world.plane.artifacts / staged.digest / staged.file).unlink()
    number = world.written("a", {"champion": staged})
    await world.until(lambda: ("failed", "a", number) in world.events())
    (row,) = world.activation.index()
    assert row.reason == "FileNotFoundError: No such file or directory"
    assert staged.file in world.lines[-1]["problem"]


async def test_where_nothing_is_served_what_is_kept_for_a_rollback_is_said_to_be_just_that(world):
    world.written("a", {"champion": stage(world, "1")})
    staged = stage(world, "2")
    (world.plane.artifacts / staged.digest / staged.file).write_bytes(b"broken")
    world.written("a", {"champion": staged})
    await world.until(lambda: "1" in shown(world))
    reasons = {one.version: one.reason for one in world.activation.index()}
    assert (shown(world)["1"], reasons["1"]) == ("UNAVAILABLE", "kept warm for a rollback")


async def test_what_requests_hold_open_after_its_time_is_unloading(world):
    for version in ("1", "2"):
        number = world.written("a", {"champion": stage(world, version)})
        await world.until(lambda number=number: world.served() == {"a": number})
    held = world.plane.catalog.get(stage(world, "1").digest)
    held.leases += 1
    number = world.written("a", {"champion": stage(world, "3")})
    await world.until(lambda: world.served() == {"a": number})
    await asyncio.sleep(0)
    assert shown(world) == {"1": "UNLOADING", "2": "READY", "3": "READY"}
    held.leases -= 1
    world.written("b", {"champion": stage(world, "4")})
    await world.until(lambda: world.served().keys() == {"a", "b"})
    world.activation._let_go()
    assert "1" not in shown(world)
