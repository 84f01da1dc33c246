"""The whole route document of one endpoint as frozen values, with its defaults; `to_document` writes it back in its one normal form."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

UNIT_HEADER: Final = "x-runoff-unit"
"""The header that `unit: header` means."""

MIRRORED_HEADER: Final = "x-runoff-mirrored"
"""The header of a row that a mirror of another gateway was shown: the ids of those that it came through."""

SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
"""Headers that doors hand to nobody: no rule and no unit may read them, no record may hold them."""

MIXED_RULE: Final = "unit_mixed"
"""The rule's name in records of requests whose rows belong to different units (`unit_mixed: champion`); no rule may take it."""

DAY_S: Final = 86_400


class UnitSource(msgspec.Struct, frozen=True):
    """Where a request's unit is read: a header (lower case), a V2 parameter, an input column, or nowhere."""

    kind: Literal["none", "header", "parameter", "input"] = "none"
    name: str = ""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of the split. `model` is a reference as written; `fallback`: if it fails the champion answers within the deadline."""

    name: str
    model: str
    weight: float = 0.0
    fallback: bool = False


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """Another server that answers for a mirror. `auth` is `env:NAME`, the variable that holds its token, or None for no token."""

    url: str
    model: str
    protocol: Literal["v2", "v2-grpc", "mlflow"] = "v2"
    auth: str | None = None


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate beside the live answer: exactly one of `model` and `remote` is set.

    `sample` in [0, 1]; `priority`: 1 is shed last, larger numbers first; `until_unix_s` None: for as long as the route says.
    """

    name: str
    model: str | None = None
    remote: Remote | None = None
    sample: float = 1.0
    priority: int = 1
    body_bytes_max: int | None = None
    until_unix_s: int | None = None


class Condition(msgspec.Struct, frozen=True):
    """What a rule wants of the header, parameter or input column `name`: one of three things.

    `values`: it is one of them, compared as canonical text (`routing.split.canonical_unit`). `prefix`: its text begins so. Otherwise it is
    a number from `least` to `most`, both included, None for no bound. A condition on an input holds when it holds for every row.
    """

    source: Literal["header", "parameter", "input"]
    name: str
    values: tuple[str, ...] = ()
    prefix: str | None = None
    least: float | None = None
    most: float | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Sends a request to `variant` when all conditions of `when` hold; outside experiments unless `experiment`."""

    name: str
    when: tuple[Condition, ...]
    variant: str
    experiment: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a rollout: the weights to set (arms not named keep theirs), and for how long."""

    weights: tuple[tuple[str, float], ...]
    for_s: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds per worker. `body_bytes_max` None: the process's own bounds hold."""

    concurrency_max: int = 1024
    queue_wait_max_s: float = 0.05
    timeout_s: float = 2.0
    body_bytes_max: int | None = None


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """A feature service whose values are looked up once by entity key, for champion and shadows alike."""

    service: str
    timeout_ms: int = 20
    max_age_s: int = 600
    defaults: tuple[tuple[str, str | float | bool], ...] = ()


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """How long after a prediction its truth counts, and whether the truth is independent of the answer given.

    `sensitive`: attributes of labels that are kept apart; those that `record.sensitive` names are so anyway.
    """

    window_s: int = 30 * DAY_S
    exogenous: bool = False
    sensitive: tuple[str, ...] = ()


FOUND_BY_PREDICTION: Final = ("labels", "sensitive", "sensitive_labels")
"""Tables of whose rows nobody can tell whose they are once their predictions are gone."""

RETAINED: Final = ("shadows", *FOUND_BY_PREDICTION, "metrics", "dead_letters")
"""Tables of the lake, beside `predictions`, that may have a retention of their own."""

_METRICS_S: Final = 400 * DAY_S
"""Minutes name nobody: a year and a bit, so that a season can be compared with the last."""
_LETTERS_S: Final = 30 * DAY_S


class Retention(msgspec.Struct, frozen=True):
    """How long the rows of an endpoint are kept, in seconds from the prediction; `of` has the tables that are named apart."""

    predictions_s: int = 90 * DAY_S
    of: tuple[tuple[str, int], ...] = ()

    def kept_s(self, table: str) -> int:
        """How long rows of `table` are kept: what is not named goes with the predictions, dead letters after 30 days at most."""
        others = {"metrics": _METRICS_S, "dead_letters": min(_LETTERS_S, self.predictions_s)}
        return dict(self.of).get(table, others.get(table, self.predictions_s))


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a prediction, and how long. `mask` by input column."""

    sample: float = 1.0
    inputs: Literal["full", "hash", "none"] = "full"
    inputs_bytes_max: int = 65_536
    mask: tuple[tuple[str, Literal["drop", "hmac"]], ...] = ()
    sensitive: tuple[str, ...] = ()
    durability: Literal["process", "disk", "async"] = "process"
    on_failure: Literal["open", "closed"] = "open"
    unit: Literal["hmac", "raw"] = "hmac"
    retention: Retention = Retention()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A valid route; made by `routing.validate.validate` and by the edits of `routing.promotion`, nowhere else.

    `salt` is never empty: its default is the endpoint's name.
    """

    endpoint: str
    variants: tuple[Variant, ...]
    salt: str
    unit: UnitSource = UnitSource()
    unit_mixed: Literal["reject", "champion"] = "reject"
    champion: str = "champion"
    mirrors: tuple[Mirror, ...] = ()
    rules: tuple[Rule, ...] = ()
    follow: Literal["propose", "auto", "ignore"] = "propose"
    steps: tuple[Step, ...] = ()
    limits: Limits = Limits()
    nonfinite: Literal["pass", "reject"] = "pass"
    features: Features | None = None
    label: Label = Label()
    record: Record = Record()
    allow_pin: bool = False
    explain: bool = False

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Every variant's name and weight, in the order of the document."""
        return tuple((variant.name, variant.weight) for variant in self.variants)

    @property
    def champion_index(self) -> int:
        return next(index for index, variant in enumerate(self.variants) if variant.name == self.champion)

    @property
    def models(self) -> dict[str, str]:
        """Model reference by variant or mirror name; remote mirrors have none."""
        arms = {variant.name: variant.model for variant in self.variants}
        return arms | {mirror.name: mirror.model for mirror in self.mirrors if mirror.model is not None}


def to_document(route: Route) -> dict[str, object]:
    """The normal form: every scalar with its effective value, empty lists and absent parts left out; `validate` reads it back equal."""
    return {
        "endpoint": route.endpoint,
        "unit": "none" if route.unit.kind == "none" else {route.unit.kind: route.unit.name},
        "unit_mixed": route.unit_mixed,
        "salt": route.salt,
        "champion": route.champion,
        "variants": [msgspec.structs.asdict(variant) for variant in route.variants],
        **_unless_empty("mirrors", [_mirror(mirror) for mirror in route.mirrors]),
        **_unless_empty("rules", [_rule(rule) for rule in route.rules]),
        "follow": route.follow,
        **_unless_empty(
            "steps", [{"weights": dict(step.weights), "for": duration(step.for_s)} for step in route.steps]
        ),
        "limits": _present(msgspec.structs.asdict(route.limits)),
        "nonfinite": route.nonfinite,
        **({} if route.features is None else {"features": _features(route.features)}),
        "label": {"window": duration(route.label.window_s), "exogenous": route.label.exogenous}
        | _unless_empty("sensitive", list(route.label.sensitive)),
        "record": _record(route.record),
        "allow_pin": route.allow_pin,
        "explain": route.explain,
    }


def duration(seconds: int) -> str:
    """The shortest text of a duration: `duration(600) == "10m"`, `duration(90) == "90s"`."""
    for unit, size in (("d", DAY_S), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def instant(unix_s: int) -> str:
    """RFC 3339 in UTC: `instant(0) == "1970-01-01T00:00:00Z"`."""
    return datetime.fromtimestamp(unix_s, tz=UTC).isoformat().replace("+00:00", "Z")


def _mirror(mirror: Mirror) -> dict[str, object]:
    document = _present(msgspec.structs.asdict(mirror))
    if mirror.remote is not None:
        document["remote"] = _present(msgspec.structs.asdict(mirror.remote))
    if mirror.until_unix_s is not None:
        document["until"] = instant(mirror.until_unix_s)
        del document["until_unix_s"]
    return document


def _rule(rule: Rule) -> dict[str, object]:
    when: dict[str, dict[str, object]] = {}
    for condition in rule.when:
        when.setdefault(condition.source, {})[condition.name] = _condition(condition)
    return {"name": rule.name, "when": when, "variant": rule.variant, "experiment": rule.experiment}


def _condition(condition: Condition) -> object:
    if condition.values:
        return condition.values[0] if len(condition.values) == 1 else list(condition.values)
    if condition.prefix is not None:
        return {"prefix": condition.prefix}
    return _present({"min": condition.least, "max": condition.most})


def _features(features: Features) -> dict[str, object]:
    document = msgspec.structs.asdict(features)
    return {**document, "defaults": dict(features.defaults)}


def _record(record: Record) -> dict[str, object]:
    document = msgspec.structs.asdict(record)
    del document["mask"], document["sensitive"]
    kept, of = duration(record.retention.predictions_s), record.retention.of
    document["retention"] = {"predictions": kept, **{table: duration(own_s) for table, own_s in of}} if of else kept
    return document | _unless_empty("mask", dict(record.mask)) | _unless_empty("sensitive", list(record.sensitive))


def _present(document: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in document.items() if value is not None}


def _unless_empty(key: str, value: Sequence[object] | Mapping[str, object]) -> dict[str, object]:
    return {key: value} if value else {}
