import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.control.pruning import KEPT_S, Pruning
from gateway.state.revision import Draft
from models.artifacts import Artifacts
from models.ref import parse_ref
from tests.kit.control import ControlPlane, route

DAY_S = 86_400


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        made.days = 0.0
        started = time.time()
        made.wall = lambda: started + made.days * DAY_S
        for version in ("3", "4"):
            made.shelf.publish("phishing", version)
        yield made


@pytest.fixture
def pruning(plane):
    with ThreadPoolExecutor(1) as thread:
        yield Pruning(plane.store, Artifacts(plane.settings.artifacts_path), thread, wall=lambda: plane.wall())  # noqa: PLW0108  # set by tests


def versions(plane):
    """Of all that is staged."""
    artifacts = Artifacts(plane.settings.artifacts_path)
    return sorted(artifacts.find(digest).key.version for digest in artifacts.digests())


async def put(plane, version, **more):
    current = plane.store.current("phishing")
    document = route(champion=(f"models:/phishing/{version}", 1), **more)
    revision = await plane.put(document, expected=current.number if current else None)
    assert revision.state == "live", revision.problems


async def test_what_serves_and_what_a_rollback_goes_back_to_stay_however_old_they_are(plane, pruning):
    await put(plane, "1")
    await put(plane, "2", mirror=("models:/phishing/3", 1))
    plane.days = 400
    assert await pruning.prune() == []
    assert versions(plane) == ["1", "2", "3"]


async def test_what_no_revision_names_goes_a_month_after_the_last_that_did(plane, pruning):
    await put(plane, "1")
    plane.days = 100
    await put(plane, "2")
    await put(plane, "3")
    await put(plane, "4")
    assert await pruning.prune() == [], "1 was live until today"
    plane.days += KEPT_S / DAY_S + 1
    assert len(await pruning.prune()) == 2
    assert versions(plane) == ["3", "4"]
    assert not [path for path in plane.settings.artifacts_path.iterdir() if path.name.startswith(".incoming")]
    await put(plane, "1")
    assert versions(plane) == ["1", "3", "4"], "it is staged again from its registry"


async def test_an_artifact_that_was_only_just_staged_stays(plane, pruning):
    """For a plan, a check or a replay, before any revision names it."""
    await put(plane, "1")
    plane.shelf.stage(parse_ref("models:/phishing/4"), dict)
    assert await pruning.prune() == []
    plane.days = KEPT_S / DAY_S + 1
    assert len(await pruning.prune()) == 1
    assert versions(plane) == ["1"]


async def test_nothing_goes_while_a_revision_is_on_its_way(plane, pruning):
    await put(plane, "1")
    plane.shelf.stage(parse_ref("models:/phishing/4"), dict)
    plane.days = KEPT_S / DAY_S + 1
    document = route("other", champion=("models:/phishing/4", 1))
    plane.store.write(Draft(endpoint="other", action="put", author="ann", reason="", document=document))
    assert await pruning.prune() == []
    assert versions(plane) == ["1", "4"]
