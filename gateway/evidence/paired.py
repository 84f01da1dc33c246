"""Sequential tests kept between looks: a look that finds the old order of outcomes with new ones behind it goes on from there."""

from typing import Any, Final, TypeVar

import msgspec

from routing.experiments.betting import LossTest
from routing.experiments.mcnemar import McNemar, Verdict

_KEPT_MAX: Final = 256


class PairedTest(msgspec.Struct, kw_only=True):
    """One test of classes and the outcomes it has seen: (sequence, champion is right, candidate is right), each unit once."""

    state: McNemar
    outcomes: list[tuple[int, bool, bool]]
    decided_at: int | None = None

    def told(self) -> dict[str, Any]:
        """What the ledger shows. `decided_at_sequence`: the row of the lake with which the verdict was reached; more do not change it."""
        state = self.state
        units = state.rows
        return {
            "test": "sequential_mcnemar",
            "alpha": state.alpha,
            "units": units,
            "wins": state.wins,
            "losses": state.losses,
            "ties": state.ties,
            "difference": state.difference,
            "live_accuracy": sum(live for _, live, _ in self.outcomes) / units if units else None,
            "mirror_accuracy": sum(mirror for _, _, mirror in self.outcomes) / units if units else None,
            "log_e": state.log_e,
            "p_value": state.p_value,
            "p_better": state.p_better,
            "p_worse": state.p_worse,
            "verdict": state.verdict.value,
            "decided_at_sequence": self.decided_at,
        }

    def onward(self, outcomes: list[tuple[int, bool, bool]]) -> "PairedTest":
        """The test over `outcomes`, which begin with those it has seen."""
        state, decided_at, ties = self.state, self.decided_at, 0
        for sequence, live, mirror in outcomes[len(self.outcomes) :]:
            if live == mirror:
                ties += 1
                continue
            state = state.observe(champion_is_right=live, candidate_is_right=mirror)
            if decided_at is None and state.verdict is not Verdict.INCONCLUSIVE:
                decided_at = sequence
        state = msgspec.structs.replace(state, ties=state.ties + ties)
        return PairedTest(state=state, outcomes=outcomes, decided_at=decided_at)


class PairedLossTest(msgspec.Struct, kw_only=True):
    """One test of a regression and the losses it has seen: (sequence, champion's, candidate's), each unit once."""

    state: LossTest
    outcomes: list[tuple[int, float, float]]
    decided_at: int | None = None

    def told(self) -> dict[str, Any]:
        """What the ledger shows. `difference`: the candidate's mean loss less the champion's. `scale`: what a larger difference counts as."""
        state = self.state
        rows = state.rows
        live, mirror = (state.live_loss / rows, state.mirror_loss / rows) if rows else (None, None)
        return {
            "test": "betting_on_losses",
            "loss": "absolute_error",
            "alpha": state.alpha,
            "units": rows,
            "difference": None if live is None or mirror is None else mirror - live,
            "live_loss": live,
            "mirror_loss": mirror,
            "scale": state.scale,
            "clipped": state.clipped,
            "log_e": state.log_e,
            "p_value": state.p_value,
            "p_better": state.p_better,
            "p_worse": state.p_worse,
            "verdict": state.verdict.value,
            "decided_at_sequence": self.decided_at,
        }

    def onward(self, outcomes: list[tuple[int, float, float]]) -> "PairedLossTest":
        """The test over `outcomes`, which begin with those it has seen."""
        state, decided_at = self.state, self.decided_at
        for sequence, live, mirror in outcomes[len(self.outcomes) :]:
            state = state.observe(champion_loss=live, candidate_loss=mirror)
            if decided_at is None and state.verdict is not Verdict.INCONCLUSIVE:
                decided_at = sequence
        return PairedLossTest(state=state, outcomes=outcomes, decided_at=decided_at)


_Test = TypeVar("_Test", PairedTest, PairedLossTest)


class PairedTests:
    """Bounded; a test that was let go is computed again from the first outcome, with the same result. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], PairedTest | PairedLossTest] = {}

    def test(self, key: tuple[object, ...], alpha: float, outcomes: list[tuple[int, bool, bool]]) -> PairedTest:
        """The test of classes over `outcomes`, all of them, in the order of their sequence."""
        return self._test((key, alpha, "classes"), PairedTest(state=McNemar(alpha=alpha), outcomes=[]), outcomes)

    def loss_test(
        self, key: tuple[object, ...], alpha: float, outcomes: list[tuple[int, float, float]]
    ) -> PairedLossTest:
        """The test of losses over `outcomes`, all of them, in the order of their sequence."""
        return self._test((key, alpha, "losses"), PairedLossTest(state=LossTest(alpha=alpha), outcomes=[]), outcomes)

    def _test(self, key: tuple[object, ...], start: _Test, outcomes: list[Any]) -> _Test:
        kept = self._kept.get(key)
        if not isinstance(kept, type(start)) or outcomes[: len(kept.outcomes)] != kept.outcomes:
            kept = start
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        test = self._kept[key] = kept.onward(outcomes)
        return test
