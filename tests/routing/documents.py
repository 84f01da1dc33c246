"""Route documents for tests: the smallest one, the contract's own, and a Hypothesis strategy of valid ones."""

from typing import Any

from hypothesis import strategies as st

from routing.traffic import Route, instant
from routing.validate import validate

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(lambda name: name != "unit_mixed")
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
WEIGHTS = st.one_of(st.just(0), st.integers(1, 1000), st.floats(1e-9, 1e9))
HEADERS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
SCALARS = st.one_of(TEXTS, st.integers(), st.booleans(), st.floats(allow_nan=False))
DURATIONS = st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 5000), st.sampled_from("smhdw"))
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
            {}, optional={"concurrency_max": st.integers(1, 99), "timeout_s": st.floats(0.001, 60)}
        ),
        "nonfinite": st.sampled_from(["pass", "reject"]),
        "label": st.fixed_dictionaries({}, optional={"window": DURATIONS, "exogenous": st.booleans()}),
        "record": st.fixed_dictionaries(
            {},
            optional={
                "sample": st.floats(0, 1),
                "mask": st.dictionaries(TEXTS, st.sampled_from(["drop", "hmac"]), max_size=3),
                "retention": DURATIONS,
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


def _mirror(name: str) -> st.SearchStrategy[dict[str, Any]]:
    remote = {"url": "http://127.0.0.1:9000", "model": "phishing", "auth": "env:STAGING_KEY"}
    more = {"sample": st.floats(0, 1), "until": INSTANTS, "priority": st.integers(1, 9)}
    return st.one_of(
        st.fixed_dictionaries({"name": st.just(name), "model": REFERENCES}, optional=more),
        st.fixed_dictionaries({"name": st.just(name), "remote": st.just(remote)}, optional=more),
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
        }
    )
