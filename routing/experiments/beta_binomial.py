"""The beta-binomial mixture e-process for the share of one of two outcomes, two-sided and one-sided, from the counts alone.

Against H0 "the share is p0" the mixture over Beta(a, b) has the closed form

    log E  = log B(a + w, b + l) − log B(a, b) − w·log p0 − l·log(1 − p0)            w wins, l losses
    log E⁺ = log E + log P(Beta(a + w, b + l) > p0) − log P(Beta(a, b) > p0)         H0: share ≤ p0

Source: Lindon and Malek, Anytime-Valid Inference for Multinomial Count Data, NeurIPS 2022 (arXiv 2011.03567). E is a martingale under
H0, E⁺ a supermartingale for every share up to p0; by Ville's inequality either ever reaches 1/α with probability at most α.
"""

import math
from typing import Final

_STEPS_MAX: Final = 100_000
_PRECISION: Final = 1e-15
_TINY: Final = 1e-300


def log_e_value(wins: int, losses: int, *, p0: float = 0.5, a: float = 10.0, b: float = 10.0) -> float:
    """The logarithm of the two-sided e-value, p0 in (0, 1)."""
    evidence = log_beta(a + wins, b + losses) - log_beta(a, b)
    return evidence - wins * math.log(p0) - losses * math.log1p(-p0)


def log_e_value_above(wins: int, losses: int, *, p0: float = 0.5, a: float = 10.0, b: float = 10.0) -> float:
    """The logarithm of the one-sided e-value against "the share of wins is at most p0"."""
    posterior = log_beta_above(p0, a + wins, b + losses)
    return log_e_value(wins, losses, p0=p0, a=a, b=b) + posterior - log_beta_above(p0, a, b)


def log_beta(a: float, b: float) -> float:
    """The logarithm of the beta function."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_beta_above(x: float, a: float, b: float) -> float:
    """The logarithm of P(Beta(a, b) > x), x in (0, 1), also where the probability itself would vanish.

    The continued fraction converges fast on the side of the mean that holds less mass; the other side is its complement.
    """
    if x >= a / (a + b):
        return _log_tail(1.0 - x, b, a)
    return math.log1p(-math.exp(min(_log_tail(x, a, b), 0.0)))


def _log_tail(x: float, a: float, b: float) -> float:
    """The logarithm of P(Beta(a, b) < x) for x at most the mean: continued fraction DLMF 8.17.22 by Lentz's method."""
    front = a * math.log(x) + b * math.log1p(-x) - log_beta(a, b) - math.log(a)
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or _TINY)
    fraction = d
    for m in range(1, _STEPS_MAX):
        before = fraction
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + numerator * d or _TINY)
            c = 1.0 + numerator / c or _TINY
            fraction *= c * d
        if abs(fraction - before) <= _PRECISION * abs(fraction):
            return front + math.log(fraction)
    raise ArithmeticError(f"incomplete beta: no convergence for x={x}, a={a}, b={b}")
