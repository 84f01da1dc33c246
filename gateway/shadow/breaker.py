"""When a remote that keeps failing is left alone, so that its rows are counted at once instead of each waiting for a time-out."""

from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 5
FIRST_S: Final = 1.0
LONGEST_S: Final = 30.0


class Breaker:
    """Opens after FAILURES_MAX failures in a row, for 1 s, then twice as long each time up to 30 s. After it one call may try."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._pause_s = FIRST_S
        self._open_until = 0.0
        self._reason = ""

    def refusal(self) -> str | None:
        """Why not to call now: the reason of the last failure. None: call, and say how it went."""
        if self._failures < FAILURES_MAX:
            return None
        if self._clock() < self._open_until:
            return self._reason
        self._open_until = self._clock() + self._pause_s  # the trial's; who comes meanwhile is still refused
        return None

    def succeeded(self) -> None:
        self._failures, self._pause_s = 0, FIRST_S

    def failed(self, reason: str) -> None:
        self._failures += 1
        self._reason = reason
        if self._failures >= FAILURES_MAX:
            self._open_until = self._clock() + self._pause_s
            self._pause_s = min(LONGEST_S, 2 * self._pause_s)
