"""How the ledger, quality and single predictions look in a terminal: a line a mirror or variant first, then a table for each further question."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from gateway.commands.talk import grid, screen, show_lines
from runoff.tables import shown

Answer = Mapping[str, Any]
Cells = dict[str, Any]

_MEASURES: Final = ("role", "name", "model", "version", "n", "labelled", "coverage")
_WHO: Final = ("role", "name", "version")
_DELAYS: Final = ("p50", "p90", "p99")
_ASIDE: Final = (
    "last_unix_s",
    "label_delay_s",
    "intervals",
    "calibration",
    "quantile_loss",
    "over_time",
    "worst",
    "segments",
    "error",
)
_SHADOW: Final = (
    "mirror",
    "model",
    "version",
    "row",
    "outcome",
    "answer_label",
    "answer_score",
    "live_label",
    "live_score",
)
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_FLIPS_SHOWN: Final = 5
_WORST_SHOWN: Final = 3
_LOG_E_SHOWN_MAX: Final = 690.0
_BY: Final = {"assigned": ", by assignment", "answered": ", by who answered"}
_ENDS: Final = {"0.0": "least", "1.0": "most"}


def show_ledger(reply: Answer, *, details: bool = False) -> None:
    """`details`: all flips and rows that the API tells of, and agreement span by span."""
    mirrors = reply["mirrors"]
    if not mirrors:
        show_lines(
            f"{reply['endpoint']}: nothing was mirrored yet; runoff mirror {reply['endpoint']} candidate models:/… --reason …"
        )
        return
    _show([_mirror(one) for one in mirrors], f"{reply['endpoint']}: mirrors against {reply['champion']}")
    _show([row for one in mirrors for row in _evidence(one)], "evidence on labelled pairs, each unit once")
    for mirror in mirrors:
        if because := mirror.get("evidence", {}).get("because"):
            show_lines(f"  {mirror['mirror']}: {because}")
    _show([row for one in mirrors for row in _scores(one)], "scores: the mirror's less production's")
    _show_parts(mirrors, "flips", _flip, "flips", None if details else _FLIPS_SHOWN)
    _show_parts(mirrors, "worst", _pair, "rows furthest off", None if details else _WORST_SHOWN)
    if details:
        _show_parts(mirrors, "over_time", _span, "over time")
    else:
        show_lines(*(line for one in mirrors for line in _in_time(one["mirror"], one.get("over_time"), "agreement")))
    _show_parts(mirrors, "earlier", _earlier, "earlier pairs of versions")
    for mirror in mirrors:
        _show(mirror.get("segments"), f"{mirror['mirror']} by segment")


def show_quality(reply: Answer, *, details: bool = False) -> None:
    """`details`: all worst rows that the API tells of, measures span by span, and how sure those of segments are."""
    subjects = reply["subjects"]
    if not subjects:
        show_lines(f"{reply['endpoint']}: no predictions are stored yet")
        return
    positive = f", positive class {reply['positive']}" if reply.get("positive") else ""
    window = reply.get("label_window_s")
    within = "" if window is None else f", labels within {_span_text(window)}"
    title = f"{reply['endpoint']}: {reply['kind']}{positive}{_BY.get(reply.get('by', ''), '')}{within}"
    measures = [name for name in subjects[0] if name not in (*_MEASURES, *_ASIDE)]
    _show([_subject(one, measures) for one in subjects], title, (*_MEASURES, *measures))
    _show([row for one in subjects for row in _sure(one)], "95% intervals", (*_WHO, *measures))
    _show(_calibration(subjects), "calibration: mean score → share that came true (rows)")
    _show([row for one in subjects for row in _quantile_loss(one)], "quantile loss")
    _show_parts(subjects, "worst", _wrong, "most wrong", None if details else _WORST_SHOWN)
    if details:
        _show_parts(subjects, "over_time", _course, "over time")
    else:
        show_lines(*(line for one in subjects for line in _course_line(one)))
    for subject in subjects:
        parts, by = subject.get("segments") or (), f"{_named(subject)} by {reply.get('segment_by')}"
        plain = [{name: value for name, value in part.items() if name not in _ASIDE} for part in parts]
        _show([part | {"coverage": _percent(part["coverage"])} for part in plain], by)
        if details:
            _show([row for part in parts for row in _sure(part)], f"{by}, 95% intervals", ("segment", *measures))
    _show_left_out(reply)


def show_prediction(reply: Answer) -> None:
    console = screen()
    record = reply["record"]
    console.print(Text(f"prediction {reply['prediction_id']}", "bold"))
    if record is None:
        console.print("  no record: the route does not record this request, or it is still on its way")
    else:
        for name, value in record.items():
            if name != "rows" and value is not None:
                console.print(Text(f"  {name}  {shown(value)}"))
        _show(record["rows"], "rows")
    _show([{name: row.get(name) for name in _SHADOW} for row in reply["shadows"]], "shadows")
    _show(reply["labels"], "labels")


# ---------------------------------------------------------------- mirrors


def _mirror(mirror: Answer) -> Cells:
    lag = mirror.get("lag_s", {})
    return {
        "mirror": mirror["mirror"],
        "model": _version(mirror),
        "against": _version(mirror.get("against")),
        "from": _moment(mirror.get("since_unix_s")),
        "until": _moment(mirror.get("until_unix_s")),
        "drawn": mirror.get("drawn"),
        "dropped": mirror["dropped"] or None,
        "dropped share": _percent(mirror.get("dropped_share") or None),
        "rows": mirror["rows"],
        "agreement": _percent(mirror["agreement"]),
        "lag p50": _span_text(lag.get("p50")),
        "p99": _span_text(lag.get("p99")),
        "verdict": mirror.get("evidence", {}).get("verdict"),
    }


def _evidence(mirror: Answer) -> Iterable[Cells]:
    """The paired test; nothing where labels decide nothing."""
    evidence = mirror.get("evidence", {})
    if (log_e := evidence.get("log_e")) is not None:
        e_value = math.exp(log_e) if log_e < _LOG_E_SHOWN_MAX else "over 1e300"
        first = {name: evidence[name] for name in ("test", "units", "difference") if name in evidence}
        rest = {name: value for name, value in evidence.items() if name not in ("log_e", "because", "verdict")}
        yield {"mirror": mirror["mirror"], **first, "e-value": e_value, **rest}


def _scores(mirror: Answer) -> Iterable[Cells]:
    found = mirror.get("score_difference", {})
    if found.get("rows"):
        quantiles = {_ENDS.get(at, f"{float(at) * 100:g}%"): value for at, value in found["quantiles"].items()}
        yield {
            "mirror": mirror["mirror"],
            "rows": found["rows"],
            "mean": found["mean"],
            "mean absolute": found["mean_absolute"],
            **quantiles,
        }


def _flip(mirror: Answer, flip: Answer) -> Cells:
    return {
        "mirror": mirror["mirror"],
        "production": flip["live"],
        "mirror answered": flip["mirror"],
        "rows": flip["rows"],
    }


def _pair(mirror: Answer, row: Answer) -> Cells:
    about = {name: row[name] for name in ("prediction_id", "row")}
    return {
        "mirror": mirror["mirror"],
        **about,
        "production": _answered(row, "live"),
        "mirror answered": _answered(row, "mirror"),
    }


def _span(mirror: Answer, span: Answer) -> Cells:
    return {
        "mirror": mirror["mirror"],
        "from": _moment(span["unix_s"]),
        "rows": span["rows"],
        "agreement": _percent(span["agreement"]),
        "mean absolute difference": span.get("mean_absolute_difference"),
    }


def _earlier(mirror: Answer, pair: Answer) -> Cells:
    return {
        "mirror": mirror["mirror"],
        "model": _version(pair),
        "against": f"{pair['live_model']}/{pair['live_version']}",
        "from": _moment(pair.get("since_unix_s")),
        "until": _moment(pair.get("until_unix_s")),
        "rows": pair["rows"],
        "agreement": _percent(pair["agreement"]),
    }


# ---------------------------------------------------------------- variants


def _subject(subject: Answer, measures: Sequence[str]) -> Cells:
    delays = subject.get("label_delay_s") or {}
    told = {name: subject.get(name) for name in (*_MEASURES, *measures)}
    spans = {f"label delay {at}" if at == _DELAYS[0] else at: _span_text(delays.get(at)) for at in _DELAYS}
    return told | {"coverage": _percent(subject["coverage"])} | spans


def _sure(subject: Answer) -> Iterable[Cells]:
    """`subject`: a variant, a mirror, or a segment of one."""
    if sure := subject.get("intervals"):
        who = {name: subject[name] for name in (*_WHO, "segment") if name in subject}
        yield who | {name: f"{low:.4g} to {high:.4g}" for name, (low, high) in sure.items()}


def _calibration(subjects: Sequence[Answer]) -> list[Cells]:
    """A row a tenth of the score, a column a subject."""
    tenths: dict[float, Cells] = {}
    for subject in subjects:
        for one in subject.get("calibration") or ():
            row = tenths.setdefault(one["from"], {"score": f"{one['from']:.1f} to {one['from'] + 0.1:.1f}"})
            row[_named(subject)] = f"{one['mean_score']:.3g} → {one['share']:.3g} ({one['rows']})"
    return [tenths[start] for start in sorted(tenths)]


def _quantile_loss(subject: Answer) -> Iterable[Cells]:
    if losses := subject.get("quantile_loss"):
        yield {name: subject[name] for name in _WHO} | dict(losses)


def _wrong(subject: Answer, row: Answer) -> Cells:
    who = {name: subject[name] for name in ("name", "version")}
    about = {name: row[name] for name in ("prediction_id", "row", "label")}
    return {**who, **about, "answered": _answered(row, "answer"), "distance": row.get("distance")}


def _course(subject: Answer, span: Answer) -> Cells:
    measures = {name: value for name, value in span.items() if name != "unix_s"}
    return {"name": subject["name"], "version": subject["version"], "from": _moment(span["unix_s"]), **measures}


def _course_line(subject: Answer) -> list[str]:
    measured = (subject.get("over_time") or [{}])[0]
    return _in_time(_named(subject), subject.get("over_time"), "mae" if "mae" in measured else "accuracy")


def _show_left_out(reply: Answer) -> None:
    for text, counts in (
        ("left out, for nobody drew them: {}; --by answered has them", _counted(reply.get("left_out"), "by ")),
        (
            "failed, or answered by another: {}",
            ", ".join(f"{who} {rows}" for who, rows in reply.get("failed", {}).items()),
        ),
        ("labels that are of no row, and not used: {}", _counted(reply.get("labels_unused"))),
    ):
        if counts:
            show_lines("  " + text.format(counts))


def _counted(counts: Mapping[str, int] | None, before: str = "") -> str:
    return ", ".join(f"{count} {before}{name}" for name, count in (counts or {}).items())


# ---------------------------------------------------------------- both


def _show(rows: Sequence[Answer] | None, title: str, first: Sequence[str] = ()) -> None:
    """Without the columns that nobody has a value in; those that are named `first` stand there, in this order.

    The title is a line of its own: that of a narrow table would be folded.
    """
    names = dict.fromkeys([*first, *(name for row in rows or () for name in row)])
    if columns := [name for name in names if any(row.get(name) not in (None, {}) for row in rows or ())]:
        console = screen()
        console.print(Text(f"\n{title}", "italic"), soft_wrap=True)
        console.print(grid(rows or (), columns))


def _show_parts(
    owners: Sequence[Answer], part: str, cells: Callable[[Answer, Answer], Cells], title: str, most: int | None = None
) -> None:
    """A list that each mirror or subject has, all of them in one table; of each the `most` first."""
    found = [(owner, list(owner.get(part) or ())) for owner in owners]
    rows = [cells(owner, one) for owner, ones in found for one in ones[:most]]
    more = sum(len(ones) for _, ones in found) - len(rows)
    _show(rows, f"{title} ({more} more with --details)" if more else title)


def _in_time(who: str, spans: Sequence[Answer] | None, measure: str) -> list[str]:
    """A measure in the order of time, at most 24 spans of equal length; nothing where one span has it all."""
    if spans is None or len(spans) < 2:
        return []
    values = " ".join("–" if one.get(measure) is None else f"{one[measure]:.3g}" for one in spans)
    return [f"  {who}: {measure} from {_moment(spans[0]['unix_s'])} in {len(spans)} spans: {values}"]


def _answered(row: Answer, who: str) -> str:
    score = row.get(f"{who}_score")
    label = row.get(f"{who}_label")
    return (
        f"{label} ({score:.4g})"
        if label is not None and score is not None
        else shown(label if score is None else score)
    )


def _named(subject: Answer) -> str:
    return f"{subject['name']} {subject['version']}"


def _version(model: Answer | None) -> str | None:
    return f"{model['model']}/{model['version']}" if model and model.get("model") else None


def _moment(unix_s: float | None) -> str | None:
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _span_text(seconds: float | None) -> str | None:
    """A length of time in the largest unit that it fills: 90.0 s, 3.5 h."""
    if seconds is None:
        return None
    unit, size = next(((unit, size) for unit, size in _UNITS if abs(seconds) >= size), _UNITS[-1])
    return f"{seconds / size:.1f} {unit}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
