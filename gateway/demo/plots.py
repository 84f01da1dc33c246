"""The report's pictures: each function answers one figure as SVG text. Colours and marks differ, so that neither is needed alone."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.demo.estimates import Estimate
from gateway.demo.findings import ALPHA, ARMS, Arm, Paired

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by eyes of every kind.
COLOURS: Final = {"champion": "#0072b2", "challenger": "#d55e00", "candidate": "#009e73"}
_MARKS: Final = {"champion": "o", "challenger": "s", "candidate": "^"}
_PROTOCOLS: Final = {
    "v2-rest": ("#4a4a68", "V2 over REST"),
    "mlflow": ("#b5651d", "MLflow"),
    "v2-grpc": ("#2a9d8f", "V2 over gRPC"),
}
_INK: Final = "#1d2433"
_QUIET: Final = "#5b6475"
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "runoff-demo",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _QUIET,
    "axes.edgecolor": "#c3c9d4",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e9ef",
    "grid.linewidth": 0.8,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of the split: from `revision` on the challenger's planned share is `share`."""

    revision: int
    share: float
    reason: str


def accuracy(arms: Sequence[Arm]) -> str:
    """Each model's accuracy over all of July, with its 95% interval."""
    with _figure(8.6, 0.9 + 0.55 * len(arms)) as (figure, axes, made):
        for place, arm in enumerate(reversed(arms)):
            _whisker(axes, arm.accuracy, place, arm.name)
        axes.set_yticks(range(len(arms)), [arm.name for arm in reversed(arms)])
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("right answers, % of all flights that landed")
        axes.tick_params(axis="y", labelcolor=_INK, length=0)
        _save(figure, made)
    return made.getvalue()


def evidence(paired: Paired) -> str:
    """How the evidence grew, flight by flight."""
    bound = np.log10(2 / ALPHA)
    steps = paired.steps
    with _figure(8.6, 3.6) as (figure, axes, made):
        axes.plot(steps["n"], steps["log10_better"], color=COLOURS["candidate"], label="candidate is better")
        axes.plot(steps["n"], steps["log10_worse"], color=COLOURS["champion"], ls="--", label="candidate is worse")
        axes.axhline(bound, color=_INK, lw=1, ls=":")
        axes.annotate(
            f"decided at {2 / ALPHA:.0f} to 1", (1, bound), (-4, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", color=_INK,
        )  # fmt: skip
        if paired.decided_at is not None:
            axes.plot([paired.decided_at], [bound], marker="o", ms=8, mfc="white", mec=_INK, mew=1.6, zorder=5)
        axes.set_xlabel("flights whose truth has come (each aircraft once a day)")
        axes.set_ylabel("odds against chance")
        top = int(max(np.ceil(steps[["log10_better", "log10_worse"]].to_numpy().max()), 2)) if len(steps) else 2
        ticks = range(0, top + 1, max(1, -(-top // 6)))
        axes.set_yticks(
            list(ticks), ["1" if tick == 0 else f"$10^{{{tick}}}$" if tick > 3 else f"{10**tick:,}" for tick in ticks]
        )
        axes.set_ylim(min(-0.05 * top, -0.5), 1.05 * top)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.margins(x=0.01)
        axes.legend(loc="upper left")
        _save(figure, made)
    return made.getvalue()


def daily(rows: "pd.DataFrame") -> str:
    """Each arm's accuracy by day of July, with bands."""
    with _figure(8.6, 3.6) as (figure, axes, made):
        for arm in ARMS:
            of = rows[rows["arm"] == arm]
            axes.fill_between(of["day"], 100 * of["low"], 100 * of["high"], color=COLOURS[arm], alpha=0.13, lw=0)
            axes.plot(of["day"], 100 * of["accuracy"], color=COLOURS[arm], marker=_MARKS[arm], label=arm)
        axes.set_xlabel("day of July 2013")
        axes.set_ylabel("right answers, %")
        _days(axes, rows["day"])
        axes.legend(loc="best")
        _save(figure, made)
    return made.getvalue()


def calibration(rows: "pd.DataFrame") -> str:
    """What each arm promised against what happened."""
    with _figure(5.2, 4.6) as (figure, axes, made):
        axes.plot([0, 100], [0, 100], color=_QUIET, lw=1, ls=":")
        axes.annotate("as promised", (78, 80), rotation=38, color=_QUIET, fontsize=10, ha="center", va="bottom")
        for arm in ARMS:
            of = rows[rows["arm"] == arm]
            spread = 100 * np.abs(np.vstack([of["actual"] - of["low"], of["high"] - of["actual"]]))
            axes.errorbar(
                100 * of["expected"], 100 * of["actual"], yerr=spread, color=COLOURS[arm], marker=_MARKS[arm], elinewidth=1, label=arm
            )  # fmt: skip
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="promised chance of being late, %", ylabel="were late, %")
        axes.set_aspect("equal")
        axes.legend(loc="upper left")
        _save(figure, made)
    return made.getvalue()


def split(rows: "pd.DataFrame", moves: Sequence[Move], moved_at: Sequence[Any]) -> str:
    """Who got which share of the flights, and when somebody moved it; `moved_at` are the instants of `moves` after the first."""
    from matplotlib import dates

    with _figure(8.6, 3.2) as (figure, axes, made):
        for arm in ("champion", "challenger"):
            of = rows[rows["variant"] == arm]
            axes.plot(of["since"], 100 * of["share"], color=COLOURS[arm], lw=1.6, drawstyle="steps-post", label=arm)
        ends = [rows["since"].min(), *moved_at, rows["since"].max()]
        for move, start, end in zip(moves, ends, ends[1:], strict=False):
            axes.hlines([100 * move.share, 100 - 100 * move.share], start, end, color=_QUIET, lw=1, ls="--")
        for move, at in zip(moves[1:], moved_at, strict=False):
            axes.axvline(at, color=_INK, lw=1)
            axes.annotate(
                f"revision {move.revision}", (at, 1), (5, -2), xycoords=("data", "axes fraction"), textcoords="offset points", va="top"
            )  # fmt: skip
        axes.set(
            ylim=(0, 100), ylabel="share of flights, %", xlabel="day of July 2013, half a day a step; dashed: as set"
        )
        axes.xaxis.set_major_formatter(lambda value, _: str(dates.num2date(value).day))  # type: ignore[no-untyped-call]  # matplotlib has none
        axes.margins(x=0.01)
        axes.legend(loc="upper right")
        _save(figure, made)
    return made.getvalue()


def agreement(rows: "pd.DataFrame") -> str:
    """How often the candidate said the same as whoever answered."""
    with _figure(8.6, 2.8) as (figure, axes, made):
        for live in ("champion", "challenger"):
            of = rows[rows["live"] == live]
            axes.plot(
                of["day"], 100 * of["agreement"], color=COLOURS[live], marker=_MARKS[live], label=f"with the {live}"
            )
        axes.set_xlabel("day of July 2013")
        axes.set_ylabel("same answer, %")
        axes.set_ylim(top=100)
        _days(axes, rows["day"])
        axes.legend(loc="best")
        _save(figure, made)
    return made.getvalue()


def latency(rows: "pd.DataFrame") -> str:
    """How long requests took, inside the gateway and as the applications saw it."""
    from matplotlib.ticker import LogLocator, NullLocator

    with _figure(8.6, 3.2) as (figure, axes, made):
        seen = rows[["gateway_ms", "client_ms"]].to_numpy(float)
        low, high = max(0.02, float(np.nanquantile(seen, 0.0005))), float(np.nanquantile(seen, 0.9995))
        bins = np.geomspace(low, max(high, 2 * low), 60).tolist()
        for protocol, (colour, name) in _PROTOCOLS.items():
            of = rows[rows["protocol"] == protocol]
            if len(of):
                share = np.full(len(of), 100 / len(of))
                axes.hist(of["gateway_ms"], bins, weights=share, color=colour, alpha=0.25, histtype="stepfilled")
                axes.hist(
                    of["gateway_ms"],
                    bins,
                    weights=share,
                    color=colour,
                    histtype="step",
                    lw=1.4,
                    label=f"{name}, in the gateway",
                )
                axes.hist(
                    of["client_ms"], bins, weights=share, color=colour, histtype="step", lw=1.4, ls="--", label=f"{name}, at the caller"
                )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="milliseconds (logarithmic)", ylabel="% of requests")
        axes.legend(fontsize=9)
        _save(figure, made)
    return made.getvalue()


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple["Figure", "Axes", io.StringIO]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot(), io.StringIO()


def _save(figure: "Figure", made: io.StringIO) -> None:
    """Without the date, so that the same lake gives the same report."""
    figure.savefig(made, format="svg", transparent=True, metadata={"Date": None})


def _whisker(axes: "Axes", estimate: Estimate, place: float, arm: str) -> None:
    axes.hlines(place, 100 * estimate.low, 100 * estimate.high, color=COLOURS[arm], lw=3)
    axes.plot([100 * estimate.value], [place], color=COLOURS[arm], marker=_MARKS[arm], ms=9)
    axes.annotate(
        f"{100 * estimate.value:.1f}%", (100 * estimate.high, place), (8, 0), textcoords="offset points", va="center", color=_INK
    )  # fmt: skip


def _days(axes: "Axes", days: "pd.Series[int]") -> None:
    first, last = int(days.min()), int(days.max())
    axes.set_xticks(range(first, last + 1, 1 if last - first < 16 else 3))
