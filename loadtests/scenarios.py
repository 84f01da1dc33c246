"""The scenarios that `loadtests/locustfile.py` plays: how many callers there are at each moment of a run, and what they do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`share`: the part of all callers that asks at a moment, which goes from 0 to 1 over the run; `duration_s` where no other is given."""

    means: str
    share: Callable[[float], float]
    duration_s: float = 60.0
    asks_all: bool = False
    """Every request goes to another of the endpoints, not all to one."""
    tells_truth: bool = False
    """One more caller posts labels for what the others were answered."""

    def callers(self, at_s: float, duration_s: float, peak: int) -> int | None:
        """How many callers there should be now, at least one; None: the run is over."""
        return None if at_s >= duration_s else max(1, round(self.share(at_s / duration_s) * peak))


def _ramp(moment: float) -> float:
    return min(1.0, moment / 0.8)


def _spike(moment: float) -> float:
    return 1.0 if 0.4 <= moment < 0.6 else 0.2


SCENARIOS: Final = {
    "steady": Scenario(means="all callers from the start", share=lambda _: 1.0),
    "ramp": Scenario(means="more and more callers for four fifths of the run, then all", share=_ramp, duration_s=120.0),
    "spike": Scenario(means="one caller in five, and all of them for a fifth of the run", share=_spike),
    "soak": Scenario(means="half of the callers for an hour", share=lambda _: 0.5, duration_s=3600.0),
    "mixed": Scenario(means="all callers, each request to another endpoint", share=lambda _: 1.0, asks_all=True),
    "labels": Scenario(
        means="all callers, and labels for what they were answered", share=lambda _: 1.0, tells_truth=True
    ),
}
