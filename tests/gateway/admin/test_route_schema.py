"""The schema of the route document says what `routing.validate` says, as far as a schema can."""

import json

import jsonschema_rs
import pytest
from hypothesis import given, settings

from gateway.admin.route_schema import DOCUMENT
from routing.errors import RouteInvalid
from routing.traffic import to_document
from routing.validate import validate
from tests.routing.documents import nearly_valid, smallest, two, valid

SCHEMA = jsonschema_rs.Draft202012Validator(DOCUMENT, validate_formats=True)

BY_SEVERAL_KEYS = {
    "variant_unknown",
    "duplicate_name",
    "weights_all_zero",
    "mirror_of_itself",
    "outlives_predictions",
    "reference_invalid",
    "secret_header",
    "instant_invalid",
}
"""What no schema tells: names that refer to each other, how a model reference is read, headers that carry secrets, a thirteenth month."""


def problems(document):
    try:
        validate(document)
    except RouteInvalid as error:
        return error.problems
    return ()


def is_json(document):
    """Whether the document can be sent at all: no NaN, and no number beyond what JSON readers agree on."""
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        return False
    return not any(isinstance(value, int) and abs(value) >= 1 << 63 for value in leaves(document))


def leaves(node):
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from leaves(value)
    else:
        yield node


def is_of_one_key(problem):
    if problem.code == "out_of_range":
        return not problem.message.startswith("nothing lies between")
    if problem.code == "reserved_name":
        return problem.path == "endpoint"
    return problem.code not in BY_SEVERAL_KEYS


def defaults(schema, path=""):
    """Every key that has a default, by its path in a document."""
    for key, inner in schema.get("properties", {}).items():
        if "default" in inner:
            yield f"{path}{key}", inner["default"]
        if "items" not in inner:
            yield from defaults(inner, f"{path}{key}.")


@given(valid())
def test_what_is_accepted_fits_the_schema(document):
    if is_json(document):
        assert not [error.message for error in SCHEMA.iter_errors(document)]
        assert not [error.message for error in SCHEMA.iter_errors(to_document(validate(document)))]


@settings(max_examples=60, derandomize=True)
@given(nearly_valid())
def test_what_one_key_is_refused_for_does_not_fit_the_schema_and_nothing_else_is_refused(document):
    if not is_json(document):
        return
    found, errors = problems(document), [error.message for error in SCHEMA.iter_errors(document)]
    if errors:
        assert found, errors
    if any(is_of_one_key(problem) for problem in found):
        assert errors, found


def test_the_defaults_are_those_that_hold():
    document = to_document(validate(smallest(features={"service": "credit"})))

    named = dict(defaults(DOCUMENT))
    assert len(named) > 20
    for path, default in named.items():
        found = document
        for key in path.split("."):
            found = found[key]
        assert found == default, path


@pytest.mark.parametrize(
    "document",
    [
        two(steps=[{"weights": {"challenger": 1}, "for": "10m"}]),
        smallest(unit={"header": "x-user-id"}),
        smallest(unit={"header": None, "input": "customer_id"}),
        smallest(features={"service": "credit", "defaults": {"income": -1.0, "segment": "none", "is_new": True}}),
        smallest(rules=[{"name": "r", "when": {"header": {}, "input": {"age": {"min": 65}}}, "variant": "champion"}]),
        smallest(record={"mask": {"ssn": "drop"}, "sensitive": ["sex"], "retention": None}),
        smallest(record={"retention": {"predictions": None, "labels": "1d", "metrics": "3650d"}}),
        smallest(record={"retention": {}}),
    ],
)
def test_both_take_these(document):
    assert (problems(document), SCHEMA.is_valid(document)) == ((), True)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"endpoint": "stats", **{key: value for key, value in two().items() if key != "endpoint"}},
        smallest(colour="red"),
        smallest(unit={"header": "x-a", "input": "b"}),
        smallest(unit={}),
        smallest(mirrors=[{"name": "m"}]),
        smallest(mirrors=[{"name": "m", "model": "models:/m/1", "remote": {"url": "http://127.0.0.1", "model": "m"}}]),
        smallest(mirrors=[{"name": "m", "remote": {"url": "http://user@127.0.0.1", "model": "m"}}]),
        smallest(rules=[{"name": "r", "when": {}, "variant": "champion"}]),
        smallest(rules=[{"name": "r", "when": {"header": {}}, "variant": "champion"}]),
        smallest(rules=[{"name": "r", "when": {"input": {"age": {}}}, "variant": "champion"}]),
        smallest(rules=[{"name": "r", "when": {"input": {"a": {"prefix": "b", "min": 1}}}, "variant": "champion"}]),
        smallest(rules=[{"name": "r", "when": {"input": {"age": []}}, "variant": "champion"}]),
        smallest(steps=[{"weights": {}, "for": "10m"}]),
        smallest(steps=[{"weights": {"champion": 1}, "for": "0m"}]),
        smallest(label={"window": "1 day"}),
        smallest(record={"mask": {"ssn": "hide"}}),
        smallest(limits={"timeout_s": 0}),
        two(champion=1e-10),
    ],
)
def test_neither_takes_these(document):
    assert problems(document)
    assert not SCHEMA.is_valid(document)
