import gzip
import hashlib
import itertools
import json
import math
import unicodedata
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.split import (
    BUCKETS,
    Split,
    bucket_of,
    bucketing,
    canonical_unit,
    compile_split,
    mirror_draw,
    negative_log,
    splitmix64,
)
from tests.routing.make_golden import vectors

GOLDEN = Path(__file__).with_name("golden_split.jsonl.gz")
WEIGHTS = st.one_of(st.just(0.0), st.integers(1, 100).map(float), st.floats(1e-9, 1e9))
ARMS = st.lists(WEIGHTS, min_size=1, max_size=6).filter(any)


def named(weights):
    return [(f"arm-{index}", weight) for index, weight in enumerate(weights)]


def arms(split: Split) -> np.ndarray:
    return np.frombuffer(split.arms, np.uint8)


@cache
def golden():
    return [json.loads(line) for line in gzip.decompress(GOLDEN.read_bytes()).splitlines()]


def unit_of(vector):
    match vector["form"]:
        case "bytes" | "prediction_id":
            return bytes.fromhex(vector["unit"])
        case _:
            return vector["unit"]


def test_every_golden_vector_gets_its_bucket_and_arm():
    compiled = {}
    for vector in golden():
        weights = tuple((arm["name"], arm["weight"]) for arm in vector["arms"])
        key = (vector["salt"], weights)
        split = compiled.get(key) or compiled.setdefault(key, compile_split(*key))
        raw = unit_of(vector)
        unit = raw if vector["form"] == "prediction_id" else canonical_unit(raw)

        bucket = bucket_of(canonical_unit(vector["salt"]), unit)

        assert vector["form"] == "prediction_id" or unit == vector["text"].encode()
        assert (bucket, split.names[split.arms[bucket]]) == (vector["bucket"], vector["arm"]), vector


def test_the_golden_vectors_are_those_of_the_second_implementation():
    assert len(golden()) == 10_000
    assert golden()[:300] == list(islice(vectors(), 300))


def test_a_known_table_keeps_its_digest_for_ever():
    split = compile_split("phishing-2026-11", [("champion", 90), ("challenger", 10)])

    assert split.sha256 == "346014a2c04c63cbcb546a371715915c97a90d73306b9322438de3dc1920d2c6"
    assert split.shares == (0.8983001708984375, 0.1016998291015625)


@given(ARMS)
@settings(max_examples=30)
def test_shares_are_the_exact_counts_of_the_table(weights):
    split = compile_split("salt", named(weights))

    assert split.shares == tuple(split.arms.count(index) / BUCKETS for index in range(len(weights)))
    assert sum(split.shares) == 1
    assert all(share == 0 for share, weight in zip(split.shares, weights, strict=True) if weight == 0)
    assert split.sha256 == hashlib.sha256(split.arms).hexdigest()


@given(ARMS, st.data())
@settings(max_examples=40)
def test_raising_one_arms_weight_moves_only_buckets_that_it_gains(weights, data):
    raised = data.draw(st.integers(0, len(weights) - 1))
    higher = data.draw(st.floats(max(weights[raised], 1e-9), 1e9))
    before = arms(compile_split("salt", named(weights)))

    after = arms(compile_split("salt", named([*weights[:raised], higher, *weights[raised + 1 :]])))

    assert (after[before != after] == raised).all()


@given(ARMS, st.integers(-8, 8))
@settings(max_examples=20)
def test_only_relative_weights_count(weights, exponent):
    bounded = [min(max(weight, 1e-6), 1e6) if weight else 0.0 for weight in weights]

    assert (
        compile_split("salt", named(bounded)).arms
        == compile_split("salt", named([w * 2.0**exponent for w in bounded])).arms
    )


@given(st.permutations(range(4)))
def test_the_order_of_the_arms_means_nothing(order):
    weights = named([1, 2, 3, 0])
    first = compile_split("salt", weights)

    other = compile_split("salt", [weights[index] for index in order])

    assert [first.names[arm] for arm in first.arms[:2000]] == [other.names[arm] for arm in other.arms[:2000]]


def test_equal_keys_go_to_the_first_name(monkeypatch):
    monkeypatch.setattr("routing.split.exponentials", lambda salt, name: np.ones(BUCKETS))

    for order in itertools.permutations(["B", "a", "b"]):
        split = compile_split("salt", [(name, 1) for name in order])
        assert {split.names[arm] for arm in split.arms} == {"B"}


def test_an_arm_gets_its_share_of_a_million_units_within_four_standard_errors():
    split = compile_split("salt", [("champion", 90), ("challenger", 9), ("dark", 1)])
    bucket = bucketing(b"salt")
    buckets = np.fromiter((bucket(b"user-%d" % number) for number in range(1_000_000)), np.uint16, 1_000_000)

    counts = np.bincount(arms(split)[buckets], minlength=3) / 1_000_000

    for count, share in zip(counts, split.shares, strict=True):
        assert abs(count - share) < 4 * math.sqrt(share * (1 - share) / 1_000_000)


def test_two_salts_deal_independently():
    one, other = (arms(compile_split(salt, [("a", 1), ("b", 1)])) for salt in ("one", "other"))
    units = [b"user-%d" % number for number in range(40_000)]
    in_one = np.array([one[bucket_of(b"one", unit)] for unit in units])
    in_other = np.array([other[bucket_of(b"other", unit)] for unit in units])

    assert abs((in_one == in_other).mean() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("user-17", "user-17"),
        (17, "17"),
        (17.0, "17"),
        (-0.0, "0"),
        (2**70, "1180591620717411303424"),
        (1e22, "10000000000000000000000"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        (True, "true"),
        (False, "false"),
        ("e\u0301", "é"),
        ("e\u0301".encode(), "é"),
        ("", ""),
        (float("nan"), ""),
        (float("-inf"), ""),
    ],
)
def test_a_unit_has_one_text_whichever_way_it_came(value, text):
    assert canonical_unit(value) == text.encode()


def test_bytes_that_are_no_text_stay_as_they_are():
    assert canonical_unit(b"\xff\x00\xfe") == b"\xff\x00\xfe"


@given(st.text())
def test_text_and_its_bytes_are_the_same_unit_in_any_normal_form(text):
    forms = {canonical_unit(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}

    assert forms == {canonical_unit(text)}


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_a_number_and_its_text_are_the_same_unit(value):
    assert canonical_unit(canonical_unit(value).decode()) == canonical_unit(value)


@given(st.binary(max_size=40), st.binary(max_size=200))
def test_both_ways_to_a_bucket_agree(salt, unit):
    digest = hashlib.sha256(salt + b"\0" + unit).digest()

    assert bucketing(salt)(unit) == bucket_of(salt, unit) == digest[0] * 256 + digest[1]


def test_splitmix64_gives_the_published_sequence():
    # The first outputs for seed 1234567 of the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c).
    states = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)

    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.lists(st.integers(0, 2**52 - 1), min_size=1, max_size=200))
def test_the_logarithm_is_within_four_units_in_the_last_place(integers):
    uniforms = (np.array(integers, dtype=np.float64) + 0.5) / 2.0**52

    got = negative_log(uniforms)

    wanted = np.array([-math.log(uniform) for uniform in uniforms])
    assert (got > 0).all()
    assert (np.abs(got - wanted) <= 5 * np.spacing(wanted)).all()


@pytest.mark.parametrize(
    "weights",
    [
        [],
        [("a", 0), ("b", 0)],
        [("a", 1), ("a", 1)],
        [("a", float("nan"))],
        [("a", float("inf"))],
        [("a", -1), ("b", 1)],
        [("a", 1e-10)],
        [("a", 1e10)],
        [(f"arm-{index}", 1) for index in range(33)],
    ],
)
def test_what_is_no_split_is_refused(weights):
    with pytest.raises(ValueError, match="wanted"):
        compile_split("salt", weights)


def test_mirrors_draw_apart_from_the_split_and_from_each_other_and_nested():
    ids = [hashlib.sha256(b"%d" % number).digest()[:16] for number in range(20_000)]
    half = np.array([mirror_draw(id_, "one", 0.5) for id_ in ids])
    other = np.array([mirror_draw(id_, "other", 0.5) for id_ in ids])
    fifth = np.array([mirror_draw(id_, "one", 0.2) for id_ in ids])
    low = np.array([bucket_of(b"one", id_) < BUCKETS // 2 for id_ in ids])

    assert abs(half.mean() - 0.5) < 0.015
    assert abs(fifth.mean() - 0.2) < 0.012
    assert abs((half == other).mean() - 0.5) < 0.015
    assert abs((half == low).mean() - 0.5) < 0.015
    assert half[fifth].all()
    assert all(mirror_draw(id_, "one", 1.0) for id_ in ids[:500])
    assert not any(mirror_draw(id_, "one", 0.0) for id_ in ids[:500])
