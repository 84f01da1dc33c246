"""The route document as JSON Schema: what `routing.validate` takes key by key. What only several keys together show stands in docs/routes.md.

A test holds it to `routing.validate` on thousands of documents: it never refuses what is accepted there.
"""

from typing import Any, Final

from routing.conflicts import MIRRORS_MAX, RULES_MAX, STEPS_MAX
from routing.split import ARMS_MAX, WEIGHT_MAX, WEIGHT_MIN
from routing.traffic import Features, Label, Limits, Record, Retention, duration
from routing.validate import RESERVED_ENDPOINTS

Schema = dict[str, Any]

_LINE: Final = r"^[^\x00-\x1f\x7f]{1,256}$"
_NAME: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"}
_HEADER: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$"
_URL: Final = r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^\s?#@]*)?$"
_INSTANT: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_BYTES_MAX: Final = 1 << 30
_NUMBER_MAX: Final = 1e308
_SCALAR: Final[Schema] = {"type": ["string", "number", "boolean"]}
_FEATURES: Final = Features(service="")


def _described(schema: Schema, text: str, default: object = None) -> Schema:
    """`default` None: there is none to name."""
    return {**schema, "description": text} | ({} if default is None else {"default": default})


def _object(text: str, required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    found: Schema = {"type": "object", "description": text, "properties": properties, "additionalProperties": False}
    return found | ({"required": [*required]} if required else {})


def _by_name(text: str, value: Schema, **more: object) -> Schema:
    """An object whose keys are the writer's: columns, headers, arms."""
    names = {"minLength": 1}
    return {"type": "object", "description": text, "propertyNames": names, "additionalProperties": value, **more}


def _list(text: str, items: Schema, **more: object) -> Schema:
    return {"type": "array", "description": text, "items": items, **more}


def _or_null(schema: Schema) -> Schema:
    """An optional key that null leaves out."""
    return schema | {"type": [schema["type"], "null"]}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def _choice(*options: str) -> Schema:
    return {"type": "string", "enum": [*options]}


_FLAG: Final[Schema] = {"type": "boolean"}
_DURATION: Final = _text("^(?=[0-9]*[1-9])[0-9]{1,10}[smhdw]$")
_MODEL: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 2048,
    "examples": ["models:/phishing@champion", "models:/phishing/3", "runs:/<run id>/model", "./models/scorer"],
}
_WEIGHT: Final[Schema] = {
    "type": "number",
    "anyOf": [{"const": 0}, {"minimum": WEIGHT_MIN, "maximum": WEIGHT_MAX}],
}
_CONDITION: Final[Schema] = {
    "description": "a value, a list of them (one of), {prefix: text}, or {min: number, max: number} with one bound or both, included",
    "anyOf": [
        _SCALAR,
        {"type": "array", "items": _SCALAR, "minItems": 1},
        _object("begins so", ("prefix",), prefix=_text(_LINE), min={"type": "null"}, max={"type": "null"}),
        _object(
            "a range",
            prefix={"type": "null"},
            min=_or_null(_number(-_NUMBER_MAX, _NUMBER_MAX)),
            max=_or_null(_number(-_NUMBER_MAX, _NUMBER_MAX)),
        )
        | {"anyOf": [{"required": [bound], "properties": {bound: {"type": "number"}}} for bound in ("min", "max")]},
    ],
}


def _unit() -> Schema:
    sources = {"header": _text(_HEADER), "parameter": _text(_LINE), "input": _text(_LINE)}
    named = _object("", **{name: _or_null(schema) for name, schema in sources.items()}) | {
        "oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in sources]
    }
    return _described(
        {"anyOf": [{"enum": ["none", "header"]}, named | {"description": "the source and the name there"}]},
        "what keeps its variant: none, header (x-runoff-unit), {header: name}, {parameter: name} or {input: name}",
        "none",
    )


_VARIANT: Final = _object(
    "one arm of the split",
    ("name", "model"),
    name=_NAME,
    model=_described(_MODEL, "a registry version or alias, a logged model, a run's model, a folder or file"),
    weight=_described(_WEIGHT, "relative to the other variants; one of them is above 0", 0),
    fallback=_described(_FLAG, "if it fails the champion answers within the deadline", default=False),
)
_REMOTE: Final = _object(
    "another server that answers for the mirror",
    ("url", "model"),
    url=_text(_URL),
    model=_text(_LINE),
    protocol=_described(_choice("v2", "v2-grpc", "mlflow"), "what it speaks", "v2"),
    auth=_described(_or_null(_text("^env:[A-Za-z_][A-Za-z0-9_]*$")), "the variable that holds its bearer token"),
)
_MIRROR: Final = _object(
    "a candidate that sees the same rows and answers nobody: one of model and remote",
    ("name",),
    name=_NAME,
    model=_described(_or_null(_MODEL), "as of a variant"),
    remote=_or_null(_REMOTE),
    sample=_described(_number(0, 1), "the share of requests that it sees, drawn apart from the split", 1.0),
    priority=_described(_whole(1, 1000), "1 is shed last, larger numbers first", 1),
    body_bytes_max=_described(
        _or_null(_whole(1, _BYTES_MAX)), "requests with more bytes of inputs are skipped, counted"
    ),
    until=_described(_or_null(_text(_INSTANT)), "RFC 3339 with its offset; it sees nothing from then on"),
) | {
    "oneOf": [
        {"required": ["model"], "properties": {"model": {"type": "string"}}},
        {"required": ["remote"], "properties": {"remote": {"type": "object"}}},
    ]
}
_WHEN: Final = _object(
    "what has to hold, all of it",
    header=_by_name("by a header's name", _CONDITION) | {"propertyNames": {"pattern": _HEADER}},
    parameter=_by_name("by the name of a V2 parameter", _CONDITION),
    input=_by_name("by an input column; it holds when it holds for every row", _CONDITION),
) | {
    "anyOf": [
        {"required": [source], "properties": {source: {"minProperties": 1}}}
        for source in ("header", "parameter", "input")
    ]
}
_RULE: Final = _object(
    "sends requests to a variant before the split; the first that matches wins",
    ("name", "when", "variant"),
    name=_NAME,
    when=_WHEN,
    variant=_NAME,
    experiment=_described(_FLAG, "whether its requests may enter a test", default=False),
)
_STEP: Final = _object(
    "weights to set, and for how long",
    ("weights", "for"),
    **{
        "weights": _by_name("by variant; those not named keep theirs", _WEIGHT, minProperties=1),
        "for": _described(_DURATION, "the length of the step, such as 10m"),
    },
)
_LIMITS: Final = _object(
    "bounds in each worker",
    concurrency_max=_described(_whole(1, 1_000_000), "requests in flight; 429 above it", Limits().concurrency_max),
    queue_wait_max_s=_described(
        _number(0, 3600), "429 where the wait would be longer, seconds", Limits().queue_wait_max_s
    ),
    timeout_s=_described(_number(0.001, 3600), "the longest that an answer may take, seconds", Limits().timeout_s),
    body_bytes_max=_described(_or_null(_whole(1, _BYTES_MAX)), "of a body; left out: the process's own bounds"),
)
_LOOKUP: Final = _object(
    "a feature service: callers send entity keys in place of inputs",
    ("service",),
    service=_text(_LINE),
    timeout_ms=_described(_whole(1, 60_000), "how long a lookup may take", _FEATURES.timeout_ms),
    max_age_s=_described(_whole(0, 1_000_000_000), "older values are not used; 0: any age", _FEATURES.max_age_s),
    defaults=_by_name("by input: what stands in where there is no value", _SCALAR),
)
_LABEL: Final = _object(
    "how the truth counts",
    window=_described(_or_null(_DURATION), "how long after a prediction its truth counts", duration(Label().window_s)),
    exogenous=_described(_FLAG, "the truth does not depend on the answer given", default=False),
    sensitive=_list("attributes of labels that are kept apart", {"type": "string"}),
)
_RETENTION: Final = _object(
    "a duration by table of the lake",
    predictions=_described(
        _or_null(_DURATION), "of predictions, and of what is not named", duration(Retention().predictions_s)
    ),
    shadows=_described(_or_null(_DURATION), "what mirrors answered"),
    labels=_described(_or_null(_DURATION), "truths; no longer than their predictions"),
    sensitive=_described(_or_null(_DURATION), "inputs that are kept apart; no longer than their predictions"),
    sensitive_labels=_described(
        _or_null(_DURATION), "attributes of labels that are kept apart; no longer than their predictions"
    ),
    metrics=_described(_or_null(_DURATION), "minutes of variants and mirrors; left out: 400d"),
    dead_letters=_described(
        _or_null(_DURATION), "frames that could not be read; left out: 30d, and no longer than predictions"
    ),
)
_RECORD: Final = _object(
    "what is kept of a prediction",
    sample=_described(_number(0, 1), "the share of predictions that are recorded", Record().sample),
    inputs=_described(_choice("full", "hash", "none"), "how inputs are kept", Record().inputs),
    inputs_bytes_max=_described(
        _whole(0, _BYTES_MAX), "above it digest and shape alone are kept", Record().inputs_bytes_max
    ),
    mask=_by_name("by input", _choice("drop", "hmac")),
    sensitive=_list("inputs that are kept apart, in the table `sensitive` alone", {"type": "string"}),
    durability=_described(_choice("process", "disk", "async"), "what a reply waits for", Record().durability),
    on_failure=_described(
        _choice("open", "closed"), "where records cannot be written: serve, or 503", Record().on_failure
    ),
    unit=_described(_choice("hmac", "raw"), "how the unit is kept", Record().unit),
    retention=_described(
        {"anyOf": [_DURATION, {"type": "null"}, _RETENTION]},
        "how long records, their shadows and labels are kept: one duration, or one by table",
        duration(Retention().predictions_s),
    ),
)

DOCUMENT: Final[Schema] = _object(
    "The route of one endpoint. Every key with its meaning, its bounds and what refuses it: docs/routes.md.",
    ("endpoint", "variants"),
    endpoint=_described(
        _text("^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$") | {"not": {"enum": sorted(RESERVED_ENDPOINTS)}},
        "the name that callers use",
    ),
    unit=_unit(),
    unit_mixed=_described(
        _choice("reject", "champion"), "rows of several units in a request: 400, or to the champion", "reject"
    ),
    salt=_described(_text(_LINE), "of the split; default: the endpoint's name. Another one deals anew"),
    champion=_described(_NAME, "the variant that others are compared with", "champion"),
    variants=_list("who may answer", _VARIANT, minItems=1, maxItems=ARMS_MAX),
    mirrors=_list("candidates beside the live answer", _MIRROR, maxItems=MIRRORS_MAX),
    rules=_list("who is sent where before the split", _RULE, maxItems=RULES_MAX),
    follow=_described(_choice("propose", "auto", "ignore"), "what an alias that moves does", "propose"),
    steps=_list("a ramp: weights by the clock", _STEP, maxItems=STEPS_MAX),
    limits=_LIMITS,
    nonfinite=_described(_choice("pass", "reject"), "NaN and infinity among inputs: taken, or 400", "pass"),
    features=_or_null(_LOOKUP),
    label=_LABEL,
    record=_RECORD,
    allow_pin=_described(_FLAG, "callers may name a variant or a version", default=False),
    explain=_described(_FLAG, "callers may ask why they got this answer", default=False),
)
