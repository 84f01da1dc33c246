import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.control.aliases import AliasMover
from tests.kit.control import ANN, ControlPlane, route

PAIR = {"champion": ("models:/phishing@champion", 1), "challenger": ("models:/phishing@challenger", 1)}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        yield made


@pytest.fixture
def mover(plane):
    with ThreadPoolExecutor(1) as executor:
        yield AliasMover(plane.store, plane.shelf.named_by, plane.shelf.move, executor, pauses_s=(1.0, 5.0))


async def promoted(plane, arm="challenger"):
    current = plane.store.current("phishing") or await plane.put(route(**PAIR))
    plane.changes.promote("phishing", arm, is_mirror=False, expected=current.number, author=ANN)


def champion(plane):
    return plane.shelf.aliases["phishing", "champion"]


async def test_with_nothing_to_move_the_registry_is_not_asked(plane, mover):
    asked = plane.shelf.asked
    assert await mover.step() == 1.0
    assert plane.shelf.asked == asked


async def test_a_move_that_succeeds_is_done_once_and_stands_in_the_audit(plane, mover):
    await promoted(plane)
    assert await mover.step() == 0.0
    assert (champion(plane), plane.store.alias_moves.waiting()) == ("2", [])
    (row,) = [row for row in plane.store.audit(limit=10) if row.action == "alias_moved"]
    assert (row.detail["alias"], row.detail["version"]) == ("champion", "2")


async def test_pauses_grow_while_the_registry_is_away_and_the_move_is_never_given_up(plane, mover):
    await promoted(plane)
    plane.shelf.is_down = True
    assert [await mover.step() for _ in range(4)] == [1.0, 5.0, 5.0, 5.0]
    (move,) = plane.store.alias_moves.waiting()
    assert (move.attempts, move.problem) == (4, "the registry does not answer")
    plane.shelf.is_down = False
    assert await mover.step() == 0.0
    assert champion(plane) == "2"


async def test_a_version_that_the_registry_does_not_know_is_given_up_for_good(plane, mover):
    await promoted(plane)
    plane.shelf.withdraw("phishing", "2")
    assert await mover.step() == 0.0
    assert (champion(plane), plane.store.alias_moves.waiting()) == ("1", [])
    (row,) = [row for row in plane.store.audit(limit=10) if row.action == "alias_refused"]
    assert "there is no such version" in row.detail["problem"]


async def test_the_oldest_promotion_goes_first_so_that_the_newest_has_the_last_word(plane, mover):
    first = await plane.put(route(**PAIR))
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    plane.shelf.is_down = True
    await mover.step()
    plane.changes.rollback("phishing", to=first.number, move_alias=True, author=ANN)
    assert [move.version for move in plane.store.alias_moves.waiting()] == ["2", "1"]
    plane.shelf.is_down = False
    seen = []
    while plane.store.alias_moves.waiting():
        await mover.step()
        seen.append(champion(plane))
    assert seen == ["2", "1"]


async def test_an_error_that_nobody_foresaw_is_not_taken_for_a_success_and_ends_nothing(plane):
    def broken(move):
        raise OSError("disk")

    await promoted(plane)
    with ThreadPoolExecutor(1) as executor:
        assert await AliasMover(plane.store, plane.shelf.named_by, broken, executor).step() == 1.0
    (move,) = plane.store.alias_moves.waiting()
    assert move.problem == "OSError: disk"


async def test_an_alias_that_somebody_moved_after_a_half_noted_move_stays_theirs(plane, mover):
    """Control dies between the registry's yes and its note of it, and a person moves the alias on before it is back."""
    plane.shelf.publish("phishing", "3")
    await promoted(plane)
    tried, plane.store.alias_moves.tried = plane.store.alias_moves.tried, lambda *_, **__: None
    await mover.step()
    plane.store.alias_moves.tried = tried
    assert champion(plane) == "2"
    plane.shelf.aliases["phishing", "champion"] = "3"
    await mover.step()
    assert (champion(plane), plane.store.alias_moves.waiting()) == ("3", [])
    (move,) = plane.store.alias_moves.given_up("phishing")
    assert "names version 3 by now" in move.problem


async def test_what_was_half_noted_is_done_without_writing_again(plane, mover):
    await promoted(plane)
    tried, plane.store.alias_moves.tried = plane.store.alias_moves.tried, lambda *_, **__: None
    await mover.step()
    plane.store.alias_moves.tried = tried
    plane.shelf.move = None
    await mover.step()
    assert (plane.store.alias_moves.waiting(), plane.store.alias_moves.given_up()) == ([], [])


async def test_a_registry_that_is_heard_again_is_tried_at_once(plane):
    await promoted(plane)
    plane.shelf.is_down = True
    with ThreadPoolExecutor(1) as executor:
        mover = AliasMover(plane.store, plane.shelf.named_by, plane.shelf.move, executor, pauses_s=(3600.0,))
        plane.follower._on_return = mover.wake
        running = asyncio.create_task(mover.run())
        while not plane.store.alias_moves.waiting()[0].problem:  # noqa: ASYNC110  # a try that fails wakes nobody
            await asyncio.sleep(0)
        await plane.follower.step()
        plane.shelf.is_down = False
        await plane.follower.step()
        while plane.store.alias_moves.waiting():  # noqa: ASYNC110  # nor does one that succeeds
            await asyncio.sleep(0)
        running.cancel()
    assert champion(plane) == "2"


async def test_a_state_that_cannot_be_written_does_not_end_the_moves(plane, mover, monkeypatch):
    steps = []

    async def full():
        steps.append(1)
        mover.wake()
        if len(steps) == 3:
            raise asyncio.CancelledError
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(mover, "step", full)
    with pytest.raises(asyncio.CancelledError):
        await mover.run()
    assert len(steps) == 3
