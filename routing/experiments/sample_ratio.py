"""Does the traffic fall as the split says? A Dirichlet-multinomial e-process over first exposures of units, exact at every look.

    log E = log B(α + n) − log B(α) − Σ nₖ·log sₖ,    αₖ = c·sₖ,    sₖ the exact shares of the compiled table (never the nominal weights:
                                                                    at a million units their difference alone would alarm)

Source: Lindon and Malek, NeurIPS 2022 (arXiv 2011.03567). Count each unit once, at its first exposure, and only requests that the split
assigned; under another table the process goes on as a new factor (`under`), since e-values of separate data multiply.
"""

import math
from collections.abc import Sequence

import msgspec


def log_evidence(counts: Sequence[int], shares: Sequence[float], concentration: float = 1000.0) -> float:
    """The logarithm of the e-value of these counts, all taken under one table; infinite for a count in an arm without a share."""
    log_e = math.lgamma(concentration) - math.lgamma(concentration + sum(counts))
    for count, share in zip(counts, shares, strict=True):
        if share:
            prior = concentration * share
            log_e += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
        elif count:
            return math.inf
    return log_e


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one check; `observe` and `under` give the next.

    `shares` add up to 1. `log_e` is the evidence now, `log_e_max` the largest so far. A unit in an arm without a share is
    proof by itself: both become infinite.
    `concentration`: the larger, the smaller the deviations it looks for; research: 1,000.
    """

    shares: tuple[float, ...]
    counts: tuple[int, ...]
    concentration: float = 1000.0
    log_e: float = 0.0
    log_e_max: float = 0.0

    @staticmethod
    def start(shares: Sequence[float], concentration: float = 1000.0) -> "SampleRatio":
        return SampleRatio(shares=tuple(shares), counts=(0,) * len(shares), concentration=concentration)

    def observe(self, arm: int) -> "SampleRatio":
        """The state after one more unit's first exposure to the arm of this index."""
        share, seen = self.shares[arm], sum(self.counts)
        if share == 0:
            log_e = math.inf
        else:
            predicted = (self.concentration * share + self.counts[arm]) / (self.concentration + seen)
            log_e = self.log_e + math.log(predicted / share)
        counts = (*self.counts[:arm], self.counts[arm] + 1, *self.counts[arm + 1 :])
        return msgspec.structs.replace(self, counts=counts, log_e=log_e, log_e_max=max(self.log_e_max, log_e))

    def under(self, shares: Sequence[float]) -> "SampleRatio":
        """The state that goes on under a new table's shares, its evidence so far kept as a factor."""
        return msgspec.structs.replace(self, shares=tuple(shares), counts=(0,) * len(shares))

    @property
    def p_value(self) -> float:
        """Of "the traffic falls as the split says"; valid at every moment."""
        return math.exp(-self.log_e_max)

    def is_violated(self, alpha: float = 0.001) -> bool:
        """Whether a mismatch is shown. False is no proof of the contrary: with few units nothing can be shown."""
        return self.p_value <= alpha
