from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.shadow.loader import EVICTED_S, RETRY_S, Loader
from gateway.shadow.suspects import STRIKES_MAX, Suspects
from models.catalog import Catalog
from tests.kit.staged import stage_linear


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self, folder: Path) -> None:
        self.artifacts = folder / "artifacts"
        self.clock = Clock()
        self.suspects = Suspects(folder / "shadow")
        self.loader = Loader(Catalog(self.artifacts), self.suspects, clock=self.clock)

    def stage(self, version: int) -> str:
        return stage_linear(self.artifacts, version=str(version), slope=float(version)).digest

    async def settle(self, *digests: str) -> None:
        while not self.loader.is_settled(digests):
            await self.loader.wait(30)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.loader.close()
    world.suspects.close()


async def test_what_is_wanted_is_loaded_and_what_is_not_any_more_is_let_go(world: World) -> None:
    one, two = world.stage(1), world.stage(2)
    world.loader.want([one])
    await world.settle(one)
    assert world.loader.model(one) is not None
    assert world.loader.model(two) is None

    world.loader.want([two])
    await world.settle(two)
    assert world.loader.model(one) is None
    assert world.loader.model(two) is not None


async def test_the_most_important_is_loaded_first(world: World) -> None:
    one, two = world.stage(1), world.stage(2)
    world.loader.want([two, one])

    await world.settle(two)

    assert world.loader.model(two) is not None


async def test_what_cannot_be_loaded_is_not_warm_and_is_tried_again_later(world: World) -> None:
    good, missing = world.stage(1), "f" * 64
    world.loader.want([missing, good])
    await world.settle(missing, good)
    assert world.loader.refusal(missing) == "not_warm"
    assert world.loader.model(good) is not None

    world.clock.now += RETRY_S
    world.loader.step()
    assert not world.loader.is_settled([missing])


async def test_shrinking_gives_up_the_least_important_for_a_while(world: World) -> None:
    digests = [world.stage(version) for version in (1, 2, 3)]
    world.loader.want(digests)
    await world.settle(*digests)

    assert world.loader.shrink()
    assert [world.loader.model(digest) is not None for digest in digests] == [True, True, False]
    assert world.loader.refusal(digests[2]) == "governor"
    assert world.loader.shrink()
    assert world.loader.shrink()
    assert not world.loader.shrink()

    world.clock.now += EVICTED_S
    world.loader.step()
    await world.settle(*digests)
    assert world.loader.model(digests[0]) is not None


async def test_a_candidate_that_keeps_ending_the_process_is_not_loaded(tmp_path: Path) -> None:
    bad = stage_linear(tmp_path / "artifacts").digest
    for _ in range(STRIKES_MAX):
        (tmp_path / "shadow").mkdir(exist_ok=True)
        (tmp_path / "shadow" / "marks.bin").write_bytes(bad.encode() + bytes(64))
        Suspects(tmp_path / "shadow").close()
    world = World(tmp_path)
    world.loader.want([bad])
    assert world.loader.is_settled([bad])
    assert world.loader.refusal(bad) == "model_failed"
    await world.loader.close()
