import msgspec
import pytest

from routing.conflicts import conflicts
from routing.errors import Problem
from routing.traffic import DAY_S, Condition, Mirror, Record, Retention, Rule, Step, Variant
from tests.routing.documents import route, two

VALID = route(two())


def found(**changes):
    return [(problem.path, problem.code) for problem in conflicts(msgspec.structs.replace(VALID, **changes))]


def test_a_sound_route_has_no_conflict():
    assert found() == []


@pytest.mark.parametrize("count", [0, 33])
def test_a_route_has_1_to_32_variants(count):
    variants = tuple(Variant(name=f"v{index}", model="models:/m/1", weight=1) for index in range(count))

    assert ("variants", "out_of_range") in found(variants=variants, champion="v0")


def test_variants_and_mirrors_share_one_set_of_names():
    mirror = Mirror(name="challenger", model="models:/phishing/7")

    assert found(mirrors=(mirror,)) == [("mirrors[0].name", "duplicate_name")]


def test_the_champion_must_be_a_variant():
    assert found(champion="nobody") == [("champion", "variant_unknown")]


def test_one_weight_must_be_positive():
    variants = tuple(msgspec.structs.replace(variant, weight=0.0) for variant in VALID.variants)

    assert found(variants=variants) == [("variants", "weights_all_zero")]


def test_a_mirror_of_the_champions_own_model_is_refused():
    mirror = Mirror(name="candidate", model="models:/phishing@champion")

    assert found(mirrors=(mirror,)) == [("mirrors[0].model", "mirror_of_itself")]


def test_rules_and_steps_name_variants_that_exist():
    rule = Rule(name="beta", when=(Condition("header", "x", ("1",)),), variant="nobody")
    step = Step(weights=(("nobody", 1.0),), for_s=60)

    assert found(rules=(rule,), steps=(step,)) == [
        ("rules[0].variant", "variant_unknown"),
        ("steps[0].weights.nobody", "variant_unknown"),
    ]


def test_rules_have_different_names_and_leave_the_records_own_alone():
    when = (Condition("header", "x", ("1",)),)
    rules = tuple(Rule(name=name, when=when, variant="champion") for name in ("beta", "beta", "unit_mixed"))

    assert found(rules=rules) == [("rules[1].name", "duplicate_name"), ("rules[2].name", "reserved_name")]


def test_one_header_in_two_spellings_is_refused():
    rule = Rule(
        name="beta", when=(Condition("header", "x", ("1",)), Condition("header", "x", ("2",))), variant="champion"
    )

    assert found(rules=(rule,)) == [("rules[0].when.header", "duplicate_name")]


def test_what_is_found_by_its_prediction_goes_no_later():
    longer = Retention(30 * DAY_S, (("shadows", 90 * DAY_S), ("labels", 31 * DAY_S), ("sensitive", 30 * DAY_S)))

    assert found(record=Record(retention=longer)) == [("record.retention.labels", "outlives_predictions")]
    misread = Problem("record.retention.predictions", "duration_invalid", "")
    assert not list(conflicts(msgspec.structs.replace(VALID, record=Record(retention=longer)), [misread]))
