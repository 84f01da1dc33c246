"""How the ledger, quality and single predictions look in a terminal: one line a mirror or variant, details below."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from gateway.commands.talk import grid, screen, show_lines
from runoff.tables import shown

Answer = Mapping[str, Any]

_MEASURES: Final = ("role", "name", "model", "version", "n", "labelled", "coverage")
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
_FLIPS_SHOWN: Final = 5
_WORST_SHOWN: Final = 3
_QUANTILES_SHOWN: Final = ("0.01", "0.5", "0.99")
_LOG_E_SHOWN_MAX: Final = 690.0
_BY: Final = {"assigned": ", by assignment", "answered": ", by who answered"}


def show_ledger(reply: Answer) -> None:
    mirrors = reply["mirrors"]
    if not mirrors:
        show_lines(
            f"{reply['endpoint']}: nothing was mirrored yet; runoff mirror {reply['endpoint']} candidate models:/… --reason …"
        )
        return
    rows = [
        {
            "mirror": mirror["mirror"],
            "model": _version(mirror),
            "against": _version(mirror.get("against")),
            "rows": mirror["rows"],
            "agreement": _percent(mirror["agreement"]),
            "mean difference": mirror.get("score_difference", {}).get("mean"),
            "lag p99": mirror.get("lag_s", {}).get("p99"),
            "dropped": mirror["dropped"] or None,
            "verdict": mirror.get("evidence", {}).get("verdict"),
        }
        for mirror in mirrors
    ]
    screen().print(grid(rows, tuple(rows[0]), title=f"{reply['endpoint']}: mirrors against {reply['champion']}"))
    for mirror in mirrors:
        flips = mirror.get("flips") or []
        _show_mirror(mirror)
        for flip in flips[:_FLIPS_SHOWN]:
            show_lines(f"  {mirror['mirror']}: {flip['rows']} rows {flip['live']} → {flip['mirror']}")
        for pair in mirror.get("earlier") or []:
            rest = f"{pair['rows']} rows, agreement {_percent(pair['agreement'])}"
            show_lines(
                f"  {mirror['mirror']}: {_version(pair)} against {pair['live_model']}/{pair['live_version']}: {rest}"
            )
        if because := mirror.get("evidence", {}).get("because"):
            show_lines(f"  {mirror['mirror']}: {because}")
        _show_part(mirror.get("segments"), f"{mirror['mirror']} by segment")


def _show_mirror(mirror: Answer) -> None:
    """How sure the verdict is, where scores differ, and when."""
    lines = list[str]()
    evidence = mirror.get("evidence", {})
    if (log_e := evidence.get("log_e")) is not None:
        e_value = f"{math.exp(log_e):.4g}" if log_e < _LOG_E_SHOWN_MAX else "over 1e300"
        told = {"difference": evidence.get("difference"), "p": evidence.get("p_value")}
        difference, p_value = ("–" if value is None else f"{value:.4g}" for value in told.values())
        lines.append(
            f"{evidence['test']} over {evidence['units']} units: difference {difference}, e-value {e_value}, p {p_value}"
        )
    quantiles = mirror.get("score_difference", {}).get("quantiles", {})
    if any(quantiles.get(at) is not None for at in _QUANTILES_SHOWN):
        lines.append(f"score difference {_listed({at: quantiles[at] for at in _QUANTILES_SHOWN})}")
    lines += _in_time(mirror.get("over_time"), "agreement")
    lines += [
        f"furthest off {row['prediction_id']} row {row['row']}: {_answered(row, 'live')} → {_answered(row, 'mirror')}"
        for row in (mirror.get("worst") or ())[:_WORST_SHOWN]
    ]
    for line in lines:
        show_lines(f"  {mirror['mirror']}: {line}")


def _in_time(spans: Sequence[Answer] | None, measure: str) -> list[str]:
    """A measure in the order of time, at most 24 spans of equal length."""
    if not spans:
        return []
    first = datetime.fromtimestamp(spans[0]["unix_s"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    values = " ".join("–" if one.get(measure) is None else f"{one[measure]:.3g}" for one in spans)
    return [f"{measure} from {first} in {len(spans)} spans: {values}"]


def _answered(row: Answer, who: str) -> str:
    score = row.get(f"{who}_score")
    label = row.get(f"{who}_label")
    return (
        f"{label} ({score:.4g})"
        if label is not None and score is not None
        else shown(label if score is None else score)
    )


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {value:.4g}" for name, value in values.items())


def show_quality(reply: Answer) -> None:
    subjects = [
        {
            **{name: value for name, value in subject.items() if name not in _ASIDE},
            "coverage": _percent(subject["coverage"]),
            "label delay p50": _span(subject, "p50"),
            "p99": _span(subject, "p99"),
        }
        for subject in reply["subjects"]
    ]
    if not subjects:
        show_lines(f"{reply['endpoint']}: no predictions are stored yet")
        return
    measures = [
        name for name in subjects[0] if name not in _MEASURES and any(row.get(name) is not None for row in subjects)
    ]
    positive = f", positive class {reply['positive']}" if reply.get("positive") else ""
    screen().print(
        grid(
            subjects,
            (*_MEASURES, *measures),
            title=f"{reply['endpoint']}: {reply['kind']}{positive}{_BY.get(reply.get('by', ''), '')}",
        )
    )
    for subject in reply["subjects"]:
        who = f"{subject['name']} {subject['version']}"
        if sure := subject.get("intervals"):
            show_lines(
                f"  {who}, 95%: " + ", ".join(f"{name} {low:.4g} to {high:.4g}" for name, (low, high) in sure.items())
            )
        _show_subject(subject, f"  {who}, ")
        parts = subject.get("segments") or ()
        shown_parts = [{name: value for name, value in part.items() if name not in _ASIDE} for part in parts]
        _show_part(shown_parts, f"{who} by {reply.get('segment_by')}")

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


def _show_subject(subject: Answer, who: str) -> None:
    """What does not fit into a line of the table."""
    lines = list[str]()
    if losses := subject.get("quantile_loss"):
        lines.append(f"quantile loss: {_listed(losses)}")
    if bins := subject.get("calibration"):
        told = ", ".join(f"{one['mean_score']:.3g} → {one['share']:.3g} ({one['rows']})" for one in bins)
        lines.append(f"mean score → share that came true: {told}")
    measured = (subject.get("over_time") or [{}])[0]
    lines += _in_time(subject.get("over_time"), "mae" if "mae" in measured else "accuracy")
    lines += [
        f"most wrong {row['prediction_id']} row {row['row']}: {row['label']}, answered {_answered(row, 'answer')}"
        for row in (subject.get("worst") or ())[:_WORST_SHOWN]
    ]
    for line in lines:
        show_lines(who + line)


def _counted(counts: Mapping[str, int] | None, before: str = "") -> str:
    return ", ".join(f"{count} {before}{name}" for name, count in (counts or {}).items())


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
        _show_part(record["rows"], "rows")
    _show_part([{name: row.get(name) for name in _SHADOW} for row in reply["shadows"]], "shadows")
    _show_part(reply["labels"], "labels")


def _show_part(rows: Sequence[Answer] | None, title: str) -> None:
    if rows:
        columns = [name for name in rows[0] if any(row.get(name) not in (None, {}) for row in rows)]
        screen().print(grid(rows, columns, title=title))


def _version(model: Answer | None) -> str | None:
    return f"{model['model']}/{model['version']}" if model and model.get("model") else None


def _span(subject: Answer, quantile: str) -> str | None:
    """A delay in the largest unit that it fills: 90.0 s, 3.5 h."""
    delays = subject.get("label_delay_s")
    if not delays:
        return None
    seconds = delays[quantile]
    unit, size = next(((unit, size) for unit, size in _UNITS if abs(seconds) >= size), _UNITS[-1])
    return f"{seconds / size:.1f} {unit}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
