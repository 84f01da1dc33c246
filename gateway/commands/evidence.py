"""How the ledger, quality and single predictions look in a terminal: one line a mirror or variant, details below."""

from collections.abc import Mapping, Sequence
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
    screen().print(grid(subjects, (*_MEASURES, *measures), title=f"{reply['endpoint']}: {reply['kind']}{positive}"))
    for subject in reply["subjects"]:
        who = f"{subject['name']} {subject['version']}"
        if sure := subject.get("intervals"):
            show_lines(
                f"  {who}, 95%: " + ", ".join(f"{name} {low:.4g} to {high:.4g}" for name, (low, high) in sure.items())
            )
        parts = subject.get("segments") or ()
        shown_parts = [{name: value for name, value in part.items() if name not in _ASIDE} for part in parts]
        _show_part(shown_parts, f"{who} by {reply.get('segment_by')}")


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
