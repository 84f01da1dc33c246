"""The live view: one screen that is redrawn in a terminal, a plain line now and then where there is none."""

import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gateway.demo.models import CANDIDATE
from gateway.demo.watch import Quality, Sight

COLOURS: Final = {"champion": "dodger_blue2", "challenger": "dark_orange3", CANDIDATE: "green4"}
_PLAIN_EVERY_S: Final = 5.0
_NEW_YORK_S: Final = 4 * 3600
_BAR: Final = 26
_SHARE_BAR: Final = 16
_WIDE: Final = 96


class View:
    """Use it in a `with`; `note` prints a line that stays above the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._plain_at = 0.0

    def show(self, sight: Sight) -> None:
        if self._live is not None:
            self._live.update(screen(sight), refresh=True)
        elif time.monotonic() - self._plain_at >= _PLAIN_EVERY_S or sight.progress.event == "done":
            self._plain_at = time.monotonic()
            self._console.print(plain(sight), highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._console.print(Text.assemble(("▸ ", "bold"), text), soft_wrap=self._live is None)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)


def plain(sight: Sight) -> str:
    """The same as one line, for files and pipes."""
    progress = sight.progress
    shares = " ".join(f"{name} {share:.0%}" for name, share in sight.shares.items())
    quality = " ".join(f"{row.name} {_percent(row.accuracy)}" for row in sight.quality)
    parts = [
        _when(sight),
        f"{progress.asked:,}/{progress.total:,} asked, {progress.failed:,} failed, {progress.labels:,} labels",
        f"{sight.asked_per_s:,.0f}/s, p50 {_ms(progress.latency_p50_ms)} p99 {_ms(progress.latency_p99_ms)}",
        f"split {shares}",
        f"agreement {_percent(sight.agreement)}",
        f"right: {quality}" if quality else "",
        f"candidate: {sight.evidence.verdict}, odds {_odds(sight.evidence.odds)}",
    ]
    return " | ".join(part for part in parts if part)


def screen(sight: Sight) -> RenderableType:
    """Progress, traffic and split side by side, quality by model, the paired evidence."""
    progress = sight.progress
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(_when(sight), style="bold"),
        ProgressBar(total=max(progress.total, 1), completed=progress.asked, width=_BAR, complete_style="grey82"),
        f"{progress.asked:,} of {progress.total:,} flights",
    )
    upper = Table.grid(expand=True, padding=(0, 1))
    upper.add_column(ratio=1)
    upper.add_column(ratio=1)
    upper.add_row(_traffic(sight), _split(sight))
    body = Group(head, upper, _quality(sight), _evidence(sight))
    return Panel(body, title="Runoff: July 2013, live", title_align="left", border_style="grey50", width=_WIDE)


def _traffic(sight: Sight) -> RenderableType:
    progress = sight.progress
    rows = Table.grid(padding=(0, 2))
    rows.add_row("requests", Text(f"{sight.asked_per_s:,.0f} a second", style="bold"))
    rows.add_row("answered", Text.assemble(f"{progress.answered:,}, ", _failed(progress.failed)))
    rows.add_row("at the caller", f"p50 {_ms(progress.latency_p50_ms)}, p99 {_ms(progress.latency_p99_ms)}")
    rows.add_row("in the gateway", f"99% within {_ms(sight.p99_gateway_ms)}")
    rows.add_row("by protocol", "\n".join(f"{name:<8}{n:>7,}" for name, n in progress.by_protocol.items()))
    rows.add_row("recorded", f"{sight.recorded:,}; labels {progress.labels:,}")
    return Panel(rows, title="traffic", title_align="left", border_style="grey37")


def _split(sight: Sight) -> RenderableType:
    rows = Table.grid(padding=(0, 1))
    for name, share in sight.shares.items():
        colour = COLOURS.get(name, "white")
        answered = sight.progress.by_variant.get(name, 0)
        bar = Text("█" * round(share * _SHARE_BAR) or "▏", style=colour)
        rows.add_row(Text(name, style=colour), f"{share:.0%}", bar, f"{answered:,}")
    dropped = f", {sight.mirror_dropped:,} dropped" if sight.mirror_dropped else ""
    rows.add_row(Text(CANDIDATE, style=COLOURS[CANDIDATE]), "sees", Text("all"), f"{sight.mirrored:,}{dropped}")
    why = Text(f"revision {sight.revision}: {sight.reason}", style="italic", overflow="fold")
    return Panel(Group(rows, why), title="split and mirror", title_align="left", border_style="grey37")


def _quality(sight: Sight) -> RenderableType:
    rows = Table(box=None, padding=(0, 2), header_style="grey58")
    for column in ("model", "shown", "truth known"):
        rows.add_column(column, justify="left" if column == "model" else "right")
    rows.add_column("right", justify="right")
    rows.add_column("", min_width=_BAR)
    rows.add_column("log loss", justify="right")
    for row in sorted(sight.quality, key=_order):
        colour = COLOURS.get(row.name, "white")
        rows.add_row(
            Text(row.name, style=colour),
            f"{row.n:,}",
            f"{row.labelled:,}",
            Text(_percent(row.accuracy), style="bold"),
            Text(_bar(row.accuracy), style=colour),
            "–" if row.log_loss is None else f"{row.log_loss:.3f}",
        )
    return Panel(
        rows if sight.quality else Text("waiting for the first landings"),
        title="quality so far",
        title_align="left",
        border_style="grey37",
    )


def _evidence(sight: Sight) -> RenderableType:
    test = sight.evidence
    said = Text.assemble(
        f"same answer on {_percent(sight.agreement)} of the rows.  Only the candidate right ",
        (f"{test.wins:,}", f"bold {COLOURS[CANDIDATE]}"),
        ", only the champion ",
        (f"{test.losses:,}", f"bold {COLOURS['champion']}"),
        f", of {test.units:,}.\nThe candidate is ",
        (test.verdict if test.verdict != "inconclusive" else "not decided yet", "bold"),
        f"; odds against chance {_odds(test.odds)}.",
    )
    return Panel(said, title="champion against candidate, same flights", title_align="left", border_style="grey37")


def _order(row: Quality) -> int:
    return list(COLOURS).index(row.name) if row.name in COLOURS else len(COLOURS)


def _bar(accuracy: float | None) -> str:
    """From one half, which a coin has, to one."""
    return "" if accuracy is None else "█" * max(1, round((accuracy - 0.5) * 2 * _BAR))


def _failed(failed: int) -> Text:
    return Text(f"{failed:,} failed", style="bold red" if failed else "")


def _when(sight: Sight) -> str:
    """New York's clock."""
    if not sight.progress.at:
        return "July 1"
    there = datetime.fromtimestamp(datetime.fromisoformat(sight.progress.at).timestamp() - _NEW_YORK_S, tz=UTC)
    return f"{there:%B} {there.day:>2}, {there:%H:%M}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _ms(milliseconds: float | None) -> str:
    return "–" if milliseconds is None else f"{milliseconds:.3g} ms"


def _odds(odds: float) -> str:
    return f"10^{len(f'{odds:.0f}') - 1} to 1" if odds >= 1e5 else f"{odds:,.0f} to 1"
