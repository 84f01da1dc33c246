import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.signature import Signature, TensorSpec
from routing.conditions import columns_read, compiled, unreadable
from routing.table import EndpointTable
from routing.traffic import Condition
from tests.routing.documents import route, two

ID = bytes(16)


def column(*values, dtype=np.float32):
    return {"c": np.array(values, dtype=dtype).reshape(-1, 1)}


def holds(*values, dtype=np.float32, **wanted):
    return compiled(Condition("input", "c", **wanted))({}, {}, column(*values, dtype=dtype))


def test_values_of_a_column_are_compared_as_the_model_reads_them():
    assert holds(0.1, dtype=np.float32, values=("0.1",))
    assert holds(0.1, dtype=np.float64, values=("0.1",))
    assert holds(np.float32(0.1), dtype=np.float64, values=("0.1",)) is False
    assert holds(3, dtype=np.int64, values=("3",))
    assert holds(2**62 + 1, dtype=np.int64, values=(str(2**62 + 1),))
    assert not holds(2**62 + 1, dtype=np.int64, values=(str(2**62),))
    assert holds(True, dtype=np.bool_, values=("true",))
    assert holds("Genève", dtype=object, values=("Bern", "Gene\u0300ve"))
    assert not holds("bern", dtype=object, values=("Bern",))


def test_bounds_are_included_and_as_exact_as_the_column():
    for value, within in ((17.99, False), (18, True), (64, True), (64.01, False)):
        assert holds(value, least=18, most=64) is within
    assert holds(0.1, least=0.1, most=0.1)
    assert holds(5, dtype=np.int64, least=5)
    assert holds(5, dtype=np.int64, most=5)


def test_what_is_no_number_lies_between_nothing():
    assert not holds(np.nan, least=-1e300)
    assert not holds(np.nan, values=("",))
    assert not holds("many", dtype=object, least=0)
    header = compiled(Condition("header", "h", least=0))
    assert header({"h": " 7 "}, {}, {})
    assert not header({"h": "seven"}, {}, {})
    assert not compiled(Condition("parameter", "p", least=0))({}, {"p": True}, {})


def test_a_prefix_is_one_of_text():
    assert holds("beta-7", dtype=object, prefix="beta-")
    assert not holds("alpha", dtype=object, prefix="beta-")
    assert compiled(Condition("header", "h", prefix="b"))({"h": "beta"}, {}, {})


def test_a_condition_on_an_input_holds_for_every_row_or_not_at_all():
    assert holds(1, 2, 3, least=1)
    assert not holds(1, 2, 0, least=1)
    assert not holds(least=1)


@pytest.mark.parametrize("source", ["header", "parameter", "input"])
def test_what_is_not_there_fulfils_nothing(source):
    assert not compiled(Condition(source, "c", ("",)))({}, {}, {})


def test_the_first_rule_that_holds_takes_the_request():
    rules = [
        {"name": "old", "when": {"input": {"age": {"min": 65}}}, "variant": "challenger"},
        {"name": "grown", "when": {"input": {"age": {"min": 18}}}, "variant": "champion"},
    ]
    table = EndpointTable.compile(route(two(champion=1, challenger=0, rules=rules)), 1)
    found = [table.assign({}, {}, {"age": np.float32([[age]])}, ID) for age in (70, 40, 7)]
    assert [(one.rule, table.names[one.arm]) for one in found] == [
        ("old", "challenger"),
        ("grown", "champion"),
        (None, "champion"),
    ]
    assert not table.is_plain  # the wire door leaves such an endpoint to the doors that have columns


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6),
    st.floats(-100, 100, width=32),
    st.floats(-100, 100, width=32),
)
def test_a_range_is_that_of_numpy(values, one, other):
    least, most = sorted((one, other))
    array = np.float32(values)
    assert holds(*values, least=least, most=most) == bool(((array >= least) & (array <= most)).all())


SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="age", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="city", datatype="BYTES", shape=(-1,)),
        TensorSpec(name="is_new", datatype="BOOL", shape=(-1, 1)),
        TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),
    ),
    outputs=(),
)


def wanting(when, **more):
    rules = [{"name": "r", "when": {"input": when}, "variant": "champion"}]
    return route(two(rules=rules, **more))


def test_what_the_signature_answers_can_be_asked():
    when = {"age": {"min": 18}, "city": {"prefix": "B"}, "is_new": True}
    assert unreadable(wanting(when, unit={"input": "city"}), SIGNATURE) == []
    assert columns_read(wanting(when, unit={"input": "city"})) == {"age", "city", "is_new"}


@pytest.mark.parametrize(
    ("when", "code"),
    [
        ({"height": 3}, "input_unknown"),
        ({"x": 3}, "input_not_scalar"),
        ({"age": {"prefix": "1"}}, "input_not_text"),
        ({"city": {"min": 1}}, "input_not_number"),
        ({"is_new": {"min": 1}}, "input_not_number"),
        ({"age": "many"}, "value_impossible"),
        ({"age": 1.5}, "value_impossible"),
        ({"is_new": ["true", "maybe"]}, "value_impossible"),
    ],
)
def test_what_could_never_hold_is_found_before_it_is_served(when, code):
    (problem,) = unreadable(wanting(when), SIGNATURE)
    assert problem.code == code
    assert problem.path.startswith("rules[0].when.input.")


def test_a_unit_that_no_input_holds_is_found_too():
    (problem,) = unreadable(route(two(unit={"input": "customer"})), SIGNATURE)
    assert (problem.path, problem.code) == ("unit.input", "input_unknown")
