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
        yield AliasMover(plane.store, plane.shelf.move, executor, pauses_s=(1.0, 5.0))


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
    assert (champion(plane), plane.store.alias_moves()) == ("2", [])
    (row,) = [row for row in plane.store.audit(limit=10) if row.action == "alias_moved"]
    assert (row.detail["alias"], row.detail["version"]) == ("champion", "2")


async def test_pauses_grow_while_the_registry_is_away_and_the_move_is_never_given_up(plane, mover):
    await promoted(plane)
    plane.shelf.is_down = True
    assert [await mover.step() for _ in range(4)] == [1.0, 5.0, 5.0, 5.0]
    (move,) = plane.store.alias_moves()
    assert (move.attempts, move.problem) == (4, "the registry does not answer")
    plane.shelf.is_down = False
    assert await mover.step() == 0.0
    assert champion(plane) == "2"


async def test_a_version_that_the_registry_does_not_know_is_given_up_for_good(plane, mover):
    await promoted(plane)
    del plane.shelf._inputs["phishing", "2"]
    assert await mover.step() == 0.0
    assert (champion(plane), plane.store.alias_moves()) == ("1", [])
    (row,) = [row for row in plane.store.audit(limit=10) if row.action == "alias_refused"]
    assert "there is no such version" in row.detail["problem"]


async def test_the_oldest_promotion_goes_first_so_that_the_newest_has_the_last_word(plane, mover):
    first = await plane.put(route(**PAIR))
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    plane.shelf.is_down = True
    await mover.step()
    plane.changes.rollback("phishing", to=first.number, move_alias=True, author=ANN)
    assert [move.version for move in plane.store.alias_moves()] == ["2", "1"]
    plane.shelf.is_down = False
    seen = []
    while plane.store.alias_moves():
        await mover.step()
        seen.append(champion(plane))
    assert seen == ["2", "1"]


async def test_an_error_that_nobody_foresaw_is_not_taken_for_a_success(plane):
    def broken(move):
        raise OSError("disk")

    await promoted(plane)
    with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match="disk"):
        await AliasMover(plane.store, broken, executor).step()
    assert len(plane.store.alias_moves()) == 1
