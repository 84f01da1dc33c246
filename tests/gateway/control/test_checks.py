import numpy as np
import pytest

from gateway.control.checks import Checks
from routing.validate import validate
from tests.kit.control import ControlPlane, route


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        made.shelf.publish("phishing", "900")
        made.recorded = {"x": np.full((50, 1), 0.5, np.float32)}
        yield made


async def questioned(plane, before, after, version):
    """What the check of answers says when `after`, which means `version`, is to take the place of `before`."""
    assert (await plane.put(before)).state == "live"
    live = plane.store.compiled(plane.store.live("phishing").number)
    wanted = validate(after)
    for alias in ("champion", "challenger"):
        plane.shelf.aliases["phishing", alias] = version
    prepared = await plane.preparation.prepare(wanted, {})
    return [problem.path for problem in await Checks(plane.preparation).answers(wanted, prepared, live)]


async def test_a_version_that_an_alias_brings_must_answer_in_the_range_of_the_one_before(plane):
    assert await questioned(plane, route(), route(), "900") == ["variants[0].model"]


async def test_one_in_range_passes(plane):
    assert await questioned(plane, route(), route(), "2") == []


async def test_a_version_that_a_person_writes_down_is_their_word(plane):
    assert await questioned(plane, route(), route(champion=("models:/phishing/900", 1)), "1") == []


async def test_a_mirror_answers_nobody_and_is_not_held_to_it(plane):
    document = route(champion=("models:/phishing/1", 1), mirror=("models:/phishing@challenger", 0))
    assert await questioned(plane, document, document, "900") == []


async def test_a_new_endpoint_has_nothing_to_compare_with(plane):
    wanted = validate(route(champion=("models:/phishing/900", 1)))
    prepared = await plane.preparation.prepare(wanted, {})
    assert await Checks(plane.preparation).answers(wanted, prepared, None) == []


async def test_rules_are_held_to_the_inputs_that_the_endpoint_has(plane):
    rules = [{"name": "r", "when": {"input": {"age": {"min": 1}}}, "variant": "champion"}]
    ended = await plane.put(route() | {"rules": rules})
    assert (ended.state, ended.problems[0].path) == ("failed", "rules[0].when.input.age")
    assert (await plane.put(route() | {"rules": [{**rules[0], "when": {"input": {"x": {"min": 1}}}}]})).state == "live"
