"""Watches the variants of a ramp by what the workers count, from the moment that a step's weights hold: the first alarm of `routing.guards`.

Two stretches are looked at: the whole step, and its latest part, so that a fault late in a long step is not drowned by the good hours
before it. After a pause both begin anew: whoever resumes has seen what was counted until then.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from gateway.control.unit_counts import UnitCounts
from gateway.settings import Ramps as RampSettings
from gateway.state.revision import Revision
from gateway.state.standing import Ramp
from gateway.state.store import StateStore
from gateway.telemetry.catalogue import DURATION_BOUNDS_S
from gateway.telemetry.counters import Totals
from gateway.telemetry.retained import read_pages
from routing.guards import ArmCounts, Bounds, alarms, units_astray
from routing.traffic import Route

LOOK_S: Final = 2.0
"""Seconds between two readings of the counter pages, a few milliseconds each."""
_SETTLE_S_MAX: Final = 10.0

Counts = dict[str, ArmCounts]


class _Stretch(msgspec.Struct, kw_only=True):
    """What was counted when the step began, and when its latest part did; times are monotonic. `step` tells one step from another."""

    step: tuple[int, int]
    began: Counts
    began_unix_s: float
    part_began: Counts
    part_at: float


class Guards:
    """One event loop. `folder` holds the counter pages; `clock` is monotonic."""

    def __init__(
        self,
        store: StateStore,
        folder: Path,
        settings: RampSettings,
        *,
        units: UnitCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._units = units
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._bounds = Bounds(alpha=settings.alarm_alpha, latency_ratio_max=settings.latency_ratio_max)
        self._totals, self._read_at = Totals(), float("-inf")
        self._stretches: dict[str, _Stretch] = {}

    def alarm(self, live: Revision, route: Route, ramp: Ramp) -> str | None:
        """Why the ramp of a live route must not go on; None: nothing is known against it."""
        settle_s = min(
            _SETTLE_S_MAX, 1.0 + route.limits.timeout_s
        )  # answers of the weights before are still on their way
        age_s = (self._store.now_unix_us() - live.changed_unix_us) / 1e6
        if not self._settings.alarms or 0 <= age_s < settle_s:  # below 0 the clock was set back, for who knows how long
            return None
        now = self._counted(route)
        stretch = self._stretches.get(route.endpoint)
        if stretch is None or stretch.step != (ramp.step, ramp.due_unix_us):
            stretch = _Stretch(
                step=(ramp.step, ramp.due_unix_us),
                began=now,
                began_unix_s=self._store.now_unix_us() / 1e6,
                part_began=now,
                part_at=self._clock(),
            )
            self._stretches[route.endpoint] = stretch
            return None
        compiled = self._store.compiled(live.number)
        shares = compiled.shares if compiled is not None and self._draws_requests(route) else None
        if compiled is not None and (found := self._units_astray(route, live.number, stretch, compiled.shares)):
            return self._alarmed(route.endpoint, found)
        for before in (stretch.began, stretch.part_began):
            counts = _since(before, now)
            if counts is None:  # a page went away while it was read
                return None
            found = alarms(counts, route.champion, shares=shares, bounds_s=DURATION_BOUNDS_S, bounds=self._bounds)
            if found:
                return self._alarmed(route.endpoint, found)
        if self._clock() - stretch.part_at >= self._settings.alarm_window_s:
            stretch.part_began, stretch.part_at = now, self._clock()
        return None

    def _counted(self, route: Route) -> Counts:
        """What all workers, living and dead, have ever counted of the route's variants."""
        if self._clock() - self._read_at >= LOOK_S:
            self._totals, self._read_at = read_pages(self._folder), self._clock()
        return counted(self._totals, route)

    def _alarmed(self, endpoint: str, found: list[str]) -> str:
        """The next look begins anew."""
        del self._stretches[endpoint]
        return "; ".join(found)

    def _draws_requests(self, route: Route) -> bool:
        """Whether the split draws every single request, so that requests are what its shares hold for."""
        return route.unit.kind == "none" and not route.rules and not route.allow_pin

    def _units_astray(self, route: Route, revision: int, stretch: _Stretch, shares: dict[str, float]) -> list[str]:
        """Where the split deals units: whether they fall as it says, by the records of the whole step."""
        if route.unit.kind == "none":
            return []
        step = (route.endpoint, revision, stretch.began_unix_s)
        units = self._units.of(step, self._store.now_unix_us() / 1e6)
        return [] if units is None else units_astray(units, shares, self._bounds)


def counted(totals: Totals, route: Route) -> Counts:
    """The counters of one endpoint by variant; what the champion answered for a variant that failed belongs to that variant."""
    requests, errors, taken_over = Counter[str](), Counter[str](), Counter[str]()
    slow: dict[str, list[float]] = {}
    for (name, pairs), values in totals.series.items():
        labels = dict(pairs)
        if labels.get("endpoint") != route.endpoint:
            continue
        variant = labels.get("variant", "")
        if name == "runoff_requests_total":
            requests[variant] += int(values[0])
            errors[variant] += int(values[0]) if labels["code"].startswith("5") else 0
        elif name == "runoff_fallbacks_total":
            taken_over[variant] += int(values[0])
        elif name == "runoff_request_duration_seconds":
            slow[variant] = _added(slow.get(variant), values[: len(DURATION_BOUNDS_S) + 1])
    for variant, count in taken_over.items():
        requests[variant] += count
        errors[variant] += count
    requests[route.champion] -= taken_over.total()
    return {
        arm.name: ArmCounts(
            requests=requests[arm.name],
            errors=errors[arm.name],
            slow=tuple(int(value) for value in slow.get(arm.name, ())),
        )
        for arm in route.variants
    }


def _since(before: Counts, now: Counts) -> Counts | None:
    """What came in between; None where a count went back."""
    found: Counts = {}
    for name, arm in now.items():
        base = before.get(name, ArmCounts())
        slow = _added([-value for value in base.slow], arm.slow)
        requests, errors = arm.requests - base.requests, arm.errors - base.errors
        if min(requests, errors, *slow, 0) < 0:
            return None
        found[name] = ArmCounts(requests=requests, errors=errors, slow=tuple(int(value) for value in slow))
    return found


def _added(some: Iterable[float] | None, more: Iterable[float]) -> list[float]:
    """Place by place; an empty one counts as zeros."""
    values, others = list(some or ()), list(more)
    if not values or not others:
        return values or others
    return [a + b for a, b in zip(values, others, strict=True)]
