from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from gateway.shadow.governor import BEHIND_S, LATE_S, Governor
from gateway.shadow.loader import Loader
from gateway.shadow.plan import plan
from gateway.shadow.progress import Progress
from gateway.shadow.roster import Roster
from gateway.shadow.suspects import Suspects
from gateway.state.reader import StateReader
from models.catalog import Catalog
from tests.kit.shadowed import Shadowed, draw_of

NOW = 1_000_000.0


class World:
    def __init__(self, folder: Path) -> None:
        self.state = Shadowed(folder)
        self.suspects = Suspects(folder / "shadow")
        self.loader = Loader(Catalog(self.state.artifacts), self.suspects)
        self.governor = Governor(memory_bytes_max=1 << 40, cores_max=64.0)
        self.progress = Progress(folder / "shadow", folder / "spool", "shadow-x")
        self.roster = Roster(StateReader(self.state.settings.state_file), self.state.artifacts, lambda *_: None)

    async def route(self, **fields: dict[str, object]) -> None:
        self.state.route(self.state.candidates(3), **fields)
        self.roster.refresh()
        self.loader.want(self.roster.wanted)
        while not self.loader.is_settled(self.roster.wanted):
            await self.loader.wait(30)

    def plan(
        self, *, age_s: float = 0.0, rows: tuple[int, ...] = (1, 1), **fields: object
    ) -> dict[str, dict[int, str] | None]:
        """By mirror: None where it is to be run, else the reason by request."""
        x = np.ones((sum(rows), 2), np.float32)
        draw = draw_of({"x": x}, rows=rows, mirrors=self.state.names, received_unix_s=NOW - age_s, **fields)
        planned = plan(draw, self.roster, self.loader, self.progress, self.governor, NOW)
        return {job.mirror: None if candidate and not job.reasons else job.reasons for job, candidate in planned}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "state")
    yield world
    await world.roster.close()
    await world.loader.close()
    world.progress.close()
    world.suspects.close()
    world.state.close()


async def test_each_mirror_that_drew_something_gets_a_job(world: World) -> None:
    await world.route()

    assert world.plan() == {f"candidate-{n}": None for n in range(3)}
    assert world.plan(masks=[0b010, 0b100]) == {"candidate-1": None, "candidate-2": None}
    assert world.plan(masks=[0, 0]) == {}


async def test_old_rows_are_expired_whatever_else_is_wrong_with_them(world: World) -> None:
    await world.route(candidate_0={"until": "1970-01-01T00:00:00Z"}, candidate_1={"body_bytes_max": 1})

    assert world.plan(age_s=60.1) == {f"candidate-{n}": {0: "expired", 1: "expired"} for n in range(3)}


async def test_single_requests_may_be_too_large_or_too_late_for_a_mirror(world: World) -> None:
    await world.route(candidate_0={"until": "1970-01-01T00:00:00Z"}, candidate_1={"body_bytes_max": 8})

    planned = world.plan(rows=(1, 2))

    assert planned["candidate-0"] == {0: "until_passed", 1: "until_passed"}
    assert planned["candidate-1"] == {1: "too_large"}
    assert planned["candidate-2"] is None


async def test_behind_its_time_the_governor_lowers_the_samples_of_the_largest_priority_numbers_first(
    world: World,
) -> None:
    await world.route(candidate_0={"priority": 5}, candidate_1={"priority": 1}, candidate_2={"priority": 2})
    third = (LATE_S - BEHIND_S) / 3

    def kept(age_s: float) -> tuple[float, ...]:
        """The share of 400 requests that each candidate would run."""
        planned = world.plan(age_s=age_s, rows=(1,) * 400)
        return tuple(round(1 - len(planned[f"candidate-{n}"] or ()) / 400, 1) for n in (1, 2, 0))

    assert kept(BEHIND_S - 1) == (1, 1, 1)
    assert kept(BEHIND_S + third / 2) == (1, 1, 0.5)
    assert kept(BEHIND_S + third) == (1, 1, 0)
    assert kept(BEHIND_S + third * 1.5) == (1, 0.5, 0)
    assert kept(LATE_S - third) == (1, 0, 0)
    assert kept(59) == (1, 0, 0)


async def test_candidates_of_one_priority_lose_the_same_requests_so_that_they_stay_comparable(world: World) -> None:
    await world.route(candidate_0={"priority": 2}, candidate_1={"priority": 1}, candidate_2={"priority": 2})

    planned = world.plan(age_s=(BEHIND_S + LATE_S) / 2 - 5, rows=(1,) * 100)

    assert planned["candidate-0"] == planned["candidate-2"]
    assert set(planned["candidate-0"].values()) == {"governor"}
    assert planned["candidate-1"] is None


async def test_equal_priorities_are_never_shed_by_the_governor(world: World) -> None:
    await world.route()

    assert world.plan(age_s=59) == {f"candidate-{n}": None for n in range(3)}
