"""Units by variant since a step of a ramp began, from the stored records: asked on a thread now and then, while the ramp goes on."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.telemetry.log import EventLog

ASK_S: Final = 30.0
"""Seconds between two questions to the lake about one endpoint."""
MARGIN_S: Final = 15.0
"""How far a count stays behind the present: a slow variant's newest records come later than a quick one's."""

Step = tuple[str, int, float]
"""An endpoint, its live revision, and when its weights held for good (Unix seconds)."""
Ask = Callable[[str, int, float, float], Mapping[str, int]]
"""Endpoint, revision, since, until (`gateway.evidence.units`); blocks, and may fail in any way that a lake can."""

log = EventLog(__name__)


class _Count(msgspec.Struct, kw_only=True):
    """`units` None: not counted yet."""

    step: Step
    asked_at: float
    looked_at: float
    units: Mapping[str, int] | None = None


class UnitCounts:
    """Belongs to one event loop. One question at a time; `clock` is monotonic."""

    def __init__(self, ask: Ask, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._counts: dict[str, _Count] = {}
        self._asking: asyncio.Task[None] | None = None

    def of(self, step: Step, now_unix_s: float) -> Mapping[str, int] | None:
        """The newest count of this step; None: there is none yet. Never waits: what is too old is asked for, and is there at a later look."""
        count, at = self._counts.get(step[0]), self._clock()
        if count is None or count.step != step:
            count = self._counts[step[0]] = _Count(step=step, asked_at=at, looked_at=at)
        count.looked_at = at
        if self._asking is None and at - count.asked_at >= ASK_S and self._is_next(count, at):
            count.asked_at = at
            self._asking = asyncio.create_task(self._count(count, now_unix_s - MARGIN_S), name="count units")
        return count.units

    def _is_next(self, count: _Count, at: float) -> bool:
        """Whether no other step that still goes on has waited longer."""
        going_on = (other for other in self._counts.values() if at - other.looked_at < 2 * ASK_S)
        return all(other.asked_at >= count.asked_at for other in going_on)

    async def _count(self, count: _Count, until_unix_s: float) -> None:
        try:
            count.units = await asyncio.to_thread(self._ask, *count.step, until_unix_s)
        except Exception as error:  # noqa: BLE001  # a lake that cannot be read must not stop a ramp, nor those who watch others
            log.warning("units_not_counted", endpoint=count.step[0], error=error)
        finally:
            self._asking = None
