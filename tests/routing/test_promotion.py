import pytest

from routing.errors import RouteInvalid
from routing.promotion import drop_arm, promote, set_mirror, set_variant, set_weights
from routing.traffic import Mirror, Variant
from tests.routing.documents import route, smallest, two

CANDIDATE = {"name": "candidate", "model": "models:/phishing/7"}


def codes(refused):
    return [(problem.path, problem.code) for problem in refused.value.problems]


def test_the_champion_takes_the_promoted_version_and_all_traffic():
    before = route(two(mirrors=[CANDIDATE]))

    after = promote(before, "challenger", "models:/phishing/8")

    assert [(v.name, v.model, v.weight) for v in after.variants] == [
        ("champion", "models:/phishing/8", 1),
        ("challenger", "models:/phishing@challenger", 0),
    ]
    assert after.champion == "champion"
    assert after.mirrors == before.mirrors


def test_a_third_arm_does_not_inherit_the_traffic_of_a_promotion():
    before = set_variant(route(two(80, 10)), Variant(name="third", model="models:/phishing/3", weight=10))

    after = promote(before, "challenger", "models:/phishing/8")

    assert [variant.weight for variant in after.variants] == [1, 0, 0]


def test_a_promoted_mirror_and_others_of_its_version_go():
    other = {"name": "same", "model": "models:/phishing/7"}
    before = route(smallest(mirrors=[CANDIDATE, other, {"name": "next", "model": "models:/phishing/8"}]))

    after = promote(before, "candidate", "models:/phishing/7")

    assert after.variants[0].model == "models:/phishing/7"
    assert [mirror.name for mirror in after.mirrors] == ["next"]


def test_only_another_arm_with_a_model_of_its_own_can_be_promoted():
    remote = {"name": "staging", "remote": {"url": "http://127.0.0.1:9000", "model": "x"}}
    before = route(two(mirrors=[remote]))

    for arm, code in (("champion", "already_champion"), ("nobody", "variant_unknown"), ("staging", "variant_unknown")):
        with pytest.raises(RouteInvalid) as refused:
            promote(before, arm, "models:/phishing/7")
        assert codes(refused) == [("variant", code)]
    with pytest.raises(RouteInvalid) as refused:
        promote(before, "challenger", "models:/phishing/latest")
    assert codes(refused) == [("variants[0].model", "reference_invalid")]


def test_arms_not_named_keep_their_weights():
    after = set_weights(route(two(90, 10)), {"challenger": 20})

    assert after.weights == (("champion", 90), ("challenger", 20))


def test_all_that_is_wrong_with_new_weights_is_reported_at_once():
    with pytest.raises(RouteInvalid) as refused:
        set_weights(route(two(90, 10)), {"nobody": 1, "champion": -1, "challenger": float("nan")})

    assert codes(refused) == [
        ("weights.nobody", "variant_unknown"),
        ("variants[0].weight", "out_of_range"),
        ("variants[1].weight", "out_of_range"),
    ]
    with pytest.raises(RouteInvalid) as refused:
        set_weights(route(two(90, 10)), {"champion": 0, "challenger": 0})
    assert codes(refused) == [("variants", "weights_all_zero")]


def test_an_arm_is_added_or_put_in_the_place_of_its_namesake():
    before = route(smallest(mirrors=[CANDIDATE]))

    replaced = set_mirror(before, Mirror(name="candidate", model="models:/phishing/9", sample=0.5))
    added = set_mirror(before, Mirror(name="second", model="models:/phishing/9"))

    assert [(mirror.name, mirror.model) for mirror in replaced.mirrors] == [("candidate", "models:/phishing/9")]
    assert [mirror.name for mirror in added.mirrors] == ["candidate", "second"]


def test_an_arm_is_taken_out_unless_the_route_still_needs_it():
    rule = {"name": "beta", "when": {"header": {"x": "1"}}, "variant": "challenger"}

    assert drop_arm(route(two(mirrors=[CANDIDATE])), "candidate").mirrors == ()
    assert [v.name for v in drop_arm(route(two()), "challenger").variants] == ["champion"]
    for document, arm, code in (
        (two(rules=[rule]), "challenger", "variant_unknown"),
        (two(), "champion", "variant_unknown"),
        (two(), "nobody", "variant_unknown"),
    ):
        with pytest.raises(RouteInvalid) as refused:
            drop_arm(route(document), arm)
        assert code in {code for _, code in codes(refused)}
