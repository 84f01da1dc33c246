"""Sequential tests kept between looks: a look that finds the old order of outcomes with new ones behind it goes on from there."""

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from routing.experiments.betting import LossTest
from routing.experiments.mcnemar import McNemar, Verdict

_KEPT_MAX: Final = 256


class Outcomes(NamedTuple):
    """Columns of equal length: sequence, and of champion and candidate whether it is right (classes), or its loss (regressions).

    As arrays: a mirror that runs for months has millions of them.
    """

    sequence: Any
    live: Any
    mirror: Any

    def begins_with(self, other: "Outcomes") -> bool:
        seen = len(other.sequence)
        return all(np.array_equal(mine[:seen], theirs) for mine, theirs in zip(self, other, strict=True))


_NONE: Final = Outcomes(np.empty(0, np.int64), np.empty(0), np.empty(0))


class Paired(msgspec.Struct, kw_only=True):
    """One test and the outcomes it has seen, each unit once."""

    state: McNemar | LossTest
    outcomes: Outcomes
    decided_at: int | None = None

    def told(self) -> dict[str, Any]:
        """What the ledger shows. `decided_at_sequence`: the row of the lake with which the verdict was reached; more do not change it."""
        state = self.state
        return {
            **(self._of_classes(state) if isinstance(state, McNemar) else self._of_losses(state)),
            "alpha": state.alpha,
            "units": state.rows,
            "log_e": state.log_e,
            "p_value": state.p_value,
            "p_better": state.p_better,
            "p_worse": state.p_worse,
            "verdict": state.verdict.value,
            "decided_at_sequence": self.decided_at,
        }

    def onward(self, outcomes: Outcomes) -> "Paired":
        """The test over `outcomes`, which begin with those it has seen."""
        state, decided_at = self.state, self.decided_at
        new = (column[len(self.outcomes.sequence) :].tolist() for column in outcomes)
        for sequence, live, mirror in zip(*new, strict=True):
            state = state.observe(live, mirror)
            if decided_at is None and state.verdict is not Verdict.INCONCLUSIVE:
                decided_at = sequence
        return Paired(state=state, outcomes=outcomes, decided_at=decided_at)

    def _of_classes(self, state: McNemar) -> dict[str, Any]:
        units = state.rows
        return {
            "test": "sequential_mcnemar",
            "wins": state.wins,
            "losses": state.losses,
            "ties": state.ties,
            "difference": state.difference,
            "live_accuracy": int(self.outcomes.live.sum()) / units if units else None,
            "mirror_accuracy": int(self.outcomes.mirror.sum()) / units if units else None,
        }

    def _of_losses(self, state: LossTest) -> dict[str, Any]:
        """`difference`: the candidate's mean loss less the champion's. `scale`: what a larger difference counts as."""
        rows = state.rows
        live, mirror = (state.live_loss / rows, state.mirror_loss / rows) if rows else (None, None)
        return {
            "test": "betting_on_losses",
            "loss": "absolute_error",
            "difference": None if live is None or mirror is None else mirror - live,
            "live_loss": live,
            "mirror_loss": mirror,
            "scale": state.scale,
            "clipped": state.clipped,
        }


class PairedTests:
    """Bounded; a test that was let go is computed again from the first outcome, with the same result. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Paired] = {}

    def test(self, key: tuple[object, ...], start: McNemar | LossTest, outcomes: Outcomes) -> Paired:
        """The test that begins as `start` over `outcomes`, all of them, in the order of their sequence."""
        kept = self._kept.get((key, start))
        if kept is None or not outcomes.begins_with(kept.outcomes):
            kept = Paired(state=start, outcomes=_NONE)
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        test = self._kept[key, start] = kept.onward(outcomes)
        return test
