import asyncio

import pytest

from gateway.control.features import FeatureServices, unchanged
from gateway.features.client import FeatureClient
from gateway.state.compiled import CompiledFeatures, CompiledRoute
from models.signature import Signature, TensorSpec
from routing.traffic import to_document
from routing.validate import validate
from tests.kit.features import FeatureWorld

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="income", datatype="FP64", shape=(-1, 1)),
        TensorSpec(name="amount", datatype="FP64", shape=(-1, 1)),
    ),
    outputs=(),
)


def routed(service="credit", **more):
    document = {"endpoint": "e", "variants": [{"name": "champion", "model": "models:/m/1", "weight": 1}]}
    return validate(document | {"features": {"service": service, **more}} if service else document)


def based(route, features, signature=SIGNATURE):
    return CompiledRoute(
        endpoint="e",
        revision=1,
        document=to_document(route),
        models={},
        split=b"",
        split_sha256="",
        signature=signature,
        features=features,
    )


async def test_a_route_without_features_asks_nobody():
    assert await FeatureServices(None).compile(routed(None), SIGNATURE, None) == (None, [])


@pytest.mark.parametrize(("service", "code"), [("credit", None), ("nothing", "service_unknown")])
async def test_the_service_is_looked_for_in_the_repository(tmp_path, service, code):
    async with FeatureWorld(tmp_path) as world:
        compiled, problems = await FeatureServices(world.client).compile(routed(service), SIGNATURE, None)
    assert [one.code for one in problems] == ([] if code is None else [code])
    assert (compiled is None) == (code is not None)
    if compiled is not None:
        assert [one.full for one in compiled.inputs] == ["stats__income"]


async def test_without_a_repository_the_problem_says_what_to_set():
    _, (problem,) = await FeatureServices(None).compile(routed(), SIGNATURE, None)
    assert (problem.path, problem.code) == ("features.service", "feature_store_missing")


async def test_while_the_store_is_down_a_change_of_models_goes_by_what_is_known(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        services = FeatureServices(world.client, answer_s=0.05)
        route = routed()
        known, _ = await services.compile(route, SIGNATURE, None)
    _, (problem,) = await services.compile(route, SIGNATURE, None)
    assert problem.code == "feature_store_unavailable"
    assert await services.compile(route, SIGNATURE, based(route, known)) == (known, [])
    _, (problem,) = await services.compile(routed(max_age_s=5), SIGNATURE, based(route, known))
    assert problem.code == "feature_store_unavailable"
    async with FeatureWorld(tmp_path / "slow") as world:
        slow = FeatureServices(world.client, answer_s=0.05)
        with world.store.stopped():
            asking = asyncio.create_task(world.client.ask("credit", {"customer_id": [2]}, 5))
            await world.store.asked()
            _, (problem,) = await slow.compile(route, SIGNATURE, None)
        await asking
    assert problem.code == "feature_store_unavailable"


def test_what_is_known_holds_for_the_same_features_and_inputs_alone():
    features = CompiledFeatures(service="credit", keys=(), inputs=())
    route = routed()
    assert unchanged(route, SIGNATURE, based(route, features)) is features
    assert unchanged(route, SIGNATURE, None) is None
    assert unchanged(route, SIGNATURE, based(route, None)) is None
    assert unchanged(routed(timeout_ms=5), SIGNATURE, based(route, features)) is None
    assert unchanged(route, Signature(inputs=(), outputs=()), based(route, features)) is None


async def test_of_a_new_endpoint_it_is_known_whether_there_is_such_a_service(tmp_path):
    async with FeatureWorld(tmp_path) as world:
        services = FeatureServices(world.client)
        assert await services.absent(routed()) == []
        assert await services.absent(routed(None)) == []
        assert [one.code for one in await services.absent(routed("nothing"))] == ["service_unknown"]


async def test_a_features_process_that_is_on_its_way_is_waited_for(tmp_path):
    client = FeatureClient(tmp_path)
    asking = asyncio.create_task(FeatureServices(client).compile(routed(), SIGNATURE, None))
    await asyncio.sleep(0.3)
    assert not asking.done()
    async with FeatureWorld(tmp_path):
        compiled, problems = await asking
    assert compiled is not None
    assert problems == []
    await client.close()
