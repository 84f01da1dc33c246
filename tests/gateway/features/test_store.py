"""Feast for real: what a service consists of, and what the online store has."""

import pytest

pytest.importorskip("feast")

from feast.protos.feast.types.Value_pb2 import Value

from gateway.features.frames import Found, FoundColumn, framed
from gateway.features.lane import ServiceAbsent
from gateway.features.store import Store, _value
from tests.kit.feature_repo import FeatureRepo

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    made = FeatureRepo(tmp_path_factory.mktemp("features") / "repo")
    made.push_customer(1, income=10.0, orders=3, segment="a", embedding=[1.0, 2.0])
    made.push_customer(2, age_s=3 * 86_400, income=20.0, orders=None)
    made.push_shop("x", rating=4.5)
    return made


@pytest.fixture
def store(repo):
    return Store(str(repo.folder))


def test_a_service_is_described_by_its_keys_and_features(store):
    keys, features, requested = store.describe("credit")
    assert {(key.name, key.datatype) for key in keys} == {("customer_id", "INT64"), ("shop_id", "BYTES")}
    assert {(one.full, one.datatype, one.is_list) for one in features} == {
        ("customer_stats__income", "FP64", False),
        ("customer_stats__orders", "INT64", False),
        ("customer_stats__segment", "BYTES", False),
        ("shop_stats__rating", "FP32", False),
    }
    assert requested == ()


def test_names_and_join_keys_that_a_service_changes_are_those_that_are_told_and_read(store):
    keys, features, _ = store.describe("renamed")
    assert ([key.name for key in keys], [one.full for one in features]) == (["buyer_id"], ["buyer__income"])
    assert store.read("renamed", {"buyer_id": [1]})["buyer__income"].values == [10.0]


def test_vectors_and_views_that_are_not_online_are_told(store):
    (vector,) = store.describe("vectors")[1]
    assert (vector.datatype, vector.is_list) == ("FP32", True)
    assert store.read("vectors", {"customer_id": [1]})["customer_stats__embedding"].values == [[1.0, 2.0]]
    assert [one.is_online for one in store.describe("offline")[1]] == [False]


def test_an_unknown_service_is_told_with_those_that_there_are(store):
    with pytest.raises(ServiceAbsent, match="clash, credit, grouped, offline, renamed, vectors"):
        store.describe("nothing")


def test_values_come_with_the_moment_they_are_of_also_when_the_view_calls_them_too_old(store):
    found = store.read("credit", {"customer_id": [1, 2, 3, 1], "shop_id": ["x", "x", "x", "y"]})
    assert set(found) == {f"customer_stats__{name}" for name in ("income", "orders", "segment")} | {
        "shop_stats__rating"
    }
    income, orders, rating = (
        found[name] for name in ("customer_stats__income", "customer_stats__orders", "shop_stats__rating")
    )
    assert income.values == [10.0, 20.0, None, 10.0]
    assert orders.values == [3, None, None, 3]
    assert rating.values == [4.5, 4.5, 4.5, None]
    fresh, old, absent, _ = income.times_unix_s
    assert (round((fresh - old) / 86_400), absent) == (3, 0)


def test_a_service_that_was_applied_anew_is_seen_by_the_next_description(repo, store):
    from feast import FeatureService

    store.describe("credit")
    repo.store.apply([FeatureService(name="later", features=[repo.store.get_feature_view("shop_stats")])])
    assert [one.name for one in store.describe("later")[1]] == ["rating"]
    repo.store.delete_feature_service("later")


PLAIN = {"string_val": "a", "int32_val": 1, "int64_val": 2, "double_val": 3.0, "float_val": 4.0, "bool_val": True}
KINDS = [field.name for field in Value.DESCRIPTOR.oneofs_by_name["val"].fields]


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_any_kind_can_be_sent_and_one_that_no_input_has_is_none(kind):
    field, value = Value.DESCRIPTOR.fields_by_name[kind], Value()
    if field.message_type is not None:
        getattr(value, kind).SetInParent()
    else:
        setattr(value, kind, PLAIN.get(kind, field.default_value))
    assert value.WhichOneof("val") == kind
    found = _value(value)
    assert framed(Found(1, {"x": FoundColumn([found], [0.0])}))
    assert found == (PLAIN | {name.replace("_val", "_list_val"): [] for name in PLAIN}).get(kind)
