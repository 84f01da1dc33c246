"""How much of the drawn rows the shadow may still run: less, the further it is behind, the more processor time and memory it takes.

Each of the three gives a pressure from 0 (run everything) to 1 (run the most important only); the largest holds. Under pressure
samples are lowered from the least important priority up: its share falls to nothing before the next one's begins to.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.processes.place import resident_bytes

BEHIND_S: Final = 15.0
"""From this lag on there is pressure; at LATE_S it is full."""
LATE_S: Final = 45.0
_MEMORY_FROM: Final = 0.8
"""Of the bound of memory; at the bound itself candidates are given up as well."""
_CPU_OVER: Final = 0.25
"""How far above the bound of processor time the pressure is full."""


class Governor:
    """Belongs to the loop; `look` once a second. `cpu_s` is the processor time that this process has taken so far, all threads together."""

    def __init__(
        self,
        *,
        memory_bytes_max: int,
        cores_max: float,
        resident: Callable[[], float] = lambda: resident_bytes(os.getpid()),
        cpu_s: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._cores_max = cores_max
        self._resident = resident
        self._cpu_s = cpu_s
        self._clock = clock
        self._looked_at, self._cpu_then = clock(), cpu_s()
        self._pressure = 0.0
        self.is_over_memory = False

    def look(self) -> None:
        """Takes in what was used since the last look."""
        now, cpu_s, resident = self._clock(), self._cpu_s(), self._resident()
        passed_s = now - self._looked_at
        cores = (cpu_s - self._cpu_then) / passed_s if passed_s > 0 else 0.0
        self._looked_at, self._cpu_then = now, cpu_s
        self.is_over_memory = resident > self._memory_bytes_max
        memory = (resident / self._memory_bytes_max - _MEMORY_FROM) / (1 - _MEMORY_FROM)
        cpu = (cores / self._cores_max - 1) / _CPU_OVER
        self._pressure = max(0.0, min(1.0, max(memory, cpu)))

    def pressure(self, lag_s: float) -> float:
        """From 0 to 1, for rows that are so old."""
        lag = (lag_s - BEHIND_S) / (LATE_S - BEHIND_S)
        return max(self._pressure, min(1.0, max(0.0, lag)))


def kept_shares(priorities: Iterable[int], pressure: float) -> Mapping[int, float]:
    """The share of its rows that each priority still runs; 1 is the most important, and the smallest number always runs whole."""
    ranks = sorted(set(priorities))
    room = max(1.0, len(ranks) * (1.0 - pressure))
    return {rank: min(1.0, max(0.0, room - place)) for place, rank in enumerate(ranks)}
