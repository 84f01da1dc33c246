"""A whole data plane with a features process beside it, over a small store: what requests may leave out, and what is recorded of it."""

import asyncio

import numpy as np
import pytest

from gateway.corridor import PlaneCorridor
from gateway.errors import DeadlinePassed, FeaturesMissing, FeaturesUnavailable, Overloaded
from gateway.features.served import asked_signature
from gateway.state.compiled import CompiledFeatures, FeatureInput
from models.errors import InputInvalid
from models.signature import TensorSpec
from routing.records import LOOKUPS
from tests.kit.feature_plane import FeaturePlane


@pytest.fixture
async def world(tmp_path):
    async with FeaturePlane(tmp_path) as made:
        yield made


def keys(*numbers):
    return {"customer_id": np.array(numbers, np.int64).reshape(-1, 1)}


def amounts(*numbers):
    return {"amount": np.array(numbers, np.float32).reshape(-1, 1)}


async def test_a_key_stands_for_the_inputs_of_its_features(world):
    world.serve()
    reply = await world.infer(keys(4, 2) | amounts(1, 2))
    assert reply.outputs[0].ravel().tolist() == [41.0, 22.0]
    assert len(world.store.reads) == 1
    (block,) = world.blocks()
    assert [column.name for column in block.inputs] == ["amount", "income", "segment"]
    assert np.frombuffer(block.inputs[1].data, np.float64).tolist() == [40.0, 20.0]
    assert [[LOOKUPS[one] for one in column.data] for column in block.lookups] == [["found"] * 2] * 2
    assert [(key.name, key.datatype, key.values) for key in block.keys] == [("customer_id", "INT64", [4, 2])]
    ages = np.frombuffer(block.ages_s[0].data, np.float64)
    assert ((ages >= 0) & (ages < 5)).all()


async def test_what_a_request_brings_itself_holds_and_with_all_of_it_nobody_is_asked(world):
    world.serve()
    income, segment = {"income": np.array([[7.0]])}, {"segment": np.array([["mine"]], object)}
    assert (await world.infer(keys(4) | amounts(1) | income)).outputs[0].item() == 8.0
    assert (await world.infer(amounts(1) | income | segment)).outputs[0].item() == 8.0
    assert (await world.infer(keys(3) | amounts(1) | income | segment)).outputs[0].item() == 8.0
    assert len(world.store.reads) == 1
    found, plain, keyed = world.blocks()
    assert [LOOKUPS[column.data[0]] for column in found.lookups] == ["sent", "found"]
    assert [LOOKUPS[column.data[0]] for column in plain.lookups] == ["sent", "sent"]
    assert (plain.keys[0].values, keyed.keys[0].values) == ([None], [3])


async def test_without_its_key_the_message_says_what_to_send(world):
    world.serve()
    with pytest.raises(InputInvalid, match="missing inputs 'income', 'segment': send them, or key 'customer_id'"):
        await world.infer(amounts(1))
    with pytest.raises(InputInvalid, match="wanted INT64"):
        await world.infer({"customer_id": np.array([[1.5]])} | amounts(1))
    with pytest.raises(InputInvalid, match="wanted 1 rows"):
        await world.infer(keys(2, 4) | amounts(1))
    with pytest.raises(InputInvalid, match="unknown input 'colour'"):
        await world.infer(keys(2) | amounts(1) | {"colour": np.array([[1.0]])})
    assert world.counted("runoff_refused_total", endpoint="credit", reason="input_invalid") == 4


async def test_a_default_stands_in_and_the_record_says_why(world):
    world.serve(defaults={"income": -1.0, "segment": "none"}, max_age_s=60, timeout_ms=500)
    replies = [await world.infer(keys(3) | amounts(1))]
    world.store.age_s = 100
    replies.append(await world.infer(keys(4) | amounts(1)))
    world.store.failure = ConnectionError("redis://:secret@store")
    replies.append(await world.infer(keys(4) | amounts(1)))
    with world.store.stopped():
        replies.append(await world.infer(keys(4) | amounts(1)))
    assert [reply.outputs[0].item() for reply in replies] == [0.0] * 4
    blocks = world.blocks()
    assert [LOOKUPS[block.lookups[0].data[0]] for block in blocks] == ["absent", "stale", "failed", "timeout"]
    assert [block.inputs[2].data for block in blocks] == [["none"]] * 4
    assert np.frombuffer(blocks[1].ages_s[0].data, np.float64)[0] == pytest.approx(100, abs=5)
    for outcome in ("absent", "stale", "failed", "timeout"):
        assert world.counted("runoff_feature_values_total", endpoint="credit", outcome=outcome) == 2


async def test_rows_of_one_request_have_their_own_outcomes(world):
    world.serve(defaults={"income": 0.5, "segment": "none"})
    reply = await world.infer(keys(2, 3, 4) | amounts(0, 0, 0))
    assert reply.outputs[0].ravel().tolist() == [20.0, 0.5, 40.0]
    (block,) = world.blocks()
    assert [LOOKUPS[one] for one in block.lookups[0].data] == ["found", "absent", "found"]


async def test_without_a_default_the_refusal_says_whose_fault_it_is(world):
    world.serve(max_age_s=60, timeout_ms=500)
    with pytest.raises(FeaturesMissing, match=r"features 'income', 'segment': not in the feature store \(row 1\)"):
        await world.infer(keys(2, 3) | amounts(1, 1))
    world.store.age_s = 100
    with pytest.raises(FeaturesUnavailable, match="too old") as stale:
        await world.infer(keys(2) | amounts(1))
    assert stale.value.reason == "features_stale"
    with world.store.stopped(), pytest.raises(FeaturesUnavailable, match="not there in time") as late:
        await world.infer(keys(2) | amounts(1))
    assert late.value.reason == "feature_store"
    world.store.failure = ConnectionError("down")
    with pytest.raises(FeaturesUnavailable, match="out of reach"):
        await world.infer(keys(2) | amounts(1))
    assert world.blocks() == []


async def test_an_age_of_nought_asks_for_no_age_at_all(world):
    world.serve(max_age_s=0)
    world.store.age_s = 10_000_000
    assert (await world.infer(keys(2) | amounts(1))).outputs[0].item() == 21.0


async def test_the_callers_own_deadline_is_the_earlier_one(world):
    world.serve(timeout_ms=5000)
    with world.store.stopped(), pytest.raises(DeadlinePassed):
        await world.infer(keys(2) | amounts(1), timeout_s=0.05)


async def test_a_repository_that_changed_its_types_fails_no_worker(world):
    world.serve(defaults={"income": -1.0, "segment": "none"})
    read = world.store.read
    world.store.read = lambda service, asked: {
        name: type(column)(["text" if name.endswith("income") else 5] * len(column.values), column.times_unix_s)
        for name, column in read(service, asked).items()
    }
    assert (await world.infer(keys(2) | amounts(1))).outputs[0].item() == 0.0
    (block,) = world.blocks()
    assert [LOOKUPS[column.data[0]] for column in block.lookups] == ["failed", "failed"]


async def test_a_request_that_waits_for_the_store_is_in_flight_and_holds_its_models(world):
    served = world.serve(timeout_ms=5000, limits={"concurrency_max": 1})
    with world.store.stopped():
        waits = asyncio.create_task(world.infer(keys(2) | amounts(1)))
        await world.store.asked()
        assert (served.inflight, served.champion.model.leases) == (1, 1)
        with pytest.raises(Overloaded):
            await world.infer(keys(4) | amounts(1))
    assert (await waits).outputs[0].item() == 21.0
    with world.store.stopped():
        leaves = asyncio.create_task(world.infer(keys(2) | amounts(1)))
        await asyncio.sleep(0.05)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
    assert (served.inflight, served.champion.model.leases) == (0, 0)


async def test_the_unit_and_rules_may_be_of_a_key(world):
    world.serve(
        unit={"input": "customer_id"},
        rules=[{"name": "vip", "when": {"input": {"customer_id": 2}}, "variant": "champion"}],
        record={"unit": "raw"},
    )
    await world.infer(keys(2) | amounts(1))
    await world.infer(keys(4) | amounts(1))
    await world.infer(amounts(1) | {"income": np.array([[1.0]]), "segment": np.array([["s"]], object)})
    rows = [block.requests[0] for block in world.blocks()]
    assert [(row.unit, row.rule, row.unit_missing) for row in rows] == [
        ("2", "vip", False),
        ("4", None, False),
        (None, None, True),
    ]


async def test_mirrors_see_the_rows_that_were_served(world):
    world.serve(mirrors=[{"name": "candidate", "model": "models:/credit/9"}])
    await world.infer(keys(4) | amounts(1))
    (block,) = world.plane.blocks("mirror/worker-1")
    assert [column.name for column in block.inputs] == ["amount", "income", "segment"]
    assert np.frombuffer(block.inputs[1].data, np.float64).tolist() == [40.0]
    assert len(world.store.reads) == 1


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"mask": {"customer_id": "drop"}}, []),
        ({"inputs": "none"}, []),
        ({"inputs": "hash"}, []),
        ({"mask": {"customer_id": "hmac"}}, [("customer_id", "BYTES", 32)]),
    ],
)
async def test_keys_are_recorded_as_inputs_are(world, record, wanted):
    world.serve(record=record)
    await world.infer(keys(4) | amounts(1))
    (block,) = world.blocks()
    assert [(key.name, key.datatype, len(key.values[0])) for key in block.keys] == wanted
    assert [LOOKUPS[column.data[0]] for column in block.lookups] == ["found", "found"]


async def test_metadata_shows_what_may_be_sent(world):
    world.serve()
    view = world.plane.corridor.view("credit")
    assert [(spec.name, spec.optional) for spec in view.signature.inputs] == [
        ("customer_id", True),
        ("amount", False),
        ("income", True),
        ("segment", True),
    ]


def test_a_key_that_is_an_input_too_stands_there_once():
    signature = FeaturePlane.signature
    both = CompiledFeatures(
        service="s",
        keys=(TensorSpec(name="amount", datatype="FP32", shape=(-1, 1), optional=True),),
        inputs=(FeatureInput("income", "v__income"),),
    )
    assert [spec.name for spec in asked_signature(signature, both).inputs] == ["amount", "income", "segment"]


async def test_vectors_fill_an_input_of_their_width_alone(world):
    world.serve_vectors(defaults={"x": 0.5})
    reply = await world.infer({"customer_id": np.array([[2], [4], [3]], np.int64)})
    assert reply.outputs[0].ravel().tolist() == [
        3.0,
        1.0,
        1.0,
    ]  # found; of another width, and unknown: the default twice
    (block,) = world.blocks()
    assert [LOOKUPS[one] for one in block.lookups[0].data] == ["found", "absent", "absent"]


async def test_without_a_client_a_route_answers_what_is_sent_whole(world):
    world.serve()
    corridor = PlaneCorridor(world.plane.data, asyncio.get_running_loop())
    with pytest.raises(InputInvalid, match=r"unknown input .customer_id.|missing input"):
        await corridor.infer(world.request(keys(2) | amounts(1)))
