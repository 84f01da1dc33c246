"""What speaks against giving a variant more traffic, from counts alone: it fails more often, it is slower, it gets what it should not. Pure.

Each guard is a test that may be looked at at any time (e-values, Ville's inequality): sound variants raise one with a probability of
at most `alpha` in all looks at one stretch of counts. They say nothing while there is too little to say; that is no proof of health.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from routing.experiments.beta_binomial import log_e_value_above
from routing.experiments.sample_ratio import log_evidence

SLOW_SHARE: Final = 0.01
"""The share of requests above a 99th percentile."""
CHAMPION_REQUESTS_MIN: Final = 100
"""Below this a champion's 99th percentile is a single request."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """`alpha`: see above. A variant is slow from `latency_ratio_max` times the champion's p99 on, and `latency_slack_s` beyond it."""

    alpha: float = 1e-4
    latency_ratio_max: float = 2.0
    latency_slack_s: float = 0.005


class ArmCounts(msgspec.Struct, frozen=True, kw_only=True):
    """One variant over one stretch of time. `requests` that it was given, `errors` of these (5xx, and those that the champion took over).

    `slow`: answers by duration, one count for each bound of the histogram and one above all.
    """

    requests: int = 0
    errors: int = 0
    slow: tuple[int, ...] = ()


def alarms(
    counts: Mapping[str, ArmCounts],
    champion: str,
    *,
    shares: Mapping[str, float] | None,
    bounds_s: Sequence[float],
    bounds: Bounds,
) -> list[str]:
    """A sentence for each alarm. `shares`: the table's, None where requests are not drawn one by one (see `units_astray`). `bounds_s`: the histogram's."""
    base, enough = counts.get(champion, ArmCounts()), -math.log(bounds.alpha)
    found: list[str] = []
    for name, arm in counts.items():
        if name != champion:
            found += _errors(name, arm, champion, base, enough)
            found += _latency(name, arm, champion, base, enough, bounds_s=bounds_s, bounds=bounds)
    seen = {name: arm.requests for name, arm in counts.items()}
    return [*found, *(_sample_ratio("requests", seen, shares, enough) if shares is not None else [])]


def units_astray(units: Mapping[str, int], shares: Mapping[str, float], bounds: Bounds) -> list[str]:
    """The same for units, each counted once under one table: a sentence where they do not fall as its shares say."""
    return _sample_ratio("units", units, shares, -math.log(bounds.alpha))


def _errors(name: str, arm: ArmCounts, champion: str, base: ArmCounts, enough: float) -> list[str]:
    """Of all errors too many are the variant's: this needs no model of the error rate, and bad minutes hit both (research F2).

    The counts are of requests, also where the split is sticky, though one unit's errors then all fall to one variant: who counts them is
    quick and knows no units. `alpha` does not hold there; an alarm too many is a pause, which people end (docs/operations.md).
    """
    if not (arm.requests and base.requests and arm.errors):
        return []
    share = arm.requests / (arm.requests + base.requests)
    if log_e_value_above(arm.errors, base.errors, p0=share, a=1.0, b=1.0) < enough:
        return []
    return [
        f"{name} fails more often than {champion}: {_of(arm.errors, arm.requests)} against {_of(base.errors, base.requests)}"
    ]


def _latency(
    name: str,
    arm: ArmCounts,
    champion: str,
    base: ArmCounts,
    enough: float,
    *,
    bounds_s: Sequence[float],
    bounds: Bounds,
) -> list[str]:
    """More than 1% of the variant's answers take longer than the histogram's first bound that is far enough beyond the champion's p99."""
    if sum(base.slow) < CHAMPION_REQUESTS_MIN or not arm.slow:
        return []
    place = next(place for place in range(len(base.slow)) if sum(base.slow[place + 1 :]) <= SLOW_SHARE * sum(base.slow))
    if place >= len(bounds_s):
        return []
    limit_s = max(bounds_s[place] * bounds.latency_ratio_max, bounds_s[place] + bounds.latency_slack_s)
    far = next((far for far, bound_s in enumerate(bounds_s) if bound_s >= limit_s), None)
    if far is None:
        return []
    above, answers = sum(arm.slow[far + 1 :]), sum(arm.slow)
    if log_e_value_above(above, answers - above, p0=SLOW_SHARE, a=1.0, b=1.0) < enough:
        return []
    usual = f"99% of {champion}'s answers take at most {bounds_s[place] * 1000:g} ms"
    return [f"{name} is slower than {champion}: {_of(above, answers)} above {bounds_s[far] * 1000:g} ms, where {usual}"]


def _sample_ratio(what: str, counts: Mapping[str, int], shares: Mapping[str, float], enough: float) -> list[str]:
    """The traffic does not fall as the split says: some of it vanishes on its way, and no comparison of what is left holds."""
    seen = [counts.get(name, 0) for name in shares]
    if log_evidence(seen, list(shares.values())) < enough:
        return []
    told = ", ".join(
        f"{name} {count} (wanted {share:.1%})" for (name, share), count in zip(shares.items(), seen, strict=True)
    )
    return [f"{what} do not fall as the split says: {told}"]


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.2%})"
