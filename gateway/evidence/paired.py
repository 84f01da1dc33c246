"""Sequential McNemar tests kept between looks: a look that finds the old order of outcomes with new ones behind it goes on from there."""

from typing import Any, Final

import msgspec

from routing.experiments.mcnemar import McNemar, Verdict

_KEPT_MAX: Final = 256


class PairedTest(msgspec.Struct, kw_only=True):
    """One test and the outcomes it has seen: (sequence, champion is right, candidate is right), each unit once."""

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


class PairedTests:
    """Bounded; a test that was let go is computed again from the first outcome, with the same result. For one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], PairedTest] = {}

    def test(self, key: tuple[object, ...], alpha: float, outcomes: list[tuple[int, bool, bool]]) -> PairedTest:
        """The test over `outcomes`, all of them, in the order of their sequence."""
        kept = self._kept.get((key, alpha))
        if kept is None or outcomes[: len(kept.outcomes)] != kept.outcomes:
            kept = PairedTest(state=McNemar(alpha=alpha), outcomes=[])
        state, decided_at = kept.state, kept.decided_at
        ties = 0
        for sequence, live, mirror in outcomes[len(kept.outcomes) :]:
            if live == mirror:
                ties += 1
                continue
            state = state.observe(champion_is_right=live, candidate_is_right=mirror)
            if decided_at is None and state.verdict is not Verdict.INCONCLUSIVE:
                decided_at = sequence
        state = msgspec.structs.replace(state, ties=state.ties + ties)
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        test = self._kept[key, alpha] = PairedTest(state=state, outcomes=outcomes, decided_at=decided_at)
        return test
