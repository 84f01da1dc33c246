"""What the numbers say, in sentences: for the head of the report and the last lines of the terminal. Every claim follows from `Findings`."""

from dataclasses import dataclass
from typing import Final

from gateway.demo.estimates import Estimate
from gateway.demo.findings import ALPHA, Arm, Findings, Paired
from gateway.demo.models import CANDIDATE, RECIPES
from routing.experiments.mcnemar import Verdict as Outcome

_JULY_DAYS: Final = 31

CAVEATS: Final = (
    (
        "This is one July. Flights of a day share its weather, so the days are fewer witnesses than the flights; the count of days above "
        "is the more careful reading."
    ),
    (
        "The sequential test was put to one question, candidate against champion, before the first flight. The other comparisons are "
        "intervals at the end of the replay, an end that was fixed beforehand."
    ),
    (
        "Right or wrong at one half is one measure. Whoever acts at another threshold should look at the promises (calibration) first."
    ),
    (
        "A mirror's quality may decide here because lateness does not depend on what anybody predicted (label: exogenous). Where the "
        "answer changes the outcome, as in lending, only the split can tell."
    ),
    (
        "Time was compressed: requests came in their true order and rhythm, some 30,000 times as fast. Latencies are of this machine, "
        "which also ran the applications."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`best` is the model to make champion, None when nothing is shown to be better than the champion that serves."""

    headline: str
    sentences: tuple[str, ...]
    best: str | None


def verdict(findings: Findings) -> Verdict:
    """Which model did better, and how sure that is."""
    better = [name for name in ("challenger", CANDIDATE) if _is_better(findings, name)]
    sentences = [
        *(_compared(findings, name) for name in ("challenger", CANDIDATE) if (name, "champion") in findings.accuracy),
        *_runners_up(findings),
    ]
    if not better:
        return Verdict(
            headline="No model is shown to be better than the champion yet",
            sentences=(*sentences, _why(findings)),
            best=None,
        )
    if len(better) == 1:
        return Verdict(
            headline=f"The {better[0]} did better than the champion",
            sentences=(*sentences, _why(findings)),
            best=better[0],
        )
    best = _better_of_two(findings)
    if best is None:
        free = "As nothing tells the two apart, the choice is free: the challenger, which has already answered live."
        return Verdict(
            headline="Both newer models beat the champion; July does not tell them apart",
            sentences=(*sentences, free, _why(findings)),
            best="challenger",
        )
    return Verdict(
        headline=f"Both newer models beat the champion, and the {best} did best",
        sentences=(*sentences, _why(findings)),
        best=best,
    )


def opening(findings: Findings) -> str:
    summary = findings.summary
    when = "July 2013" if summary["days"] == _JULY_DAYS else f"the first {summary['days']:.0f} days of July 2013"
    return (
        f"Will this flight arrive more than 15 minutes late? {summary['asked']:,.0f} flights that should have left New York in {when} were "
        f"asked about at their scheduled minute, within {summary['seconds']:.0f} seconds of ours, over REST and gRPC. When each had landed "
        "the gateway was told."
    )


def paired(test: Paired) -> str:
    state = test.state
    split = f"On {state.wins + state.losses:,} of {state.rows:,} flights exactly one of the two was right: the candidate {state.wins:,} times, the champion {state.losses:,} times."
    if test.decided_at is None:
        said = "That does not decide between them yet, and no data is never a pass."
    else:
        said = (
            f"After {test.decided_at:,} flights, on July {test.decided_day}, that was decided: the candidate is {state.verdict}. Were neither "
            f"better, one look or a thousand would show this in fewer than {ALPHA:.0%} of all Julys."
        )
    days = f"It was ahead on {test.days_ahead} of {test.days} days and behind on {test.days_behind}."
    return f"{split} {said} {days}"


def quality(findings: Findings) -> str:
    return " ".join(
        f"The {arm.name} expected {arm.expected_late:.0%} to be late; {arm.actual_late:.0%} of what it saw was."
        for arm in findings.arms.values()
    )


def traffic(findings: Findings) -> str:
    summary = findings.summary
    return (
        f"{summary['asked'] / max(summary['seconds'], 1e-9):,.0f} requests a second, {summary['failed']:,.0f} of them failed. An aircraft "
        f"keeps its variant for a day: {summary['units']:,.0f} aircraft-days were dealt. {summary['unit_missing']:,.0f} flights named no "
        "aircraft; they were answered, and stayed outside the experiment."
    )


# ---------------------------------------------------------------- captions

READ_CALIBRATION: Final = (
    "Flights in tenths by promised chance: on the dotted line a promise is kept; above it more were late than promised."
)


def read_accuracy(findings: Findings) -> str:
    parts = [f"{arm.name} {_percent(arm.accuracy)}" for arm in findings.arms.values()]
    return f"Right answers with 95% intervals: {'; '.join(parts)}."


def read_evidence(test: Paired) -> str:
    last = float(test.steps["log10_better"].iloc[-1]) if len(test.steps) else 0.0
    ends = f"10 to the {last:.0f}" if last >= 4 else f"{10**last:,.0f}" if last >= 0 else f"{10**last:.2g}"
    return (
        f"Odds that the candidate's lead is no chance, as they stood with every labelled flight; at the end {ends} to 1. Leaps and falls "
        "are single days, for the flights of a day share its weather: count the days as well."
    )


def read_agreement(findings: Findings) -> str:
    return (
        f"The candidate gave the same answer on {findings.summary['agreement']:.1%} of the flights; on "
        f"{findings.summary['disagreements']:,.0f} it would have said something else."
    )


def read_latency(findings: Findings) -> str:
    summary = findings.summary
    return (
        f"Inside the gateway half of the requests took at most {summary['p50_ms']:.2f} ms and 99% at most {summary['p99_ms']:.2f} ms; "
        f"the candidate's answers were recorded {summary['lag_p50_ms']:,.0f} ms later (median), where they delay nobody."
    )


# ---------------------------------------------------------------- sentences


def _compared(findings: Findings, name: str) -> str:
    arm, champion = findings.arms[name], findings.arms["champion"]
    gap = findings.accuracy[name, "champion"]
    return (
        f"The {name} was right about {_percent(arm.accuracy)} of the flights, the champion about {_percent(champion.accuracy)}: "
        f"{_points(gap)} ({_sure(gap)})."
    )


def _runners_up(findings: Findings) -> list[str]:
    said = []
    if findings.paired is not None:
        said.append(paired(findings.paired))
        if findings.paired.state.verdict is Outcome.BETTER and not _is_better(findings, CANDIDATE):
            said.append(
                "The test decided early; at the end the interval still holds zero, so nobody is promoted on this."
            )
    gap = findings.accuracy.get((CANDIDATE, "challenger"))
    if gap is not None:
        loss = findings.log_loss[CANDIDATE, "challenger"]
        if not _tells(gap) and not _tells(loss):
            said.append(
                f"Between candidate and challenger July does not decide: {_points(gap)} in right answers, {_signed(loss.value, 3)} in log loss, "
                "both within what chance does."
            )
        else:
            said.append(
                f"Candidate against challenger: {_points(gap)} in right answers ({_sure(gap)}), {_signed(loss.value, 3)} in log loss "
                f"({_signed(loss.low, 3)} to {_signed(loss.high, 3)})."
            )
    return said


def _why(findings: Findings) -> str:
    """What the models learned from, against what came."""
    champion = findings.arms.get("champion")
    if champion is None:
        return "No flight that the champion answered has landed yet."
    recipe = RECIPES[0]
    return (
        f"Why: the champion learned from {recipe.months}. It expected {champion.expected_late:.0%} of its flights to be late, and "
        f"{champion.actual_late:.0%} were."
    )


def _is_better(findings: Findings, name: str) -> bool:
    """By its interval at the end; the candidate by the sequential test as well, which it must have passed before."""
    gap = findings.accuracy.get((name, "champion"))
    if name == CANDIDATE and (findings.paired is None or findings.paired.state.verdict is not Outcome.BETTER):
        return False
    return gap is not None and gap.low > 0


def _better_of_two(findings: Findings) -> str | None:
    """Candidate or challenger, by log loss, else by right answers; None where neither tells them apart."""
    loss, right = findings.log_loss[CANDIDATE, "challenger"], findings.accuracy[CANDIDATE, "challenger"]
    if _tells(loss):
        return CANDIDATE if loss.high < 0 else "challenger"
    if _tells(right):
        return CANDIDATE if right.low > 0 else "challenger"
    return None


def _tells(gap: Estimate) -> bool:
    """Whether the interval leaves out zero."""
    return gap.low > 0 or gap.high < 0


def _signed(value: float, digits: int) -> str:
    """With a sign, and a minus that looks like one."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}%"


def _points(gap: Estimate) -> str:
    return f"{_signed(100 * gap.value, 1)} points"


def _sure(gap: Estimate) -> str:
    return f"95% interval {_signed(100 * gap.low, 1)} to {_signed(100 * gap.high, 1)}"


def table(arms: dict[str, Arm]) -> list[tuple[str, str, str, str]]:
    """Name, right answers, log loss, flights: for the terminal."""
    return [(arm.name, _percent(arm.accuracy), f"{arm.log_loss.value:.3f}", f"{arm.rows:,}") for arm in arms.values()]
