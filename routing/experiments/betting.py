"""Champion against candidate by a loss of theirs on the same rows (regression): betting on the mean of bounded differences.

    K ← K·(1 + λ·(d + δ)),    λ = clip(μ / (σ² + μ²), 0, ½),    d in [−1, 1]; μ and σ² of d + δ from the rows before this one

Against H0 "the mean of d is at most −δ" K is a supermartingale whatever the distribution of d, so by Ville's inequality it ever
reaches 1/α with probability at most α. Source: Waudby-Smith and Ramdas, Estimating Means of Bounded Random Variables by Betting,
JRSS B 2024 (arXiv 2010.09686).
"""

import math
from typing import Final

import msgspec

from routing.experiments.mcnemar import Verdict

WARM_UP: Final = 50
"""Rows that say how large differences are; no bet is made on them."""


class Capital(msgspec.Struct, frozen=True, kw_only=True):
    """One bet, as a state; `observe` gives the next. `log_k_max` is the largest capital so far, which makes the p-value valid at every moment."""

    margin: float = 0.0
    count: int = 0
    total: float = 0.0
    deviations: float = 0.0
    log_k: float = 0.0
    log_k_max: float = 0.0

    def observe(self, difference: float) -> "Capital":
        """`difference` in [−1, 1]: what the champion lost more than the candidate."""
        before = self.count + 1
        mean = self.total / before + self.margin
        variance = (self.deviations + 0.25) / before
        stake = min(0.5, max(0.0, mean / (variance + mean * mean)))
        log_k = self.log_k + math.log1p(stake * (difference + self.margin))
        total = self.total + difference
        return Capital(
            margin=self.margin,
            count=self.count + 1,
            total=total,
            deviations=self.deviations + (difference - total / (self.count + 1)) ** 2,
            log_k=log_k,
            log_k_max=max(self.log_k_max, log_k),
        )


class LossTest(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one test; `observe` gives the next. Restarting from a stored state, or from the first row, gives the same.

    Losses have no bound, so the largest difference among the first `WARM_UP` rows becomes the `scale`: what differs more counts as
    that much. The scale is set before the first bet, so the test is exact for the mean of what is counted. The two one-sided tests
    share `alpha` half and half; a verdict once reached is kept.
    """

    alpha: float = 0.05
    rows: int = 0
    scale: float = 0.0
    clipped: int = 0
    live_loss: float = 0.0
    mirror_loss: float = 0.0
    better: Capital = Capital()
    worse: Capital = Capital()
    verdict: Verdict = Verdict.INCONCLUSIVE

    def observe(self, champion_loss: float, candidate_loss: float) -> "LossTest":
        """The state after one more labelled row of a unit that has not entered before."""
        difference = champion_loss - candidate_loss
        state = msgspec.structs.replace(
            self,
            rows=self.rows + 1,
            live_loss=self.live_loss + champion_loss,
            mirror_loss=self.mirror_loss + candidate_loss,
        )
        if self.rows < WARM_UP or self.scale == 0.0:
            return msgspec.structs.replace(state, scale=max(self.scale, abs(difference)))
        bounded = min(1.0, max(-1.0, difference / self.scale))
        better, worse = self.better.observe(bounded), self.worse.observe(-bounded)
        return msgspec.structs.replace(
            state,
            clipped=self.clipped + (abs(difference) > self.scale),
            better=better,
            worse=worse,
            verdict=self._verdict(better.log_k_max, worse.log_k_max),
        )

    @property
    def p_better(self) -> float:
        """Of "the candidate loses no less"; valid at every moment."""
        return math.exp(-self.better.log_k_max)

    @property
    def p_worse(self) -> float:
        """Of "the candidate loses no more"; valid at every moment."""
        return math.exp(-self.worse.log_k_max)

    @property
    def p_value(self) -> float:
        """Of "neither loses more", two-sided."""
        return min(1.0, 2.0 * min(self.p_better, self.p_worse))

    @property
    def log_e(self) -> float:
        """The two-sided log e-value now: the mean of both capitals."""
        high, low = max(self.better.log_k, self.worse.log_k), min(self.better.log_k, self.worse.log_k)
        return high + math.log1p(math.exp(low - high)) - math.log(2.0)

    def _verdict(self, log_better: float, log_worse: float) -> Verdict:
        bound = math.log(2.0 / self.alpha)
        if self.verdict is not Verdict.INCONCLUSIVE or max(log_better, log_worse) < bound:
            return self.verdict
        return Verdict.BETTER if log_better >= bound else Verdict.WORSE
