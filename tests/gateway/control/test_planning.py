import msgspec
import pytest

from models.staged import Profile, StagedModel
from tests.kit.control import ANN, ControlPlane, route

PAIR = {"champion": ("models:/phishing@champion", 1), "challenger": ("models:/phishing/2", 1)}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        yield made


def weigh(plane, revision, arm, memory_bytes):
    """What a measured profile of the arm's model says it takes."""
    folder = plane.settings.artifacts_path / revision.resolutions[arm].digest
    manifest = StagedModel.read(folder)
    msgspec.structs.replace(manifest, profile=Profile(memory_bytes=memory_bytes)).write(folder)


def states(plan):
    return {arm.arm: (arm.model, arm.was, arm.state) for arm in plan["models"]}


async def test_a_new_endpoint_has_everything_before_it(plane):
    plan = await plane.planner.plan("phishing", route(**PAIR))
    assert (plan["revision"], plan["problems"], plan["changes"][0]) == (None, [], "new endpoint")
    assert states(plan) == {
        "champion": ("phishing/1", None, "to_stage"),
        "challenger": ("phishing/2", None, "to_stage"),
    }
    assert sum(plan["shares"].values()) == 1
    assert (plan["moved"], plane.store.revisions(limit=1)) == (0, [])


async def test_memory_is_asked_for_models_that_are_not_loaded_yet_only(plane):
    first = await plane.put(route(**PAIR))
    await plane.put(route(), expected=first.number)
    weigh(plane, first, "champion", 1000)
    weigh(plane, first, "challenger", 500)
    plan = await plane.planner.plan("phishing", route(**PAIR))
    assert {arm: state for arm, (_, _, state) in states(plan).items()} == {"champion": "loaded", "challenger": "staged"}
    assert plan["memory_bytes"] == 500


async def test_an_alias_that_moved_is_a_change_of_the_same_document(plane):
    await plane.put(route())
    plane.shelf.publish("phishing", "3", alias="champion")
    plan = await plane.planner.plan("phishing", route())
    assert plan["changes"] == ["champion: models:/phishing@champion is phishing/3 now (was phishing/1)"]
    assert states(plan)["champion"] == ("phishing/3", "phishing/1", "to_stage")


async def test_a_change_of_weights_keeps_the_version_that_is_served_wherever_its_alias_is(plane):
    await plane.put(route(**PAIR))
    plane.shelf.publish("phishing", "3", alias="champion")
    plane.shelf.is_down = True
    document = plane.store.live("phishing").document
    document["variants"][1]["weight"] = 3
    plan = await plane.planner.plan("phishing", document)
    assert plan["changes"] == ["weights: challenger 1 → 3"]
    assert states(plan)["champion"] == ("phishing/1", "phishing/1", "loaded")
    assert plan["moved"] == pytest.approx(0.25, abs=0.01)


async def test_every_reference_that_cannot_be_resolved_is_a_problem_at_its_path(plane):
    document = route(
        champion=("models:/phishing/7", 1), challenger=("models:/nobody@best", 1), mirror=("models:/x/1", 0)
    )
    plan = await plane.planner.plan("phishing", document)
    assert [(problem.path, problem.code) for problem in plan["problems"]] == [
        ("variants[0].model", "model_unknown"),
        ("variants[1].model", "model_unknown"),
        ("mirrors[0].model", "model_unknown"),
    ]
    assert {state for _, _, state in states(plan).values()} == {"unknown"}


async def test_with_the_registry_down_a_version_that_was_staged_is_known_and_an_alias_is_not(plane):
    first = await plane.put(route(**PAIR))
    plane.changes.delete("phishing", expected=first.number, author=ANN)
    plane.shelf.is_down = True
    plan = await plane.planner.plan("phishing", route(**PAIR))
    assert states(plan)["challenger"] == ("phishing/2", None, "staged")
    assert [problem.path for problem in plan["problems"]] == ["variants[0].model"]


async def test_what_is_wrong_with_the_document_with_this_machine_and_with_the_registry_comes_at_once(plane):
    document = route(champion=("models:/phishing/7", 1), challenger=("models:/phishing/latest", -1))
    document |= {"colour": "red", "mirrors": [{"name": "far", "remote": {"url": "http://far.example", "model": "m"}}]}
    plan = await plane.planner.plan("phishing", document)
    assert plan["changes"] == []
    found = {problem.path: problem for problem in plan["problems"]}
    assert {path: problem.code for path, problem in found.items()} == {
        "colour": "unknown_key",
        "variants[0].model": "model_unknown",
        "variants[1].model": "reference_invalid",
        "variants[1].weight": "out_of_range",
        "mirrors[0].remote.url": "remote_not_allowed",
    }
    assert "registry_uri" in found["variants[0].model"].remedy


async def test_of_what_is_no_document_at_all_nobody_is_asked(plane):
    asked = plane.shelf.asked
    (problem,) = (await plane.planner.plan("phishing", []))["problems"]
    assert (problem.code, plane.shelf.asked) == ("wrong_type", asked)


async def test_without_a_document_the_route_as_it_is_is_planned(plane):
    await plane.put(route(**PAIR))
    plan = await plane.planner.plan("phishing", None)
    assert (plan["revision"], plan["changes"], plan["problems"]) == (1, [], [])


async def test_a_version_that_was_proposed_and_found_wanting_warns(plane):
    await plane.put(route())
    plane.shelf.publish("phishing", "3", inputs=("x", "extra"), alias="champion")
    await plane.follower.step()
    while not plane.store.standings.followed("phishing").is_checked:
        await plane.follower.step()
    plan = await plane.planner.plan("phishing", route(champion=("models:/phishing/3", 1)))
    assert plane.store.standings.followed("phishing").problems[0] in plan["warnings"]


async def test_names_that_are_no_inputs_are_problems_before_anything_is_written(plane):
    await plane.put(route())
    document = route() | {"record": {"mask": {"nmae": "drop"}}, "features": {"service": "users"}}
    found = (await plane.planner.plan("phishing", document))["problems"]
    assert [(one.path, one.code) for one in found] == [
        ("features.service", "feature_store_missing"),
        ("record.mask.nmae", "input_unknown"),
    ]
