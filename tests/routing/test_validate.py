import contextlib
import math
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.conditions import columns_read
from routing.errors import Problem, RouteInvalid
from routing.promotion import set_weights
from routing.ramp import weights_at
from routing.split import compile_split
from routing.table import EndpointTable
from routing.traffic import SECRET_HEADERS, to_document
from routing.validate import NOT_BUILT, validate
from tests.routing.documents import nearly_valid, smallest, two, valid

PATH = re.compile(r"|[^.\[\]]+(\[\d+\])?(\..+)?", re.DOTALL)
"""`variants[1].weight`; empty for the whole document. What follows the first part may be any key that somebody wrote."""


def problems(document):
    with pytest.raises(RouteInvalid) as refused:
        validate(document)
    return [(problem.path, problem.code) for problem in refused.value.problems]


@given(valid())
def test_what_is_accepted_compiles(document):
    table = EndpointTable.compile(validate(document), 1)

    assert sum(table.shares) == 1


@given(nearly_valid(), st.binary(min_size=16, max_size=16))
def test_a_document_is_refused_by_path_and_code_or_it_is_read_back_equal_compiled_and_served(document, prediction_id):
    """Whatever is accepted must hold for a request: no later room may find out that a document cannot be meant."""
    refused: tuple[Problem, ...] = ()
    try:
        route = validate(document)
    except RouteInvalid as error:
        refused = error.problems
    if refused:
        assert all(PATH.fullmatch(problem.path) and problem.code for problem in refused)
        return
    again = validate(msgspec.json.decode(msgspec.json.encode(to_document(route))))
    assert again == route
    table = EndpointTable.compile(again, 1)
    headers = {condition.name: "1" for rule in route.rules for condition in rule.when if condition.source == "header"}
    column = {name: np.ones((1, 1), np.float32) for name in columns_read(route)}
    assignment = table.assign(headers | {route.unit.name: "u"}, {}, column, prediction_id)
    assert assignment.rule or table.shares[assignment.arm] > 0
    assert table.mirrors_drawn(prediction_id) & table.mirrors_running(0.0) < 1 << len(route.mirrors)
    for step in range(len(route.steps)):
        assert EndpointTable.compile(set_weights(route, weights_at(route.steps, step)), 2)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", "d"]),
            st.one_of(st.sampled_from([0, -1, 1e-9, 9e-10, 1e9, 1.1e9]), st.floats()),
        ),
        max_size=5,
    )
)
def test_arms_are_accepted_exactly_when_the_split_compiles(arms):
    variants = [{"name": name, "model": "models:/m/1", "weight": weight} for name, weight in arms]
    is_valid, compiles = False, False

    with contextlib.suppress(RouteInvalid):
        validate({"endpoint": "e", "champion": arms[0][0] if arms else "champion", "variants": variants})
        is_valid = True
    with contextlib.suppress(ValueError):
        compile_split("e", arms)
        compiles = True

    assert is_valid == compiles


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        *smallest(),
                        "unit",
                        "mirrors",
                        "rules",
                        "when",
                        "header",
                        "remote",
                        "limits",
                        "record",
                        "mask",
                        "name",
                    ]
                )
                | st.text(max_size=5)
                | st.integers(),
                inner,
                max_size=6,
            )
        ),
        max_leaves=25,
    )
)
def test_any_document_is_a_route_or_a_list_of_problems(document):
    with contextlib.suppress(RouteInvalid):
        validate(document)


def test_all_problems_are_reported_at_once():
    document = {
        "endpoint": "stats",
        "champoin": "champion",
        "variants": [
            {"name": "champion", "model": "models:/phishing/latest", "weight": -1},
            {"name": "champion", "model": "models:/phishing/Production", "weight": float("nan"), "colour": "red"},
        ],
        "mirrors": [{"name": "m", "until": "tomorrow", "sample": 1.5}],
        "rules": [{"name": "r", "when": {}, "variant": "nobody"}],
        "limits": {"timeout_s": 0},
        "label": {"window": "a month"},
    }

    assert problems(document) == [
        ("endpoint", "reserved_name"),
        ("variants[0].model", "reference_invalid"),
        ("variants[0].weight", "out_of_range"),
        ("variants[1].model", "reference_invalid"),
        ("variants[1].weight", "out_of_range"),
        ("variants[1].colour", "unknown_key"),
        ("mirrors[0]", "not_one_of"),
        ("mirrors[0].sample", "out_of_range"),
        ("mirrors[0].until", "instant_invalid"),
        ("rules[0].when", "missing"),
        ("limits.timeout_s", "out_of_range"),
        ("label.window", "duration_invalid"),
        ("champoin", "unknown_key"),
        ("variants[1].name", "duplicate_name"),
        ("rules[0].variant", "variant_unknown"),
    ]


@pytest.mark.parametrize("document", [None, [], "phishing", 3])
def test_a_document_that_is_no_object_is_one_problem(document):
    assert problems(document) == [("", "wrong_type")]


@pytest.mark.parametrize(
    "reference", ["models:/phishing/latest", "models:/phishing@latest", "models:/phishing/Staging"]
)
def test_moving_references_are_refused_with_the_alias_command(reference):
    with pytest.raises(RouteInvalid, match="set_registered_model_alias"):
        validate({"endpoint": "phishing", "variants": [{"name": "champion", "model": reference, "weight": 1}]})


@pytest.mark.parametrize("endpoint", ["", "-a", "a/b", "a:b", "a" * 129, "stats", "versions", "labels", "é"])
def test_endpoint_names_that_paths_cannot_hold_are_refused(endpoint):
    assert [path for path, _ in problems(smallest(endpoint=endpoint))] == ["endpoint"]


def test_what_has_a_problem_is_read_to_its_end_all_the_same():
    document = two(
        features={"service": "users", "timeout_ms": 0, "max_age": 5},
        steps=[{"weights": {"nobody": 1}, "for": "10m"}],
        mirrors=[{"name": "m", "remote": {"url": "http://127.0.0.1:9000", "model": "x", "protocol": "mlflow"}}],
        record={"sensitive": ["sex", "age", "sex"], "mask": {"age": "hmac"}},
    )

    found = problems(document)

    assert not NOT_BUILT
    assert ("features.timeout_ms", "out_of_range") in found
    assert ("features.max_age", "unknown_key") in found
    assert ("steps[0].weights.nobody", "variant_unknown") in found


@pytest.mark.parametrize(
    "unit",
    ["cookie", {}, {"header": "x", "input": "y"}, {"header": "a b"}, {"cookie": "x"}, 3, ["header"], {"input": ""}],
)
def test_a_unit_has_exactly_one_source(unit):
    assert all(path == "unit" or path.startswith("unit.") for path, _ in problems(smallest(unit=unit)))


@pytest.mark.parametrize(
    "url", ["ftp://a", "http://user:pass@host", "http://host?x=1", "http://host#x", "host:80", "http://", "http://a b"]
)
def test_remote_addresses_are_plain_http(url):
    mirror = {"name": "m", "remote": {"url": url, "model": "x"}}

    assert problems(smallest(mirrors=[mirror])) == [("mirrors[0].remote.url", "bad_text")]


def test_a_secret_in_the_document_is_refused():
    mirror = {"name": "m", "remote": {"url": "http://127.0.0.1:1", "model": "x", "auth": "s3cret"}}

    assert problems(smallest(mirrors=[mirror])) == [("mirrors[0].remote.auth", "bad_text")]


SECRETS = [
    "authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "x-api-key", "X-Goog-Api-Key", "apikey", "x-auth-token",
    "X-Amz-Security-Token", "x-vault-token", "x-client-secret", "x-hub-signature", "x-forwarded-client-cert",
]  # fmt: skip


@pytest.mark.parametrize("header", SECRETS)
def test_headers_that_carry_secrets_are_neither_units_nor_conditions(header):
    rules = [{"name": "r", "when": {"header": {header: "x"}}, "variant": "champion"}]

    with pytest.raises(RouteInvalid) as refused:
        validate(smallest(unit={"header": header}, rules=rules))

    assert [(problem.path, problem.code) for problem in refused.value.problems] == [
        ("unit.header", "secret_header"),
        (f"rules[0].when.header.{header}", "secret_header"),
    ]
    assert all("x-user-id" in problem.remedy for problem in refused.value.problems)


def test_every_header_that_the_doors_keep_to_themselves_is_refused():
    for header in SECRET_HEADERS:
        assert problems(smallest(unit={"header": header})) == [("unit.header", "secret_header")]


@pytest.mark.parametrize("header", ["x-user-id", "x-session-id", "x-tokenizer", "cookie-consent", "x-cohort"])
def test_headers_that_only_sound_like_secrets_are_taken(header):
    assert validate(smallest(unit={"header": header})).unit.name == header


def test_a_salt_without_zero_bytes_keeps_salt_and_unit_apart():
    assert problems(smallest(salt="a\x00b")) == [("salt", "bad_text")]


def test_values_of_rules_may_be_any_scalar_or_a_list_of_them():
    rules = [{"name": "r", "when": {"header": {"X-Cohort": ["beta", 7, True]}}, "variant": "champion"}]

    route = validate(smallest(rules=rules))

    assert route.rules[0].when[0].name == "x-cohort"
    assert route.rules[0].when[0].values == ("beta", "7", "true")


def test_a_rule_wants_a_value_a_prefix_or_a_range_of_a_header_a_parameter_or_an_input():
    when = {
        "header": {"x-app": {"prefix": "beta-"}},
        "parameter": {"score": {"min": 0.5}},
        "input": {"age": {"min": 18, "max": 64}},
    }

    route = validate(smallest(rules=[{"name": "r", "when": when, "variant": "champion"}]))

    header, parameter, column = route.rules[0].when
    assert (header.prefix, parameter.least, parameter.most) == ("beta-", 0.5, None)
    assert (column.source, column.name, column.least, column.most) == ("input", "age", 18, 64)
    assert to_document(route)["rules"][0]["when"] == when


@pytest.mark.parametrize(
    ("value", "path", "code"),
    [
        ({}, "", "not_one_of"),
        ({"prefix": "a", "min": 1}, "", "not_one_of"),
        ({"min": 3, "max": 2}, "", "out_of_range"),
        ({"min": "3"}, ".min", "wrong_type"),
        ({"max": math.nan}, ".max", "out_of_range"),
        ({"least": 3}, ".least", "unknown_key"),
        ([], "", "out_of_range"),
        ([{"prefix": "a"}], "[0]", "wrong_type"),
    ],
)
def test_what_a_rule_cannot_want_is_refused(value, path, code):
    rules = [{"name": "r", "when": {"input": {"age": value}}, "variant": "champion"}]

    assert (f"rules[0].when.input.age{path}", code) in problems(smallest(rules=rules))


def test_null_stands_for_an_optional_key_that_is_left_out():
    mirror = {"name": "m", "model": "models:/phishing/7", "remote": None, "until": None, "body_bytes_max": None}

    assert validate(smallest(mirrors=[mirror], features=None)) == validate(
        smallest(mirrors=[{"name": "m", "model": "models:/phishing/7"}])
    )


def test_a_model_without_a_name_is_refused():
    variants = [{"name": "champion", "model": "", "weight": 1}]
    mirrors = [{"name": "m", "model": ""}]

    assert problems({"endpoint": "e", "variants": variants, "mirrors": mirrors}) == [
        ("variants[0].model", "bad_text"),
        ("mirrors[0].model", "bad_text"),
    ]
