from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.shadow.lane import Lane
from gateway.shadow.roster import Roster
from gateway.state.reader import StateReader
from models.runtime.remote import RemoteModel
from models.runtime.target import Access, RemoteRefused
from routing.traffic import Mirror
from tests.kit.shadowed import Shadowed

REMOTE = {"url": "http://127.0.0.1:9", "model": "m"}


class Opened:
    """Opens real lanes and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, endpoint: str, mirror: Mirror) -> Lane:
        assert mirror.remote is not None
        client = RemoteModel(mirror.remote.url, mirror.remote.model, Access(allow=("127.0.0.1",)))
        self.count += 1
        return Lane(client, mirror.remote.model, gateway="a" * 16, body_bytes_max=1, landed=lambda _: None)


@pytest.fixture
async def roster(tmp_path: Path) -> AsyncIterator[tuple[Shadowed, Roster, Opened]]:
    world, opened = Shadowed(tmp_path / "state"), Opened()
    roster = Roster(StateReader(world.settings.state_file), world.artifacts, opened)
    yield world, roster, opened
    await roster.close()
    world.close()


async def test_candidates_are_the_mirrors_of_live_routes_the_most_important_first(
    roster: tuple[Shadowed, Roster, Opened],
) -> None:
    world, roster_, _ = roster
    candidates = world.candidates(3)
    world.route(candidates, candidate_0={"priority": 3}, candidate_1={"priority": 1}, candidate_2={"priority": 2})

    assert roster_.refresh()

    assert sorted(roster_.candidates) == [("line", f"candidate-{n}") for n in range(3)]
    assert roster_.wanted == [candidates[f"candidate-{n}"].digest for n in (1, 2, 0)]


async def test_routes_are_read_only_when_something_was_written(roster: tuple[Shadowed, Roster, Opened]) -> None:
    world, roster_, _ = roster
    world.route(world.candidates(1))
    assert roster_.refresh()
    assert not roster_.refresh()
    world.route({})
    assert roster_.refresh()
    assert roster_.candidates == {}


async def test_a_lane_is_kept_while_its_mirror_is_unchanged_and_closed_once_it_is_gone_and_idle(
    roster: tuple[Shadowed, Roster, Opened],
) -> None:
    world, roster_, opened = roster
    world.route({"far": REMOTE} | world.candidates(1))
    roster_.refresh()
    lane = roster_.candidates["line", "far"].lane
    world.route({"far": REMOTE}, far={"priority": 2, "sample": 0.5})
    roster_.refresh()
    assert roster_.candidates["line", "far"].lane is lane
    assert opened.count == 1

    world.route({"far": REMOTE | {"model": "other"}})
    roster_.refresh()
    assert opened.count == 2
    assert len(list(roster_.lanes())) == 2
    await roster_.sweep()
    assert len(list(roster_.lanes())) == 1


async def test_a_remote_that_is_refused_is_a_candidate_that_nobody_calls(tmp_path: Path) -> None:
    def refuse(endpoint: str, mirror: Mirror) -> Lane:
        raise RemoteRefused("no")

    world = Shadowed(tmp_path / "state")
    world.route({"far": REMOTE})
    roster = Roster(StateReader(world.settings.state_file), world.artifacts, refuse)
    roster.refresh()

    assert roster.candidates["line", "far"].lane is None
    await roster.close()
    world.close()


async def test_the_answer_of_a_version_is_found_in_its_route_else_among_all_artifacts(
    roster: tuple[Shadowed, Roster, Opened],
) -> None:
    world, roster_, _ = roster
    other = world.candidates(1)["candidate-0"]
    assert roster_.answer_of("nobody", "1") is None
    world.route({})
    roster_.refresh()

    assert roster_.answer_of("champion", "1") == world.champion.answer
    assert roster_.answer_of(other.key.name, other.key.version) == other.answer
