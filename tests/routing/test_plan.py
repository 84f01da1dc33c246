import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.plan import Move, moves, plan
from routing.split import compile_split
from tests.routing.documents import route, smallest, two

WEIGHTS = st.lists(st.integers(0, 9).map(float), min_size=3, max_size=3).filter(any)


def test_a_raised_weight_moves_units_to_that_arm_alone():
    result = plan(route(two(90, 10)), two(90, 30))

    (move,) = result.moves
    assert (move.source, move.target) == ("champion", "challenger")
    assert move.share == pytest.approx(0.15, abs=0.01)
    assert result.moved == move.share
    assert not result.problems
    assert not result.warnings


@given(WEIGHTS, WEIGHTS)
@settings(max_examples=25)
def test_moves_account_for_every_change_of_share(before, after):
    names = ["a", "b", "c"]
    old = compile_split("s", list(zip(names, before, strict=True)))
    new = compile_split("s", list(zip(names, after, strict=True)))

    found = moves(old, new)

    for index, name in enumerate(names):
        gained = sum(move.share for move in found if move.target == name)
        lost = sum(move.share for move in found if move.source == name)
        assert old.shares[index] + gained - lost == new.shares[index]
    assert all(move.share > 0 for move in found)


def test_units_from_another_source_are_dealt_anew_though_weights_and_salt_stay():
    result = plan(route(two(1, 1, unit={"header": "x-user"})), two(1, 1, unit={"input": "age"}))

    assert [problem.code for problem in result.warnings] == ["unit_changed"]
    assert result.moved == pytest.approx(0.5, abs=0.01)


def test_moves_go_by_name_not_by_position():
    old = compile_split("s", [("a", 1), ("b", 3)])
    new = compile_split("s", [("b", 3), ("a", 1)])

    assert moves(old, new) == []


def test_nothing_moves_to_a_new_endpoint():
    result = plan(None, two())

    assert result.moves == ()
    assert result.load == ("models:/phishing@challenger", "models:/phishing@champion")
    assert result.unload == ()


def test_another_salt_deals_anew_and_is_warned_of():
    result = plan(route(two(1, 1)), two(1, 1, salt="other"))

    assert [problem.code for problem in result.warnings] == ["salt_changed"]
    assert {(move.source, move.target) for move in result.moves} == {
        ("champion", "challenger"),
        ("challenger", "champion"),
    }
    assert result.moved == pytest.approx(0.5, abs=0.01)


def test_a_shorter_retention_is_warned_of_by_table():
    kept = {"predictions": "90d", "shadows": "30d", "metrics": "10d"}
    result = plan(route(two()), two(record={"retention": kept}))

    assert [problem.code for problem in result.warnings] == ["retention_shorter"]
    assert result.warnings[0].message.endswith("shadows older than 30d, metrics older than 10d")
    assert not plan(route(two(record={"retention": kept})), two()).warnings


def test_a_plan_names_the_models_that_only_one_of_the_routes_needs():
    result = plan(route(two()), smallest(mirrors=[{"name": "candidate", "model": "models:/phishing/7"}]))

    assert result.load == ("models:/phishing/7",)
    assert result.unload == ("models:/phishing@challenger",)


def test_a_bad_document_gives_a_plan_of_problems():
    result = plan(route(two()), {"endpoint": "phishing"})

    assert result.endpoint == "phishing"
    assert [problem.path for problem in result.problems] == ["variants"]
    assert result.moves == ()


def test_a_weight_too_small_for_any_bucket_is_warned_of():
    result = plan(None, two(1e9, 1))

    assert [(problem.path, problem.code) for problem in result.warnings] == [("variants[1].weight", "share_zero")]
    assert [(share.variant, share.share) for share in result.shares] == [("champion", 1.0), ("challenger", 0.0)]


def test_the_largest_move_comes_first():
    old = compile_split("s", [("a", 8), ("b", 1), ("c", 1)])
    new = compile_split("s", [("a", 1), ("b", 6), ("c", 3)])

    found = moves(old, new)

    assert found == sorted(found, key=lambda move: -move.share)
    assert found[0] == Move(source="a", target="b", share=found[0].share)
