import pytest

from gateway.control.changes import EndpointAbsent, NothingToRestore
from gateway.state.store import RevisionStale
from routing.errors import RouteInvalid
from tests.kit.control import ANN, ControlPlane, route

SPLIT = {"champion": ("models:/phishing@champion", 90), "challenger": ("models:/phishing@challenger", 10)}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        yield made


def weights(plane):
    return {variant["name"]: variant["weight"] for variant in plane.store.live("phishing").document["variants"]}


async def test_a_promoted_variant_gives_its_version_to_the_champion_and_the_alias_follows(plane):
    first = await plane.put(route(**SPLIT))
    plane.shelf.publish("phishing", "3", alias="challenger")  # what the alias says by now does not count
    revision = plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    assert (await plane.ended(revision)).state == "live"
    assert plane.live()["champion"] == "2"
    assert weights(plane) == {"champion": 1.0, "challenger": 0.0}
    assert plane.shelf.aliases["phishing", "champion"] == "1"
    await plane.aliases.step()
    assert plane.shelf.aliases["phishing", "champion"] == "2"
    assert plane.store.alias_moves.waiting() == []


async def test_an_alias_waits_for_the_registry_and_moves_when_it_is_back(plane):
    first = await plane.put(route(**SPLIT))
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    plane.shelf.is_down = True
    assert await plane.aliases.step() > 0
    assert "does not answer" in plane.store.alias_moves.waiting()[0].problem
    plane.shelf.is_down = False
    await plane.aliases.step()
    assert plane.shelf.aliases["phishing", "champion"] == "2"


async def test_a_promoted_mirror_becomes_the_champion_and_leaves_the_mirrors(plane):
    plane.shelf.publish("phishing", "7")
    first = await plane.put(route(**SPLIT, mirror=("models:/phishing/7", 0)))
    revision = plane.changes.promote("phishing", "mirror", is_mirror=True, expected=first.number, author=ANN)
    assert (await plane.ended(revision)).state == "live"
    assert plane.live() == {"champion": "7", "challenger": "2"}
    assert "mirrors" not in plane.store.live("phishing").document


async def test_a_champion_named_by_version_is_named_by_the_promoted_one(plane):
    first = await plane.put(route(champion=("models:/phishing/1", 1), challenger=("models:/phishing/2", 0)))
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    assert plane.store.live("phishing").document["variants"][0]["model"] == "models:/phishing/2"
    assert plane.store.alias_moves.waiting() == []


@pytest.mark.parametrize("arm", ["champion", "nobody"])
async def test_only_other_arms_can_be_promoted(plane, arm):
    first = await plane.put(route(**SPLIT))
    with pytest.raises(RouteInvalid):
        plane.changes.promote("phishing", arm, is_mirror=False, expected=first.number, author=ANN)


async def test_a_rollback_is_live_at_once_without_registry_and_without_workers_warming(plane):
    first = await plane.put(route())
    second = await plane.put(route(champion=("models:/phishing/2", 1)), expected=first.number)
    assert plane.live() == {"champion": "2"}
    plane.shelf.is_down = True
    plane.fleet.hear({"event": "workers", "live": ["a"]})
    revision = plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    assert (revision.state, revision.restores) == ("live", first.number)
    assert plane.live() == {"champion": "1"}
    assert plane.store.previous("phishing").number == second.number
    assert plane.store.standings.followed("phishing").following.state == "paused"


async def test_a_rollback_further_back_takes_the_versions_of_then(plane):
    first = await plane.put(route())
    number = first.number
    plane.shelf.publish("phishing", "3")
    for version in ("2", "3"):
        number = (await plane.put(route(champion=(f"models:/phishing/{version}", 1)), expected=number)).number
    plane.shelf.aliases["phishing", "champion"] = "3"
    plane.shelf.is_down = True
    revision = plane.changes.rollback("phishing", to=first.number, move_alias=False, author=ANN)
    assert (await plane.ended(revision)).state == "live"
    assert plane.live() == {"champion": "1"}


async def test_a_rollback_moves_the_alias_only_when_asked(plane):
    first = await plane.put(route(**SPLIT))
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    await plane.aliases.step()
    plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    assert plane.store.alias_moves.waiting() == []
    plane.changes.rollback("phishing", to=first.number, move_alias=True, author=ANN)
    await plane.aliases.step()
    assert plane.shelf.aliases["phishing", "champion"] == "1"


async def test_there_is_nothing_to_roll_back_to_at_first(plane):
    with pytest.raises(EndpointAbsent):
        plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    first = await plane.put(route())
    for to in (None, first.number, 99):
        with pytest.raises(NothingToRestore):
            plane.changes.rollback("phishing", to=to, move_alias=False, author=ANN)


async def test_what_is_on_its_way_is_taken_away_by_a_rollback_to_what_is_live(plane):
    first = await plane.put(route())
    second = await plane.put(route(champion=("models:/phishing/2", 1)), expected=first.number)
    held = plane.changes.put("phishing", route(champion=("models:/phishing/3", 1)), expected=second.number, author=ANN)
    assert held.is_unfinished
    back = plane.changes.rollback("phishing", to=second.number, move_alias=False, author=ANN)
    assert (back.state, plane.live()) == ("live", {"champion": "2"})
    assert plane.store.revision(held.number).state == "superseded"
    assert plane.store.previous("phishing").number == first.number


async def test_a_deleted_endpoint_comes_back_by_a_rollback(plane):
    first = await plane.put(route())
    assert plane.changes.delete("phishing", expected=first.number, author=ANN).state == "live"
    assert plane.store.current("phishing") is None
    revision = plane.changes.rollback("phishing", to=None, move_alias=False, author=ANN)
    assert (await plane.ended(revision)).state == "live"
    assert plane.live() == {"champion": "1"}


async def test_weights_of_unknown_arms_are_refused_and_nothing_is_written(plane):
    first = await plane.put(route(**SPLIT))
    with pytest.raises(RouteInvalid):
        plane.changes.weights("phishing", {"nobody": 1}, expected=first.number, author=ANN)
    assert plane.store.current("phishing").number == first.number


async def test_a_stale_writer_is_refused(plane):
    await plane.put(route(**SPLIT))
    with pytest.raises(RevisionStale):
        plane.changes.weights("phishing", {"challenger": 1}, expected=77, author=ANN)


async def test_what_is_not_there_cannot_be_changed(plane):
    with pytest.raises(EndpointAbsent):
        plane.changes.weights("phishing", {"challenger": 1}, expected=1, author=ANN)
    with pytest.raises(EndpointAbsent):
        plane.changes.delete("phishing", expected=1, author=ANN)
