"""docs/routes.md is held to the code: its keys are those that `routing.validate` reads and the schema has, with their defaults and bounds."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from gateway.admin.route_schema import DOCUMENT
from gateway.commands.documents import Loader
from routing.errors import RouteInvalid
from routing.split import WEIGHT_MAX, WEIGHT_MIN
from routing.validate import validate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/routes.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `[a-z]", line) and line.count("|") == 6
]
"""The rows of the tables of keys: key, type, default, bounds, meaning."""
KEYS = {row[0].strip("`"): row for row in ROWS}
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SCHEMA = jsonschema_rs.Draft202012Validator(DOCUMENT)
TWO = [
    {"name": "champion", "model": "models:/phishing@champion", "weight": 90},
    {"name": "challenger", "model": "models:/phishing@challenger", "weight": 10},
]
STRANGER = "\N{SNOWMAN}"

Wrap = Callable[[Any], Any]


def read_by_validate(wrap: Wrap = lambda node: node, path: str = "") -> Iterator[str]:
    """Every key that validation knows, found by asking for one that it does not: the remedy lists its neighbours."""
    for key in neighbours(wrap):
        yield path + key
        for inner, mark in (
            (lambda node: node, ""),
            (lambda node: [node], "[]"),
            (lambda node: {"NAME": node}, ".NAME"),
        ):

            def deeper(node: Any, key: str = key, inner: Wrap = inner) -> Any:
                return wrap({key: inner(node)})

            if neighbours(deeper):
                yield from read_by_validate(deeper, f"{path}{key}{mark}.")


def neighbours(wrap: Wrap) -> list[str]:
    try:
        validate(wrap({STRANGER: 0}))
    except RouteInvalid as error:
        unknown = [problem for problem in error.problems if problem.code == "unknown_key"]
        remedies = [problem.remedy for problem in unknown if problem.path.endswith(STRANGER)]
        return [name for remedy in remedies for name in remedy.removeprefix("known here: ").split(", ")]
    return []


def in_schema(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, inner in schema.get("properties", {}).items():
        if set(inner) != {"type"}:  # a key that only says that it stays away
            yield path + key, inner
        yield from in_schema(inner, f"{path}{key}.")
        yield from in_schema(inner.get("items", {}), f"{path}{key}[].")
        if inner.get("additionalProperties"):
            for form in inner["additionalProperties"].get("anyOf", []):
                yield from in_schema(form, f"{path}{key}.NAME.")
        for form in inner.get("anyOf", []):
            yield from in_schema(form, f"{path}{key}.")


def normal(path: str) -> str:
    """Conditions are the same of headers, parameters and inputs."""
    return re.sub(r"\.when\.(header|parameter|input)\.NAME", ".when.*.NAME", path)


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e\d+)?", text)]


def test_the_page_the_schema_and_validation_know_the_same_keys() -> None:
    read = {normal(path) for path in read_by_validate()}

    assert len(read) > 60
    assert set(KEYS) == read
    assert {normal(path) for path, _ in in_schema(DOCUMENT) if normal(path) in read} == read
    assert {normal(path) for path, schema in in_schema(DOCUMENT) if "description" in schema} <= read


def test_defaults_and_bounds_on_the_page_are_those_of_the_schema() -> None:
    for path, schema in in_schema(DOCUMENT):
        _, _, default, bounds, _ = KEYS.get(normal(path), ("", "", "", "", ""))
        if "default" in schema:
            text = str(schema["default"])
            assert default == f"`{text.lower() if isinstance(schema['default'], bool) else text}`", path
        if "minimum" in schema:
            assert numbers(bounds) == [schema["minimum"], schema["maximum"]], path
        if schema.get("type") == "array" and "maxItems" in schema:
            assert numbers(bounds) == [schema.get("minItems", 0), schema["maxItems"]], path
        if "enum" in schema:
            assert all(f"`{option}`" in KEYS[path][1] for option in schema["enum"]), path
    assert numbers(KEYS["variants[].weight"][3]) == [0, WEIGHT_MIN, WEIGHT_MAX]


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_is_taken_by_validation_and_by_the_schema(text: str) -> None:
    document = {"endpoint": "phishing", "variants": TWO} | yaml.load(text, Loader)

    validate(document)
    assert not [error.message for error in SCHEMA.iter_errors(document)]


def test_the_example_with_everything_has_every_key() -> None:
    whole = next(text for text in EXAMPLES if "staging" in text)
    names = {path: path.split(".")[-1].removesuffix("[]") for path in KEYS}
    missing = {path for path, name in names.items() if not re.search(rf"\b{name}:", whole)}

    assert missing == {
        "unit.parameter",
        "rules[].when.parameter",
        "rules[].when.*.NAME.prefix",
        "rules[].when.*.NAME.max",
    }


def test_every_code_that_refuses_a_document_is_on_the_page() -> None:
    sources = [ROOT / f"routing/{name}.py" for name in ("fields", "validate", "conflicts", "conditions")]
    sources += [
        ROOT / f"gateway/control/{name}.py" for name in ("checks", "remotes", "features", "preparation", "fleet")
    ]
    sources.append(ROOT / "gateway/features/fit.py")
    codes = {code for source in sources for code in codes_of(ast.parse(source.read_text()))}

    assert len(codes) > 35
    assert not {code for code in codes if f"`{code}`" not in PAGE}


def codes_of(tree: ast.AST) -> Iterator[str]:
    """The second argument of every `Problem(…)` and `….problem(…)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > 1:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            code = node.args[1]
            if name in ("Problem", "problem") and isinstance(code, ast.Constant) and code.value:
                yield str(code.value)
