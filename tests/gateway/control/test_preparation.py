from collections import Counter

import pytest

from gateway.control.preparation import (
    aliased,
    compile_route,
    named_version,
    needs_warming,
    pins_of,
    references,
)
from gateway.state.compiled import CompiledModel
from models.errors import StagingRefused
from models.signature import Signature, TensorSpec
from models.staged import ModelKey
from routing.split import BUCKETS
from routing.validate import validate
from tests.kit.control import ControlPlane, route

SPEC = TensorSpec(name="x", datatype="FP32", shape=(-1, 1))
SIGNATURE = Signature(inputs=(SPEC,), outputs=(SPEC,))
ROUTE = validate(
    {
        "endpoint": "phishing",
        "variants": [
            {"name": "champion", "model": "models:/phishing@champion", "weight": 3},
            {"name": "challenger", "model": "models:/phishing/2", "weight": 1},
        ],
        "mirrors": [{"name": "next", "model": "models:/phishing@next"}],
    }
)


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        yield made


def model(version, role="variant"):
    return CompiledModel(key=ModelKey("phishing", version), digest=f"d{version}", uri=f"m/{version}", role=role)


def compiled(*, pins=(), **arms):
    models = {name: model(version, "mirror" if name == "next" else "variant") for name, version in arms.items()}
    models |= {f"@{version}": model(version, "pin") for version in pins}
    return compile_route(ROUTE, revision=1, models=models, signature=SIGNATURE)


def test_every_arm_is_referred_to_by_its_place_in_the_document():
    assert references(ROUTE) == [
        ("champion", "variants[0].model", "models:/phishing@champion", "variant"),
        ("challenger", "variants[1].model", "models:/phishing/2", "variant"),
        ("next", "mirrors[0].model", "models:/phishing@next", "mirror"),
    ]


def test_only_aliases_are_followed():
    assert {arm: ref.detail for arm, ref in aliased(ROUTE).items()} == {"champion": "champion", "next": "next"}


def test_a_compiled_route_has_a_bucket_for_each_arm_by_weight_and_its_pins_apart():
    made = compiled(champion="1", challenger="2", next="3", pins=("9",))
    shares = Counter(made.split)
    assert sum(shares.values()) == len(made.split) == BUCKETS
    assert shares[0] / BUCKETS == pytest.approx(0.75, abs=0.01)
    assert (set(made.models), [pin.key.version for pin in made.pins]) == ({"champion", "challenger", "next"}, ["9"])
    assert made.split_sha256 == compiled(champion="5").split_sha256, "the split is made of salt and weights alone"


def test_pins_are_kept_by_the_names_that_no_arm_can_have():
    models = {"champion": model("1"), "@9": model("9", "pin")}
    assert pins_of(models) == {"@9": models["@9"]}


def test_workers_warm_what_neither_the_live_revision_nor_the_one_before_holds():
    live, previous = compiled(champion="1", challenger="2"), compiled(champion="4", pins=("5",))
    assert needs_warming(live, None, None)
    assert not needs_warming(compiled(champion="2", challenger="4", pins=("1", "5")), live, previous)
    assert needs_warming(compiled(champion="4"), live, None)
    assert needs_warming(compiled(champion="1", pins=("6",)), live, previous)


def test_a_mirrors_model_is_no_reason_to_warm_and_is_not_held_by_workers():
    live = compiled(champion="1", next="3")
    assert not needs_warming(compiled(champion="1", next="8"), live, None)
    assert needs_warming(compiled(champion="3"), live, None)


async def test_every_arm_that_cannot_be_had_is_a_problem_of_its_own(plane):
    document = route(
        champion=("models:/phishing/7", 1), challenger=("models:/phishing/2", 1), mirror=("models:/x@y", 0)
    )
    prepared = await plane.preparation.prepare(validate(document), {})
    assert [(one.path, one.code) for one in prepared.problems] == [
        ("variants[0].model", "model_unknown"),
        ("mirrors[0].model", "model_unknown"),
    ]
    assert set(prepared.models) == {"challenger"}


async def test_what_is_staged_is_remembered_by_its_exact_name(plane):
    prepared = await plane.preparation.prepare(validate(route()), {})
    champion = prepared.models["champion"]
    assert plane.store.staged.find("models:/phishing/1") == (ModelKey("phishing", "1"), champion.digest)
    assert plane.store.staged.find("models:/phishing@champion") is None, "what moves is no name to remember"


async def test_a_version_that_is_here_is_taken_without_a_question_and_one_that_is_gone_is_staged_again(plane):
    taken = (await plane.preparation.prepare(validate(route()), {})).models
    plane.shelf.publish("phishing", "3", alias="champion")
    asked = plane.shelf.asked
    again = await plane.preparation.prepare(validate(route()), taken)
    assert (again.models, plane.shelf.asked) == (taken, asked)
    (plane.settings.artifacts_path / taken["champion"].digest / "staged.json").unlink()
    again = await plane.preparation.prepare(validate(route()), taken)
    assert (again.models, plane.shelf.asked) == (taken, asked + 1), "the version it was, not what the alias is by now"


async def test_a_pin_is_prepared_beside_the_arms(plane):
    prepared = await plane.preparation.prepare(validate(route()), {"@2": named_version("phishing", "2", "pin")})
    assert {arm: (one.key.version, one.role) for arm, one in prepared.models.items()} == {
        "champion": ("1", "variant"),
        "@2": ("2", "pin"),
    }
    assert prepared.models["@2"].digest


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StagingRefused("types_untrusted", "wants to run code", "trust it"), "types_untrusted", "wants to run code"),
        (RuntimeError("out of luck"), "staging_failed", "RuntimeError: out of luck"),
    ],
)
async def test_whatever_a_model_brings_ends_as_a_problem_of_its_arm(plane, error, code, words):
    def stage(ref, rows):
        raise error

    plane.preparation._stage = stage
    (problem,) = (await plane.preparation.prepare(validate(route()), {})).problems
    assert (problem.path, problem.code) == ("variants[0].model", code)
    assert words in problem.message


async def test_rows_are_asked_for_under_the_signature_that_the_endpoint_has_now(plane):
    plane.recorded = {"x": "rows"}
    seen = []
    stage = plane.shelf.stage
    plane.preparation._stage = lambda ref, rows: (seen.append(rows()), stage(ref, rows))[1]
    first = await plane.put(route())
    plane.shelf.publish("phishing", "3")
    await plane.put(route(champion=("models:/phishing/3", 1)), expected=first.number)
    assert seen == [{}, {"x": "rows"}], "a new endpoint has seen nothing"
