"""Route documents for tests: the smallest one, the contract's own, and a Hypothesis strategy of valid ones."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from routing.traffic import Route, instant
from routing.validate import validate

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(lambda name: name != "unit_mixed")
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
WEIGHTS = st.one_of(st.just(0), st.integers(1, 1000), st.floats(1e-9, 1e9))
HEADERS = st.from_regex(r"x-[A-Za-z0-9-]{0,18}[0-9]", fullmatch=True)
BYTES = st.integers(1, 1 << 30)
SCALARS = st.one_of(TEXTS, st.integers(), st.booleans(), st.floats(allow_nan=False))
DURATIONS = st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 5000), st.sampled_from("smhdw"))
RETENTIONS = st.fixed_dictionaries(
    {},
    optional={
        "predictions": DURATIONS,
        "shadows": DURATIONS,
        "labels": st.just("1s"),
        "metrics": DURATIONS,
        "dead_letters": DURATIONS,
    },
)
INSTANTS = st.integers(0, 253_402_300_799).map(instant)
REFERENCES = st.one_of(
    st.builds(lambda name, version: f"models:/{name}/{version}", NAMES, st.integers(1, 99)),
    st.builds(lambda name: f"models:/{name}@candidate", NAMES),
    st.just("./models/scorer"),
    st.just("file:///srv/models/a b"),
)


def smallest(**more: Any) -> dict[str, Any]:
    variants = [{"name": "champion", "model": "models:/phishing@champion", "weight": 1}]
    return {"endpoint": "phishing", "variants": variants, **more}


def two(champion: float = 90, challenger: float = 10, **more: Any) -> dict[str, Any]:
    variants = [
        {"name": "champion", "model": "models:/phishing@champion", "weight": champion},
        {"name": "challenger", "model": "models:/phishing@challenger", "weight": challenger},
    ]
    return {"endpoint": "phishing", "variants": variants, **more}


def route(document: dict[str, Any]) -> Route:
    return validate(document)


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """Any document that `validate` must take, with every part present or not."""
    names = draw(st.lists(NAMES, min_size=1, max_size=8, unique=True))
    count = draw(st.integers(1, len(names)))
    weights = draw(st.lists(WEIGHTS, min_size=count, max_size=count).filter(any))
    variants = [
        {"name": name, "model": draw(REFERENCES), "weight": weight, "fallback": draw(st.booleans())}
        for name, weight in zip(names[:count], weights, strict=True)
    ]
    optional = {
        "unit": st.one_of(
            st.sampled_from(["none", "header"]),
            st.builds(lambda name: {"header": name}, HEADERS),
            st.builds(lambda kind, name: {kind: name}, st.sampled_from(["parameter", "input"]), TEXTS),
        ),
        "unit_mixed": st.sampled_from(["reject", "champion"]),
        "salt": TEXTS,
        "mirrors": st.tuples(*(_mirror(name) for name in names[count:])).map(list),
        "rules": st.lists(_rule(names[:count]), max_size=3, unique_by=lambda rule: rule["name"]),
        "steps": st.lists(_step(names[:count]), max_size=4),
        "follow": st.sampled_from(["propose", "auto", "ignore"]),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "concurrency_max": st.integers(1, 99),
                "queue_wait_max_s": st.floats(0, 60),
                "timeout_s": st.floats(0.001, 60),
                "body_bytes_max": BYTES,
            },
        ),
        "nonfinite": st.sampled_from(["pass", "reject"]),
        "label": st.fixed_dictionaries(
            {},
            optional={
                "window": DURATIONS,
                "exogenous": st.booleans(),
                "sensitive": st.lists(st.sampled_from(["sex", "origin"])),
            },
        ),
        "record": st.fixed_dictionaries(
            {},
            optional={
                "sample": st.floats(0, 1),
                "inputs": st.sampled_from(["full", "hash", "none"]),
                "inputs_bytes_max": st.integers(0, 1 << 30),
                "durability": st.sampled_from(["process", "disk", "async"]),
                "on_failure": st.sampled_from(["open", "closed"]),
                "unit": st.sampled_from(["hmac", "raw"]),
                "mask": st.dictionaries(TEXTS, st.sampled_from(["drop", "hmac"]), max_size=3),
                "retention": DURATIONS | RETENTIONS,
            },
        ),
        "allow_pin": st.booleans(),
        "explain": st.booleans(),
    }
    parts = draw(st.fixed_dictionaries({}, optional=optional))
    champion = draw(st.sampled_from(variants))
    mirrors = [mirror for mirror in parts.get("mirrors", []) if mirror.get("model") != champion["model"]]
    endpoint = draw(NAMES.filter(lambda name: name not in {"stats", "versions", "labels"}))
    return {**parts, "endpoint": endpoint, "champion": champion["name"], "variants": variants, "mirrors": mirrors}


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 1e-12, 1e12, float("nan"), float("inf"), 1 << 70, "", "x", "champion", "10m", "a\0b"]),
    st.sampled_from([[], {}, [None], {"x": 1}, ["champion"], {"header": "authorization"}, {"min": 2, "max": 1}]),
)


@st.composite
def nearly_valid(draw: st.DrawFn) -> dict[str, Any]:
    """A valid document with up to three parts of it replaced, taken out, added or doubled: some of these are valid still."""
    document: dict[str, Any] = draw(valid())
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        parent, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "remove", "add", "double"])):
            case "replace":
                parent[key] = draw(JUNK)
            case "remove":
                del parent[key]
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["colour", "Weight", "name", "model", "unit", "prefix"]))] = draw(JUNK)
            case "double" if isinstance(parent, list):
                parent.append(parent[key])
    return document


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of the document, whole parts before what is in them."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def _mirror(name: str) -> st.SearchStrategy[dict[str, Any]]:
    remote = st.fixed_dictionaries(
        {"url": st.sampled_from(["http://127.0.0.1:9000", "https://staging.example/base"]), "model": TEXTS},
        optional={"protocol": st.sampled_from(["v2", "v2-grpc", "mlflow"]), "auth": st.just("env:STAGING_KEY")},
    )
    more = {"sample": st.floats(0, 1), "until": INSTANTS, "priority": st.integers(1, 9), "body_bytes_max": BYTES}
    return st.one_of(
        st.fixed_dictionaries({"name": st.just(name), "model": REFERENCES}, optional=more),
        st.fixed_dictionaries({"name": st.just(name), "remote": remote}, optional=more),
    )


def _step(variants: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    weights = st.dictionaries(st.sampled_from(variants), st.floats(1e-9, 1e9), min_size=1)
    return st.fixed_dictionaries({"weights": weights, "for": DURATIONS})


def _rule(variants: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2).map(sorted)
    values = st.one_of(
        SCALARS,
        st.lists(SCALARS, min_size=1, max_size=3),
        TEXTS.map(lambda prefix: {"prefix": prefix}),
        bounds.map(lambda pair: {"min": pair[0], "max": pair[1]}),
        st.floats(-1e9, 1e9).map(lambda least: {"min": least}),
    )
    headers = st.dictionaries(HEADERS.map(str.lower), values, min_size=1, max_size=2)
    parameters = st.dictionaries(TEXTS, values, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {
            "name": NAMES,
            "when": st.one_of(
                st.fixed_dictionaries({"header": headers}),
                st.fixed_dictionaries({"parameter": parameters, "header": headers}),
                st.fixed_dictionaries({"input": parameters}),
            ),
            "variant": st.sampled_from(variants),
        },
        optional={"experiment": st.booleans()},
    )
