"""What of a request leaves the data plane by way of its records, with each way of keeping things back."""

import hmac

import numpy as np
import pytest

from gateway.privacy import keyed_hashes, parted, routes_of_labels
from routing.records import LabelRow, PredictionBlock, SensitiveBlock
from routing.validate import validate
from tests.kit.feature_plane import FeaturePlane
from tests.kit.plane import UNIT_KEY

CANARY = "canary-4b1d"


@pytest.fixture
async def world(tmp_path):
    async with FeaturePlane(tmp_path) as made:
        yield made


def asked(*marks):
    rows = len(marks)
    return {
        "amount": np.zeros((rows, 1), np.float32),
        "income": np.zeros((rows, 1)),
        "segment": np.array(marks, object).reshape(-1, 1),
    }


def of(blocks, kind):
    return [block for block in blocks if isinstance(block, kind)]


async def test_sensitive_attributes_are_a_block_of_their_own_and_in_no_other(world):
    world.serve(record={"sensitive": ["segment"]})
    replies = [await world.infer(asked(CANARY, "other")), await world.infer(asked(CANARY))]
    (first, second), apart = of(world.blocks(), PredictionBlock), of(world.blocks(), SensitiveBlock)
    assert [column.data for column in first.inputs if column.name == "segment"] == [None]
    assert CANARY not in str(first) + str(second)
    assert [(block.endpoint, block.rows, block.attributes[0].data) for block in apart] == [
        ("credit", [2], [CANARY, "other"]),
        ("credit", [1], [CANARY]),
    ]
    assert [block.prediction_ids[0] for block in apart] == [
        block.requests[0].prediction_id for block in (first, second)
    ]
    assert apart[0].received_unix_us == [first.requests[0].received_unix_us]
    assert len(replies) == 2


async def test_a_text_weighs_what_it_is_long(world):
    world.serve(record={"inputs_bytes_max": 1000})
    for length in (900, 2000):
        await world.infer(asked(CANARY + "x" * length))
    short, long = of(world.blocks(), PredictionBlock)
    assert [column.data is None for column in short.inputs] == [False] * 3
    assert [column.data for column in long.inputs] == [None] * 3


@pytest.mark.parametrize("record", [{"inputs": "none"}, {"inputs": "hash"}, {"inputs_bytes_max": 0}, {"sample": 0.0}])
async def test_what_is_not_recorded_at_all_is_not_kept_apart_either(world, record):
    world.serve(record={"sensitive": ["segment"], **record})
    await world.infer(asked(CANARY))
    assert of(world.blocks(), SensitiveBlock) == []
    assert CANARY not in str(world.blocks())


@pytest.mark.parametrize(
    "record", [{"mask": {"segment": "drop"}}, {"mask": {"segment": "hmac"}}, {"sensitive": ["segment"]}]
)
async def test_a_digest_of_inputs_does_not_tell_what_is_kept_back(world, record):
    world.serve(record={"inputs": "hash", **record})
    for mark in ("f", "m"):
        await world.infer(asked(mark))
    one, other = (block.inputs_digest for block in of(world.blocks(), PredictionBlock))
    assert one == other


async def test_a_digest_tells_all_other_inputs_apart(world):
    world.serve(record={"inputs": "hash"})
    for mark in ("f", "m"):
        await world.infer(asked(mark))
    one, other = (block.inputs_digest for block in of(world.blocks(), PredictionBlock))
    assert one != other


async def test_mirrored_rows_hold_the_unit_as_the_route_says_and_their_rows_whole(world):
    world.serve(
        unit={"input": "segment"},
        record={"sensitive": ["amount"]},
        mirrors=[{"name": "candidate", "model": "models:/credit/9"}],
    )
    await world.infer(asked(CANARY))
    (block,) = world.plane.blocks("mirror/worker-1")
    assert block.requests[0].unit == hmac.digest(UNIT_KEY, CANARY.encode(), "sha256")[:16].hex()
    assert [column.data is None for column in block.inputs] == [False] * 3


def test_equal_values_have_equal_hashes_and_another_key_others():
    one, again, other = keyed_hashes(b"a" * 32, ["x", "x", 5])
    assert one == again != other
    assert keyed_hashes(b"b" * 32, ["x"]) != [one]


async def test_an_attribute_that_no_model_sees_comes_from_the_feature_store_and_goes_apart(world):
    world.serve(record={"sensitive": ["group"]}, attributes=["group"])
    key = {"customer_id": np.array([[2], [3]], np.int64)}
    await world.infer(key | {"amount": np.zeros((2, 1), np.float32)} | income())
    whole = {**asked("s"), "customer_id": np.array([[4]], np.int64)}
    await world.infer(whole)
    await world.infer(asked("s"))
    first, second = of(world.blocks(), SensitiveBlock)
    assert [(one.name, one.datatype, one.values) for one in first.looked_up] == [("group", "BYTES", ["known", None])]
    assert second.looked_up[0].values == ["known"]
    assert "known" not in str([block.inputs[1:2] for block in of(world.blocks(), PredictionBlock)])
    with world.store.stopped():
        late = {**asked("s"), "customer_id": np.array([[4]], np.int64)}
        assert (await world.infer(late)).outputs[0].shape == (1, 1)
    assert len(of(world.blocks(), SensitiveBlock)) == 2


def income():
    return {"income": np.zeros((2, 1)), "segment": np.array([["a"], ["b"]], object)}


def test_attributes_of_a_label_are_treated_as_the_strictest_route_that_it_may_be_about_says():
    arm = {"name": "champion", "model": "models:/m/1", "weight": 1}
    one = validate({"endpoint": "a", "variants": [arm], "record": {"mask": {"who": "hmac", "note": "drop"}}})
    two = validate({"endpoint": "b", "variants": [arm], "label": {"sensitive": ["who", "origin"]}})
    given = {"who": "ann", "note": "x", "origin": None, "source": 1}
    assert parted(given, [one], UNIT_KEY) == (
        {"who": keyed_hashes(UNIT_KEY, ["ann"])[0], "origin": None, "source": 1},
        {},
    )
    assert parted(given, [one, two], UNIT_KEY) == ({"source": 1}, {"who": "ann", "origin": None})
    assert parted({"note": "x"}, [one], UNIT_KEY) == (None, {})
    assert parted({"who": None}, [one], UNIT_KEY) == ({"who": None}, {})


def test_a_label_is_under_its_own_route_and_one_that_names_none_under_all():
    variants = [{"name": "champion", "model": "models:/m/1", "weight": 1}]
    routes = {name: validate({"endpoint": name, "variants": variants}) for name in ("a", "b")}
    plain = {"row": None, "label": 1, "at_unix_us": None, "received_unix_us": 5}
    by_id = LabelRow(prediction_id=b"i" * 16, endpoint=None, request_id=None, **plain)
    named = [LabelRow(prediction_id=None, endpoint=name, request_id="r", **plain) for name in ("a", "gone")]
    everyone = [*routes.values()]
    assert routes_of_labels([by_id, *named], routes) == [everyone, [routes["a"]], everyone]
