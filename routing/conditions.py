"""Whether what a rule wants holds for a request. Conditions are thought through once a revision, and columns once a datatype.

A column is compared as the model reads it: 0.1 in a rule is the nearest FP32 for an FP32 column, over every protocol alike.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import numpy as np

from models.signature import Signature, TensorSpec
from models.tensors import FLOATING, INTEGRAL, Array
from routing.errors import Problem
from routing.split import canonical_unit
from routing.traffic import Condition, Route

Headers = Mapping[str, str]
Parameters = Mapping[str, str | int | float | bool]
Inputs = Mapping[str, Array]
Scalar = str | int | float | bool
Holds = Callable[[Headers, Parameters, Inputs], bool]

_NUMERIC: Final = FLOATING | INTEGRAL


def compiled(condition: Condition) -> Holds:
    """The condition as a function of a request. A header, parameter or column that is not there fulfils nothing."""
    name = condition.name
    if condition.source == "input":
        column = _Column(condition)
        return lambda _headers, _parameters, inputs: name in inputs and column.holds(inputs[name])
    test = _test(condition, float)
    if condition.source == "header":
        return lambda headers, _parameters, _inputs: name in headers and test(headers[name])
    return lambda _headers, parameters, _inputs: name in parameters and test(parameters[name])


def columns_read(route: Route) -> set[str]:
    """The input columns that dealing a request needs: the unit's, and those of rules."""
    names = {condition.name for rule in route.rules for condition in rule.when if condition.source == "input"}
    return names | ({route.unit.name} if route.unit.kind == "input" else set())


def unreadable(route: Route, signature: Signature) -> list[Problem]:
    """What rules and unit ask of inputs that this signature cannot answer; each would be a condition that never holds."""
    specs = {spec.name: spec for spec in signature.inputs}
    problems = []
    for index, rule in enumerate(route.rules):
        for condition in rule.when:
            if condition.source == "input":
                path = f"rules[{index}].when.input.{condition.name}"
                problems += [Problem(path, code, text) for code, text in _misfits(condition, specs)]
    if route.unit.kind == "input":
        found = _column_misfits(route.unit.name, specs)
        problems += [Problem("unit.input", code, text) for code, text in found]
    return problems


def unknown_columns(
    route: Route, declared: Signature, asked: Signature, attributes: Collection[str] = ()
) -> list[Problem]:
    """What the record would keep from others and callers do not send: a mask that hits nothing lets everything through.

    `declared` are the model's inputs, `asked` these and the join keys, which have no place among sensitive attributes; `attributes` are
    looked up for these alone.
    """
    problems = []
    for path, names, signature in (
        ("record.mask", [(f".{name}", name) for name, _ in route.record.mask], asked),
        ("record.sensitive", [(f"[{index}]", name) for index, name in enumerate(route.record.sensitive)], declared),
    ):
        specs = {spec.name: spec for spec in signature.inputs}
        for place, name in names:
            if path == "record.mask" or name not in attributes:
                problems += [Problem(path + place, code, text) for code, text in _unknown(name, specs)]
    return problems


class _Column:
    """A condition on a column; its test depends on the datatype, of which an endpoint has one."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._tests: dict[str, Callable[[Scalar], bool]] = {}

    def holds(self, column: Array) -> bool:
        """Whether every row fulfils it; a column with several values a row fulfils nothing."""
        if not column.size or (column.ndim and column.size != column.shape[0]):
            return False
        test = self._tests.get(column.dtype.str)
        if test is None:
            test = self._tests[column.dtype.str] = _test(self._condition, _rounding(column.dtype))
        if column.size == 1:
            return test(column.item())
        return all(test(value) for value in set(column.ravel().tolist()))


def _rounding(dtype: "np.dtype[np.generic]") -> Callable[[float], float]:
    """A rule's number as a column of this type would hold it."""
    if dtype.kind != "f":
        return float

    def rounded(number: float) -> float:
        with np.errstate(over="ignore"):  # beyond the type's range is infinity
            return float(np.float64(number).astype(dtype))

    return rounded


def _test(condition: Condition, rounded: Callable[[float], float]) -> Callable[[Scalar], bool]:
    if condition.prefix is not None:
        prefix = canonical_unit(condition.prefix)
        return lambda value: canonical_unit(value).startswith(prefix)
    if condition.values:
        return _one_of(condition.values, rounded)
    least = -math.inf if condition.least is None else rounded(condition.least)
    most = math.inf if condition.most is None else rounded(condition.most)
    return lambda value: least <= _number(value) <= most


def _one_of(values: Iterable[str], rounded: Callable[[float], float]) -> Callable[[Scalar], bool]:
    wanted = {canonical_unit(value) for value in values}
    if rounded is not float:
        wanted |= {canonical_unit(rounded(number)) for value in values if not math.isnan(number := _number(value))}
    return lambda value: canonical_unit(value) in wanted and not (isinstance(value, float) and math.isnan(value))


def _number(value: Scalar) -> float:
    """The number that a value is or spells; NaN, which lies between nothing, where it is none."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _misfits(condition: Condition, specs: Mapping[str, TensorSpec]) -> list[tuple[str, str]]:
    """(code, message) of what stands against a condition on an input."""
    found = _column_misfits(condition.name, specs)
    if found:
        return found
    datatype = specs[condition.name].datatype
    if condition.prefix is not None and datatype != "BYTES":
        return [("input_not_text", f"a prefix wants an input of text, and '{condition.name}' is {datatype}")]
    if not condition.values and condition.prefix is None and datatype not in _NUMERIC:
        return [("input_not_number", f"min and max want a number, and '{condition.name}' is {datatype}")]
    strange = [value for value in condition.values if not _is_possible(value, datatype)]
    return [("value_impossible", f"'{value[:80]}' is no {datatype}") for value in strange]


def _column_misfits(name: str, specs: Mapping[str, TensorSpec]) -> list[tuple[str, str]]:
    unknown = _unknown(name, specs)
    if unknown:
        return unknown
    spec = specs[name]
    if math.prod(spec.shape[1:]) != 1:
        return [("input_not_scalar", f"wanted an input with one value a row, and '{name}' is {list(spec.shape)}")]
    return []


def _unknown(name: str, specs: Mapping[str, TensorSpec]) -> list[tuple[str, str]]:
    if name in specs:
        return []
    known = ", ".join(list(specs)[:8]) + ("…" if len(specs) > 8 else "")
    return [("input_unknown", f"the endpoint has no input '{name}'; it has {known}")]


def _is_possible(value: str, datatype: str) -> bool:
    if datatype in FLOATING:
        return not math.isnan(_number(value))
    if datatype in INTEGRAL:
        return value.lstrip("-").isdigit()
    return datatype == "BYTES" or value in {"true", "false"}
