import asyncio
import fcntl
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gateway.activation import RETRY_S, Activation
from gateway.state.compiled import CompiledModel, CompiledRoute
from gateway.state.reader import StateReader
from gateway.state.revision import Draft
from gateway.state.store import StateStore
from models.errors import NotWarm
from models.staged import StagedModel
from routing.split import compile_split
from routing.traffic import to_document
from routing.validate import validate
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear


class World:
    """A worker's data plane following a real state database that the test writes as control would."""

    def __init__(self, folder: Path):
        self.plane = Plane(folder)
        self.path = folder / "state.db"
        self.store = StateStore(self.path)
        self.lines: list[dict] = []
        self.now = 0.0
        self.activation = Activation(
            reader=StateReader(self.path),
            catalog=self.plane.catalog,
            plane=self.plane.data,
            paths=self.plane.paths,
            page=self.plane.page,
            tell=self.lines.append,
            turns=folder / "warm-up.lock",
            clock=lambda: self.now,
        )

    def compiled(
        self, number: int, endpoint: str, models: dict[str, StagedModel], pins: Sequence[StagedModel] = ()
    ) -> CompiledRoute:
        champion = next(iter(models))
        variants = [{"name": name, "model": staged.uri, "weight": 1.0} for name, staged in models.items()]
        route = validate({"endpoint": endpoint, "champion": champion, "variants": variants})
        split = compile_split(route.salt, route.weights)
        return CompiledRoute(
            endpoint=endpoint,
            revision=number,
            document=to_document(route),
            models={name: CompiledModel(key=s.key, digest=s.digest, uri=s.uri) for name, s in models.items()},
            split=split.arms,
            split_sha256=split.sha256,
            signature=models[champion].signature,
            pins=[CompiledModel(key=s.key, digest=s.digest, uri=s.uri, role="pin") for s in pins],
        )

    def written(
        self, endpoint: str, models: dict[str, StagedModel], *, live: bool = True, pins: Sequence[StagedModel] = ()
    ) -> int:
        """Writes a revision, as `warming` or as live."""
        document = {"endpoint": endpoint}
        draft = Draft(endpoint=endpoint, action="put", author="test", reason="test", document=document)
        revision = self.store.write(draft, check=False)
        compiled = self.compiled(revision.number, endpoint, models, pins)
        if live:
            assert self.store.activate(revision.number, compiled)
        else:
            assert self.store.advance(revision.number, "warming", compiled)
        return revision.number

    def activate(self, number: int) -> None:
        assert self.store.activate(number, self.store.compiled(number))

    async def until(self, claim: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not claim():
                self.activation.look()
                await asyncio.sleep(0.001)

    def served(self) -> dict[str, int]:
        return {name: endpoint.revision for name, endpoint in self.plane.data.table.endpoints.items()}

    def events(self) -> list[tuple]:
        return [(line["event"], line["endpoint"], line["revision"]) for line in self.lines]

    def close(self) -> None:
        self.activation.close()
        self.store.close()
        self.plane.close()


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


def stage(world: World, version: str = "1", name: str = "line", **options) -> StagedModel:
    return stage_linear(world.plane.artifacts, name=name, version=version, **options)


async def test_a_worker_without_routes_is_settled_at_once(world):
    assert not world.activation.is_settled
    world.activation.look()
    assert world.activation.is_settled
    assert world.activation.endpoints == {}


async def test_at_the_start_every_live_revision_is_loaded_and_then_served(world):
    first = world.written("a", {"champion": stage(world, "1")})
    second = world.written("b", {"champion": stage(world, "2")})
    world.activation.look()
    assert not world.activation.is_settled
    assert world.activation.endpoints == {"a": False, "b": False}
    await world.until(lambda: world.activation.is_settled)
    assert world.served() == {"a": first, "b": second}
    assert world.activation.endpoints == {"a": True, "b": True}
    assert sorted(world.events()) == [("active", "a", first), ("active", "b", second)]
    paths = world.plane.paths.targets
    assert {path for path in paths if path.startswith(b"/v2")} == {b"/v2/models/a/infer", b"/v2/models/b/infer"}


async def test_a_pending_revision_is_warmed_while_the_old_one_serves_and_switches_when_it_goes_live(world):
    old = world.written("a", {"champion": stage(world, "1")})
    await world.until(lambda: world.served() == {"a": old})
    new = world.written("a", {"champion": stage(world, "2")}, live=False)
    await world.until(lambda: ("warm", "a", new) in world.events())
    assert world.served() == {"a": old}
    world.activate(new)
    world.activation.look()
    assert world.served() == {"a": new}
    assert world.events() == [("active", "a", old), ("warm", "a", new), ("active", "a", new)]


async def test_one_worker_at_a_time_warms_while_it_serves_and_who_stops_meanwhile_waits_for_no_turn(world, tmp_path):
    first, second = stage(world, "1"), stage(world, "2")
    served = world.written("a", {"champion": first})
    await world.until(lambda: world.served() == {"a": served})
    with (tmp_path / "warm-up.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        world.written("a", {"champion": second}, live=False)
        for _ in range(20):
            world.activation.look()
            await asyncio.sleep(0.005)
        assert world.plane.catalog.get(second.digest) is None
        world.activation.close()
    await asyncio.sleep(0)
    assert world.plane.catalog.get(second.digest) is None
    assert world.events() == [("active", "a", served)]


async def test_what_served_before_stays_warm_for_a_rollback_at_once(world):
    old = world.written("a", {"champion": stage(world, "1")})
    await world.until(lambda: world.served() == {"a": old})
    new = world.written("a", {"champion": stage(world, "2")})
    await world.until(lambda: world.served() == {"a": new})
    again = stage(world, "1")
    shutil.rmtree(world.plane.artifacts)  # nothing has to be loaded
    back = world.written("a", {"champion": again})
    await world.until(lambda: world.served() == {"a": back})


async def test_what_no_revision_names_is_dropped_after_its_last_lease(world):
    for version in ("1", "2", "3"):
        number = world.written("a", {"champion": stage(world, version)})
        await world.until(lambda number=number: world.served() == {"a": number})
        if version == "1":
            (first,) = world.plane.catalog.loaded()
            first.leases = 1
    assert {model.staged.key.version for model in world.plane.catalog.loaded()} == {"1", "2", "3"}
    first.leases = 0
    world.written("b", {"champion": stage(world, "3")})
    await world.until(lambda: len(world.plane.catalog.loaded()) == 2)
    assert {model.staged.key.version for model in world.plane.catalog.loaded()} == {"2", "3"}


async def test_an_artifact_that_cannot_be_loaded_is_told_and_the_old_revision_goes_on(world):
    old = world.written("a", {"champion": stage(world, "1")})
    await world.until(lambda: world.served() == {"a": old})
    broken = stage(world, "2")
    (world.plane.artifacts / broken.digest / broken.file).write_bytes(b"no model")
    new = world.written("a", {"champion": broken}, live=False)
    await world.until(lambda: ("failed", "a", new) in world.events())
    assert "ArtifactInvalid" in world.lines[-1]["problem"]
    assert world.served() == {"a": old}
    for _ in range(10):
        world.activation.look()
        await asyncio.sleep(0)
    assert world.events().count(("failed", "a", new)) == 1


async def test_an_endpoint_that_cannot_be_loaded_does_not_hold_up_the_others(world):
    broken, whole = stage(world, "1"), stage(world, "2")
    path = world.plane.artifacts / broken.digest / broken.file
    content = path.read_bytes()
    path.write_bytes(b"no model")
    world.written("a", {"champion": broken})
    good = world.written("b", {"champion": whole})
    await world.until(lambda: world.activation.is_settled)
    assert world.served() == {"b": good}
    assert world.activation.endpoints == {"a": False, "b": True}
    table = world.plane.data.table
    assert (table.cold, table.default) == ({"a": ("1",)}, None)
    with pytest.raises(NotWarm):
        table.endpoint("a")
    path.write_bytes(content)
    world.now += RETRY_S + 1
    await world.until(lambda: "a" in world.served())
    assert not world.plane.data.table.cold


async def test_the_only_endpoint_is_the_default_one_also_while_it_is_not_loaded(world):
    world.written("a", {"champion": stage(world, "1")})
    world.activation.look()
    assert (world.plane.data.table.cold, world.plane.data.table.default) == ({"a": ("1",)}, "a")
    with pytest.raises(NotWarm):
        world.plane.data.endpoint(None)
    await world.until(world.served)


async def test_what_is_kept_for_a_rollback_answers_for_its_version(world):
    old = world.written("a", {"champion": stage(world, "1")})
    await world.until(lambda: world.served() == {"a": old})
    new = world.written("a", {"champion": stage(world, "2")})
    await world.until(lambda: world.served() == {"a": new})
    served = world.plane.data.table.endpoints["a"]
    assert served.variant_names == ("champion", "pin-1")
    assert served.pins["1"].model.staged.key.version == "1"
    assert [one.state for one in world.activation.index()] == ["READY", "READY"]


async def test_a_pin_that_the_live_revision_no_longer_has_answers_nobody(world):
    first, second = stage(world, "1"), stage(world, "2")
    number = world.written("a", {"champion": first}, pins=[second])
    await world.until(lambda: world.served() == {"a": number})
    assert list(world.plane.data.table.endpoints["a"].pins) == ["1", "2"]
    number = world.written("a", {"champion": first})
    await world.until(lambda: world.served() == {"a": number})
    assert list(world.plane.data.table.endpoints["a"].pins) == ["1"]
    assert {one.version: one.reason for one in world.activation.index()} == {"1": "", "2": "kept warm for a rollback"}


async def test_what_is_kept_for_a_rollback_answers_after_a_restart_too_and_nobody_is_told_twice(world):
    world.written("a", {"champion": stage(world, "1")})
    number = world.written("a", {"champion": stage(world, "2")})
    await world.until(lambda: "1" in world.plane.data.table.endpoints["a"].pins if world.served() else False)
    assert world.events() == [("active", "a", number)]
    for _ in range(3):
        endpoint = world.plane.data.table.endpoints["a"]
        world.activation.look()
        assert world.plane.data.table.endpoints["a"] is endpoint


async def test_what_is_kept_for_a_rollback_and_does_not_fit_the_endpoint_any_more_answers_nobody(world):
    world.written("a", {"champion": stage(world, "1", columns=3)})
    await world.until(world.served)
    number = world.written("a", {"champion": stage(world, "2")})
    await world.until(lambda: world.served() == {"a": number})
    assert list(world.plane.data.table.endpoints["a"].pins) == ["2"]
    assert {one.version: one.state for one in world.activation.index()} == {"1": "UNAVAILABLE", "2": "READY"}


async def test_a_split_without_its_digest_is_refused(world):
    staged = stage(world)
    draft = Draft(endpoint="a", action="put", author="t", reason="t", document={"endpoint": "a"})
    number = world.store.write(draft, check=False).number
    compiled = world.compiled(number, "a", {"champion": staged, "other": stage(world, "2")})
    forged = CompiledRoute(
        **{name: getattr(compiled, name) for name in compiled.__struct_fields__} | {"split": bytes(65_536)}
    )
    world.store.activate(number, forged)
    await world.until(lambda: ("failed", "a", number) in world.events())
    assert world.served() == {}


async def test_a_deleted_endpoint_is_gone_at_the_next_look(world):
    world.written("a", {"champion": stage(world)})
    await world.until(world.served)
    draft = Draft(endpoint="a", action="delete", author="t", reason="t", document=None)
    world.store.activate(world.store.write(draft, check=False).number, None)
    world.activation.look()
    assert world.served() == {}
    assert world.activation.endpoints == {}


async def test_the_only_endpoint_is_the_default_one(world):
    world.written("a", {"champion": stage(world)})
    await world.until(world.served)
    assert world.plane.data.table.default == "a"
    world.written("b", {"champion": stage(world)})
    await world.until(lambda: len(world.served()) == 2)
    assert world.plane.data.table.default is None


async def test_weights_and_revision_are_on_the_scrape_as_they_serve(world):
    number = world.written("a", {"champion": stage(world, "1"), "challenger": stage(world, "2")})
    await world.until(world.served)
    totals = world.plane.totals()
    assert totals.value("runoff_revision", endpoint="a") == number
    shares = [totals.value("runoff_route_weight", endpoint="a", variant=name) for name in ("champion", "challenger")]
    assert sum(shares) == 1.0
    assert abs(shares[0] - 0.5) < 0.02
    assert totals.value("runoff_model_state", model="line", version="1", state="warm") == 1


def spoil(world: World, endpoint: str) -> None:
    """Another release has written what is live and warming of an endpoint."""
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute("UPDATE revisions SET compiled = x'80' WHERE endpoint = ?", (endpoint,))


async def test_what_another_release_wrote_leaves_the_revision_before_it_serving(world):
    old = world.written("a", {"champion": stage(world, "1")})
    other = world.written("b", {"champion": stage(world, "1")})
    await world.until(lambda: len(world.served()) == 2)
    new = world.written("a", {"champion": stage(world, "2")})
    next_one = world.written("b", {"champion": stage(world, "2")}, live=False)
    for endpoint in ("a", "b"):
        spoil(world, endpoint)
    for _ in range(3):
        world.activation.look()
    assert world.served() == {"a": old, "b": other}
    assert world.activation.endpoints == {"a": True, "b": True}
    failed = [event for event in world.events() if event[0] == "failed"]
    assert failed == [("failed", "a", new), ("failed", "b", other), ("failed", "b", next_one)]
    assert "another release" in world.lines[-1]["problem"]


async def test_a_worker_that_starts_on_what_another_release_wrote_serves_the_rest(world):
    new = world.written("a", {"champion": stage(world, "1")})
    other = world.written("b", {"champion": stage(world, "1")})
    spoil(world, "a")
    await world.until(lambda: world.activation.is_settled)
    assert world.served() == {"b": other}
    assert world.plane.data.table.cold == {"a": ()}
    assert world.activation.endpoints == {"a": False, "b": True}
    assert ("failed", "a", new) in world.events()


async def test_while_the_state_cannot_be_read_the_worker_goes_on(world, caplog):
    old = world.written("a", {"champion": stage(world, "1")})
    await world.until(world.served)
    following = asyncio.create_task(world.activation.run())
    with closing(sqlite3.connect(world.path)) as connection:
        connection.execute("ALTER TABLE routes RENAME COLUMN live TO lively")
        async with asyncio.timeout(30):
            while "look_failed" not in caplog.text:  # noqa: ASYNC110 - a look is what is waited for
                await asyncio.sleep(0.001)
        assert (following.done(), world.served()) == (False, {"a": old})
        connection.execute("ALTER TABLE routes RENAME COLUMN lively TO live")
    new = world.written("a", {"champion": stage(world, "2")})
    async with asyncio.timeout(30):
        while world.served() != {"a": new}:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def test_what_is_loading_and_what_failed_is_on_the_scrape(world):
    def states() -> dict[str, set[str]]:
        totals = world.plane.totals()
        shown = {
            (version, state): totals.value("runoff_model_state", model="line", version=version, state=state)
            for version in ("1", "2", "3")
            for state in ("loading", "warm", "failed")
        }
        return {
            version: {state for (other, state), value in shown.items() if other == version and value == 1}
            for version in ("1", "2", "3")
        }

    broken = stage(world, "1")
    path = world.plane.artifacts / broken.digest / broken.file
    content = path.read_bytes()
    path.write_bytes(b"no model")
    world.written("a", {"champion": broken, "other": stage(world, "2", slope=2.0)})
    world.activation.look()
    assert states() == {"1": {"loading"}, "2": {"loading"}, "3": set()}
    await world.until(lambda: world.activation.is_settled)
    assert states() == {"1": {"failed"}, "2": set(), "3": set()}
    path.write_bytes(content)
    world.now += RETRY_S + 1
    await world.until(world.served)
    assert states() == {"1": {"warm"}, "2": {"warm"}, "3": set()}
    worse = stage(world, "3", slope=3.0)
    (world.plane.artifacts / worse.digest / worse.file).write_bytes(b"no model")
    number = world.written("a", {"champion": worse}, live=False)
    await world.until(lambda: ("failed", "a", number) in world.events())
    assert states()["3"] == {"failed"}
    draft = Draft(endpoint="a", action="delete", author="t", reason="t", document=None)
    world.store.activate(world.store.write(draft, check=False).number, None)
    world.activation.look()
    assert states() == {"1": set(), "2": set(), "3": set()}
