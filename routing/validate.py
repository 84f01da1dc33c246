"""Turns a route document into a Route, or says everything that is wrong with it at once, each problem with its path, code and remedy."""

import re
from collections.abc import Mapping
from typing import Final, Literal

from models.errors import ReferenceInvalid
from models.ref import parse_ref
from routing.conflicts import conflicts
from routing.errors import Problem, RouteInvalid
from routing.fields import Fields
from routing.split import WEIGHT_MAX, WEIGHT_MIN, canonical_unit, is_weight
from routing.traffic import (
    RETAINED,
    UNIT_HEADER,
    Condition,
    Features,
    Label,
    Limits,
    Mirror,
    Record,
    Remote,
    Retention,
    Route,
    Rule,
    Step,
    UnitSource,
    Variant,
)

NOT_BUILT: Final[Mapping[str, frozenset[str] | None]] = {}
"""What the contract has and nobody has built yet: a key, or (with a set) these values of it. The one list; the rest is read and checked."""

RESERVED_ENDPOINTS: Final = frozenset({"stats", "versions", "labels"})

_ENDPOINT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ENDPOINT_WANTED: Final = "1 to 128 letters, digits, '_', '.' or '-', the first a letter or digit"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME_WANTED: Final = "1 to 64 letters, digits, '_', '.' or '-', the first a letter or digit"
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_SECRET: Final = re.compile(
    r"(.*[-_.])?(authorization|cookie2?|api-?key|token|secret|password|passwd|credentials?|signature|jwt|client-?cert)",
    re.IGNORECASE,
)
"""Headers by whose name one tells that they hold a secret: those of doors and of the usual proxies."""
_LINE: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}")
_LINE_WANTED: Final = "1 to 256 printable characters"
_ANY: Final = re.compile(r".+", re.DOTALL)
_MODEL_WANTED: Final = "a reference such as models:/name@alias"
_URL: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^\s?#@]*)?")
_AUTH: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_BYTES_MAX: Final = 1 << 30
_NUMBER_MAX: Final = 1e308


def validate(document: object) -> Route:
    """Reads a route document (decoded JSON or YAML) into a Route in its normal form; raises RouteInvalid with all problems.

    Model references are checked as texts only: whether the registry has them is staging's question.
    """
    if not isinstance(document, Mapping):
        raise RouteInvalid([Problem("", "wrong_type", "wanted one object, the route of one endpoint")])
    problems: list[Problem] = []
    route = _route(Fields(document, "", problems, NOT_BUILT))
    found = {problem.path for problem in problems}
    # What was misread leads to contradictions of its own, which would only confuse.
    problems += [problem for problem in conflicts(route, problems) if problem.path not in found]
    if problems:
        raise RouteInvalid(problems, route)
    return route


def _route(fields: Fields) -> Route:
    endpoint = fields.text("endpoint", pattern=_ENDPOINT, wanted=_ENDPOINT_WANTED)
    if endpoint in RESERVED_ENDPOINTS:
        message = f"'{endpoint}' is a word of the protocols' paths"
        fields.problem("endpoint", "reserved_name", message, "choose another name")
    salt = fields.text("salt", endpoint, pattern=_LINE, wanted=_LINE_WANTED)
    route = Route(
        endpoint=endpoint,
        unit=_unit(fields),
        unit_mixed=fields.choice("unit_mixed", ("reject", "champion"), "reject"),
        salt=canonical_unit(salt).decode(),
        champion=fields.text("champion", "champion", pattern=_NAME, wanted=_NAME_WANTED),
        variants=tuple(_variant(variant) for variant in fields.children("variants")),
        mirrors=tuple(_mirror(mirror) for mirror in fields.children("mirrors")),
        rules=tuple(_rule(rule) for rule in fields.children("rules")),
        follow=fields.choice("follow", ("propose", "auto", "ignore"), "propose"),
        steps=tuple(_step(step) for step in fields.children("steps")),
        limits=_limits(fields.child("limits")),
        nonfinite=fields.choice("nonfinite", ("pass", "reject"), "pass"),
        features=_features(features) if (features := fields.child_or_none("features")) else None,
        label=_label(fields.child("label")),
        record=_record(fields.child("record")),
        allow_pin=fields.flag("allow_pin", default=False),
        explain=fields.flag("explain", default=False),
    )
    fields.close()
    return route


def _unit(fields: Fields) -> UnitSource:
    source = fields.text_or_child("unit", "none")
    if source == "none":
        return UnitSource()
    if source == "header":
        return UnitSource("header", UNIT_HEADER)
    remedy = "write none, header, {header: …}, {parameter: …} or {input: …}"
    if isinstance(source, str):
        fields.problem("unit", "not_one_of", f"wanted the source of the unit, got {source[:80]!r}", remedy)
        return UnitSource()
    header = source.text_or_none("header", pattern=_HEADER, wanted="a header's name")
    parameter = source.text_or_none("parameter", pattern=_LINE, wanted=_LINE_WANTED)
    column = source.text_or_none("input", pattern=_LINE, wanted=_LINE_WANTED)
    source.close()
    if sum(name is not None for name in (header, parameter, column)) != 1:
        source.problem("", "not_one_of", "wanted exactly one source of the unit", remedy)
    if header is not None:
        _not_secret(source, "header", header)
        return UnitSource("header", header.lower())
    return UnitSource("parameter", parameter) if parameter is not None else UnitSource("input", column or "")


def _variant(fields: Fields) -> Variant:
    variant = Variant(
        name=fields.text("name", pattern=_NAME, wanted=_NAME_WANTED),
        model=_model(fields, fields.text("model", pattern=_ANY, wanted=_MODEL_WANTED)),
        weight=_weight(fields, "weight"),
        fallback=fields.flag("fallback", default=False),
    )
    fields.close()
    return variant


def _mirror(fields: Fields) -> Mirror:
    model = fields.text_or_none("model", pattern=_ANY, wanted=_MODEL_WANTED)
    remote = fields.child_or_none("remote")
    if (model is None) == (remote is None):
        fields.problem("", "not_one_of", "wanted either 'model' or 'remote'", "give the mirror exactly one of the two")
    mirror = Mirror(
        name=fields.text("name", pattern=_NAME, wanted=_NAME_WANTED),
        model=None if model is None else _model(fields, model),
        remote=None if remote is None else _remote(remote),
        sample=fields.number("sample", 1.0, 0.0, 1.0),
        priority=fields.whole("priority", 1, 1, 1000),
        body_bytes_max=fields.whole_or_none("body_bytes_max", 1, _BYTES_MAX),
        until_unix_s=fields.instant_unix_s("until"),
    )
    fields.close()
    return mirror


def _remote(fields: Fields) -> Remote:
    remote = Remote(
        url=fields.text("url", pattern=_URL, wanted="http(s)://host[:port][/path] without user, query and fragment"),
        model=fields.text("model", pattern=_LINE, wanted=_LINE_WANTED),
        protocol=fields.choice("protocol", ("v2", "v2-grpc", "mlflow"), "v2"),
        auth=fields.text_or_none("auth", pattern=_AUTH, wanted="env:NAME of the variable that holds the token"),
    )
    fields.close()
    return remote


def _model(fields: Fields, text: str) -> str:
    """The canonical spelling of the reference, so that two routes that mean the same model say the same."""
    if not text:
        return ""
    try:
        return str(parse_ref(text))
    except ReferenceInvalid as error:
        fields.problem("model", "reference_invalid", str(error))
        return ""


def _weight(fields: Fields, key: str) -> float:
    weight = fields.number(key, 0.0, 0.0, WEIGHT_MAX)
    if is_weight(weight):
        return weight
    message = f"wanted 0, or {WEIGHT_MIN:g} to {WEIGHT_MAX:g}, got {weight}"
    fields.problem(key, "out_of_range", message, "weights are relative: multiply all of them by the same number")
    return 0.0


def _rule(fields: Fields) -> Rule:
    rule = Rule(
        name=fields.text("name", pattern=_NAME, wanted=_NAME_WANTED),
        when=_when(fields.child("when")),
        variant=fields.text("variant", pattern=_NAME, wanted=_NAME_WANTED),
        experiment=fields.flag("experiment", default=False),
    )
    fields.close()
    return rule


def _when(fields: Fields) -> tuple[Condition, ...]:
    headers, parameters, inputs = (fields.child(source) for source in ("header", "parameter", "input"))
    conditions: list[Condition] = []
    for name in headers.names():
        if not _HEADER.fullmatch(name):
            headers.problem(name, "bad_text", f"wanted a header's name, got {name[:80]!r}")
        _not_secret(headers, name, name)
        conditions.append(_condition("header", name.lower(), headers, name))
    conditions += [_condition("parameter", name, parameters, name) for name in parameters.names()]
    conditions += [_condition("input", name, inputs, name) for name in inputs.names()]
    if not conditions:
        remedy = "name a header, a parameter or an input"
        fields.problem("", "missing", "a rule without a condition takes every request", remedy)
    fields.close()
    return tuple(conditions)


def _not_secret(fields: Fields, key: str, header: str) -> None:
    """Routes are read by many and units are hashed into records, so that neither may be made of what opens doors."""
    if _SECRET.fullmatch(header):
        remedy = "let callers send an id of its own, such as x-user-id"
        fields.problem(key, "secret_header", f"'{header}' carries a secret, which no route may read", remedy)


def _condition(source: Literal["header", "parameter", "input"], name: str, fields: Fields, key: str) -> Condition:
    """A value, a list of them, `{prefix: …}`, or `{min: …, max: …}` with one bound or both."""
    if not fields.is_object(key):
        values = (canonical_unit(value).decode("utf-8", "surrogatepass") for value in fields.scalars(key))
        return Condition(source, name, tuple(values))
    wanted = fields.child(key)
    prefix = wanted.text_or_none("prefix", pattern=_LINE, wanted=_LINE_WANTED)
    least, most = (
        wanted.number_or_none("min", -_NUMBER_MAX, _NUMBER_MAX),
        wanted.number_or_none("max", -_NUMBER_MAX, _NUMBER_MAX),
    )
    wanted.close()
    if (prefix is None) == (least is None and most is None):
        wanted.problem("", "not_one_of", "wanted either 'prefix', or 'min' and 'max'", "write one of the two")
    elif least is not None and most is not None and least > most:
        wanted.problem("", "out_of_range", f"nothing lies between {least:g} and {most:g}", "swap 'min' and 'max'")
    return Condition(source, name, prefix=prefix, least=least, most=most)


def _step(fields: Fields) -> Step:
    weights = fields.child("weights")
    step = Step(
        weights=tuple((name, _weight(weights, name)) for name in weights.names()),
        for_s=fields.duration_s("for"),
    )
    fields.close()
    return step


def _limits(fields: Fields) -> Limits:
    default = Limits()
    limits = Limits(
        concurrency_max=fields.whole("concurrency_max", default.concurrency_max, 1, 1_000_000),
        queue_wait_max_s=fields.number("queue_wait_max_s", default.queue_wait_max_s, 0.0, 3600.0),
        timeout_s=fields.number("timeout_s", default.timeout_s, 0.001, 3600.0),
        body_bytes_max=fields.whole_or_none("body_bytes_max", 1, _BYTES_MAX),
    )
    fields.close()
    return limits


def _features(fields: Fields) -> Features:
    defaults = fields.child("defaults")
    features = Features(
        service=fields.text("service", pattern=_LINE, wanted=_LINE_WANTED),
        timeout_ms=fields.whole("timeout_ms", 20, 1, 60_000),
        max_age_s=fields.whole("max_age_s", 600, 0, 1_000_000_000),
        defaults=tuple((name, defaults.scalar(name)) for name in defaults.names()),
    )
    fields.close()
    return features


def _label(fields: Fields) -> Label:
    label = Label(
        window_s=fields.duration_s("window", Label().window_s),
        exogenous=fields.flag("exogenous", default=False),
        sensitive=fields.texts("sensitive"),
    )
    fields.close()
    return label


def _record(fields: Fields) -> Record:
    default = Record()
    mask = fields.child("mask")
    record = Record(
        sample=fields.number("sample", default.sample, 0.0, 1.0),
        inputs=fields.choice("inputs", ("full", "hash", "none"), "full"),
        inputs_bytes_max=fields.whole("inputs_bytes_max", default.inputs_bytes_max, 0, _BYTES_MAX),
        mask=tuple((name, mask.choice(name, ("drop", "hmac"), "drop")) for name in mask.names()),
        sensitive=fields.texts("sensitive"),
        durability=fields.choice("durability", ("process", "disk", "async"), "process"),
        on_failure=fields.choice("on_failure", ("open", "closed"), "open"),
        unit=fields.choice("unit", ("hmac", "raw"), "hmac"),
        retention=_retention(fields),
    )
    fields.close()
    return record


def _retention(fields: Fields) -> Retention:
    """A duration for all tables of the endpoint, or durations by table."""
    default_s = Retention().predictions_s
    if not fields.is_object("retention"):
        return Retention(fields.duration_s("retention", default_s))
    tables = fields.child("retention")
    found = [(table, tables.duration_or_none_s(table)) for table in RETAINED]
    retention = Retention(
        tables.duration_s("predictions", default_s),
        tuple((table, kept_s) for table, kept_s in found if kept_s is not None),
    )
    tables.close()
    return retention
