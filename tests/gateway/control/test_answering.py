import pytest

from gateway.control.answering import Answering
from gateway.keys.issue import KeyDesk, Order
from tests.kit.control import ANN, ControlPlane, route

BOTH = {"champion": ("models:/phishing@champion", 90), "challenger": ("models:/phishing@challenger", 10)}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        made.shelf.publish("phishing", "3")
        made.shelf.publish("phishing", "4", inputs=("x", "extra"))
        made.answering = Answering(made.changes, made.reconciler, made.fleet, made.store.keys, wait_s=10)
        yield made


def load(endpoint="phishing", pins=None, author="ci"):
    return {"load": {"endpoint": endpoint, "pins": pins, "author": author}}


async def test_a_load_resolves_the_aliases_now_as_a_revision_of_who_asked(plane):
    await plane.put(route(**BOTH))
    plane.shelf.aliases["phishing", "champion"] = "3"
    answer = await plane.answering.answer(load())
    assert answer == {"state": "live", "revision": 2}
    live = plane.store.live("phishing")
    assert (live.author, live.action, plane.live()["champion"]) == ("ci", "load", "3")


async def test_pins_are_kept_warm_until_a_load_names_others(plane):
    await plane.put(route(**BOTH))
    await plane.answering.answer(load(pins=["3"]))
    revision = plane.store.live("phishing")
    assert [pin.key.version for pin in plane.store.compiled(revision.number).pins] == ["3"]
    weighed, _ = plane.changes.weights("phishing", {"challenger": 50}, expected=revision.number, author=ANN)
    assert [pin.key.version for pin in plane.store.compiled(weighed.number).pins] == ["3"]
    await plane.answering.answer(load())
    live = plane.store.live("phishing").number
    assert [pin.key.version for pin in plane.store.compiled(live).pins] == ["3"]
    await plane.answering.answer(load(pins=[]))
    assert plane.store.compiled(plane.store.live("phishing").number).pins == []


@pytest.mark.parametrize("pins", [["9"], ["4"]])
async def test_a_pin_that_is_not_there_or_does_not_fit_is_refused_and_changes_nothing(plane, pins):
    first = await plane.put(route(**BOTH))
    answer = await plane.answering.answer(load(pins=pins))
    assert answer["code"] == "load_refused"
    assert plane.store.live("phishing").number == first.number


async def test_a_model_without_versions_in_the_registry_has_no_pins(plane, tmp_path):
    assert (await plane.answering.answer(load("nobody")))["code"] == "endpoint_unknown"


async def test_a_load_that_takes_too_long_goes_on_by_itself(plane):
    await plane.put(route(**BOTH))
    plane.fleet.hear({"event": "workers", "live": ["a"]})
    plane.shelf.aliases["phishing", "champion"] = "3"
    answering = Answering(plane.changes, plane.reconciler, plane.fleet, plane.store.keys, wait_s=0.05)
    assert (await answering.answer(load()))["code"] == "late"
    assert plane.store.unfinished()


async def test_questions_that_are_not_understood_are_answered(plane):
    assert (await plane.answering.answer({"sing": 1}))["code"] == "unknown_question"


async def test_keys_that_were_used_are_noted(plane):
    made = KeyDesk(plane.store.keys).make(Order(name="app", scopes=("predict",)), author="ann", reason="why")
    assert await plane.answering.answer({"keys_used": [made.record.id, "nobody"]}) == {"state": "noted"}
    assert plane.store.keys.find(made.record.id).last_used_unix_us
