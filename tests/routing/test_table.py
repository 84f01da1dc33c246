import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputInvalid
from routing.errors import PinRefused, SplitMismatch, VariantUnknown
from routing.split import bucket_of, canonical_unit, mirror_draw
from routing.table import BY_PIN, BY_RULE, BY_SPLIT, EndpointTable
from tests.routing.documents import route, smallest, two

ID = bytes(range(16))
BETA = {"name": "beta", "when": {"header": {"X-Cohort": ["beta", "gamma"]}}, "variant": "challenger"}


def compiled(**more):
    return EndpointTable.compile(route(two(**more)), 7)


def column(*values, dtype=object):
    return {"customer": np.array(values, dtype=dtype).reshape(-1, 1)}


def test_the_same_unit_gets_the_same_arm_from_every_table_and_door():
    by_header = compiled(unit={"header": "X-User"})
    by_parameter = compiled(unit={"parameter": "user"})
    by_input = compiled(unit={"input": "customer"})

    for number in range(200):
        assigned = {
            by_header.assign({"x-user": str(number)}, {}, {}, ID).arm,
            by_parameter.assign({}, {"user": number}, {}, ID).arm,
            by_parameter.assign({}, {"user": float(number)}, {}, ID).arm,
            by_input.assign({}, {}, column(str(number)), ID).arm,
            by_input.assign({}, {}, column(number, number, dtype=np.int64), ID).arm,
            by_input.assign({}, {}, column(number, dtype=np.float32), ID).arm,
        }
        assert len(assigned) == 1


@given(st.binary(min_size=16, max_size=16), st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_draw_and_assign_agree(prediction_id, unit):
    table = compiled(unit="header")
    assert table.is_plain

    assignment = table.assign({"x-runoff-unit": unit}, {}, {}, prediction_id)

    assert table.draw(canonical_unit(unit), prediction_id) == (assignment.arm, assignment.bucket)
    assert assignment.bucket == bucket_of(b"phishing", canonical_unit(unit) or prediction_id)
    assert assignment.propensity == table.shares[assignment.arm]


def test_without_a_unit_each_request_is_drawn_for_itself_and_belongs_to_experiments():
    table = compiled()
    ids = [hashlib.sha256(b"%d" % number).digest()[:16] for number in range(5000)]

    drawn = [table.assign({}, {}, {}, id_) for id_ in ids]

    assert abs(sum(one.arm for one in drawn) / 5000 - table.shares[1]) < 0.02
    assert all(one.experiment and one.unit_key is None and not one.unit_missing for one in drawn)


@pytest.mark.parametrize(
    ("unit", "headers", "inputs"),
    [
        ({"header": "x-user"}, {}, {}),
        ({"header": "x-user"}, {"x-user": ""}, {}),
        ({"parameter": "user"}, {}, {}),
        ({"input": "customer"}, {}, {}),
        ({"input": "customer"}, {}, column("")),
        ({"input": "customer"}, {}, column(float("nan"), float("nan"), dtype=np.float64)),
        ({"input": "customer"}, {}, column()),
    ],
)
def test_a_missing_unit_is_drawn_per_request_outside_experiments(unit, headers, inputs):
    table = compiled(unit=unit)

    assignment = table.assign(headers, {}, inputs, ID)

    assert assignment.unit_missing
    assert not assignment.experiment
    assert assignment.unit_key is None
    assert assignment.assigned_by == BY_SPLIT
    assert assignment.bucket == bucket_of(b"phishing", ID)


def test_mixed_units_are_refused_or_go_to_the_champion_outside_experiments():
    mixed = column("anna", "ben", "anna")

    with pytest.raises(InputInvalid, match="'customer': wanted rows of one unit in a request, got 2 units in 3 rows"):
        compiled(unit={"input": "customer"}).assign({}, {}, mixed, ID)
    assignment = compiled(unit={"input": "customer"}, unit_mixed="champion").assign({}, {}, mixed, ID)

    assert (assignment.arm, assignment.assigned_by, assignment.rule) == (0, BY_RULE, "unit_mixed")
    assert (assignment.propensity, assignment.experiment, assignment.unit_missing) == (None, False, False)


def test_rows_that_spell_one_unit_differently_are_not_mixed():
    table = compiled(unit={"input": "customer"})

    assert table.unit_of({}, {}, column("e\u0301", "é")) == ("é".encode(), False)


def test_a_unit_column_has_one_value_a_row():
    table = compiled(unit={"input": "customer"})

    with pytest.raises(InputInvalid, match=r"'customer': wanted one unit a row, got shape \[2, 3\]"):
        table.unit_of({}, {}, {"customer": np.zeros((2, 3))})


def test_an_error_about_units_never_shows_one():
    with pytest.raises(InputInvalid) as refused:
        compiled(unit={"input": "customer"}).assign({}, {}, column("anna@example.org", "ben"), ID)

    assert "anna" not in str(refused.value)


def test_the_first_rule_that_holds_wins_before_the_split():
    rules = [BETA, {"name": "all-beta", "when": {"header": {"x-cohort": "beta"}}, "variant": "champion"}]
    table = compiled(champion=1, challenger=0, rules=rules)

    ruled = table.assign({"x-cohort": "gamma"}, {}, {}, ID)

    assert (ruled.arm, ruled.rule, ruled.assigned_by) == (1, "beta", BY_RULE)
    assert (ruled.propensity, ruled.experiment) == (None, False)
    assert table.assign({"x-cohort": "delta"}, {}, {}, ID).assigned_by == BY_SPLIT
    assert not table.is_plain


def test_a_rule_inside_experiments_has_the_propensity_one():
    table = compiled(rules=[{**BETA, "experiment": True}])

    ruled = table.assign({"x-cohort": "beta"}, {}, {}, ID)

    assert (ruled.propensity, ruled.experiment) == (1.0, True)


def test_all_conditions_of_a_rule_must_hold():
    when = {"header": {"x-cohort": "beta"}, "parameter": {"age": 30}}
    table = compiled(champion=1, challenger=0, rules=[{"name": "r", "when": when, "variant": "challenger"}])

    assert table.assign({"x-cohort": "beta"}, {"age": 30.0}, {}, ID).arm == 1
    assert table.assign({"x-cohort": "beta"}, {}, {}, ID).arm == 0
    assert table.assign({}, {"age": 30}, {}, ID).arm == 0


def test_a_pin_comes_first_and_stays_outside_experiments():
    table = compiled(champion=1, challenger=0, allow_pin=True, rules=[{**BETA, "variant": "champion"}])

    pinned = table.assign({"x-cohort": "beta"}, {}, {}, ID, "challenger")

    assert (pinned.arm, pinned.assigned_by, pinned.propensity, pinned.experiment) == (1, BY_PIN, None, False)
    with pytest.raises(VariantUnknown, match="no variant 'nobody'"):
        table.assign({}, {}, {}, ID, "nobody")


def test_a_pin_is_refused_where_the_route_does_not_allow_it_whether_or_not_it_names_a_variant():
    for name in ("challenger", "nobody"):
        with pytest.raises(PinRefused, match=r"'phishing' does not allow pins: .* a variant; .*`allow_pin: true`"):
            compiled().assign({}, {}, {}, ID, name)


@pytest.mark.parametrize(
    ("more", "is_plain"),
    [
        ({}, True),
        ({"unit": "header"}, True),
        ({"unit": {"parameter": "p"}}, False),
        ({"unit": {"input": "p"}}, False),
        ({"allow_pin": True}, False),
        ({"rules": [BETA]}, False),
    ],
)
def test_only_a_route_whose_draw_needs_no_more_than_a_header_is_plain(more, is_plain):
    assert compiled(**more).is_plain == is_plain


def test_a_stored_split_deals_as_the_one_that_was_made():
    made = compiled()
    again = EndpointTable.stored(made.route, 7, made.split.arms, made.split.sha256)
    assert again.split == made.split
    assert [again.draw(b"%d" % n, b"") for n in range(1000)] == [made.draw(b"%d" % n, b"") for n in range(1000)]


def test_a_stored_split_is_dealt_by_whatever_another_release_would_make_of_the_weights():
    made = compiled()
    other = bytes(65_535) + b"\1"
    table = EndpointTable.stored(made.route, 7, other, hashlib.sha256(other).hexdigest())
    assert {table.draw(b"%d" % n, b"")[0] for n in range(1000)} == {0}
    assert table.shares == (65_535 / 65_536, 1 / 65_536)


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 65_537])
def test_a_damaged_split_is_refused(size):
    made = compiled()
    with pytest.raises(SplitMismatch, match="endpoint 'phishing', revision 7"):
        EndpointTable.stored(made.route, 7, b"\xff" * size, made.split.sha256)


def test_mirrors_are_drawn_by_name_and_told_by_position():
    mirrors = [
        {"name": "always", "model": "models:/phishing/7"},
        {"name": "never", "model": "models:/phishing/8", "sample": 0},
        {"name": "half", "model": "models:/phishing/9", "sample": 0.5},
    ]
    table = EndpointTable.compile(route(smallest(mirrors=mirrors)), 1)

    for number in range(300):
        id_ = hashlib.sha256(b"%d" % number).digest()[:16]
        assert table.mirrors_drawn(id_) == 0b001 | (0b100 if mirror_draw(id_, "half", 0.5) else 0)
    assert table.mirror_names == ("always", "never", "half")


def test_a_mirror_stops_at_its_until():
    mirrors = [
        {"name": "ever", "model": "models:/phishing/7"},
        {"name": "limited", "model": "models:/phishing/8", "until": "1970-01-01T00:01:00Z"},
    ]
    table = EndpointTable.compile(route(smallest(mirrors=mirrors)), 1)

    assert table.mirrors_running(59.9) == 0b11
    assert table.mirrors_running(60.0) == 0b01
