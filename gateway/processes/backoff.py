"""When a process that ended is started again, and when it counts as one that cannot be brought back. Pure: time comes in."""

from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 10.0
STEADY_S: Final = 5.0
"""A process that was up for so long has recovered: what comes next is a first failure again, and its callers wait 0.1 s, not ten.
What crashes later than this in each life costs at most a sixth of its time anyway."""
FAILURES_MAX: Final = 5
"""After so many failures in a row its listening socket is closed, so that no connection waits for it. Starting goes on."""


class Backoff:
    """Failures in a row of one process, and the pause after each: 0.1 s, doubling up to 10 s."""

    def __init__(self) -> None:
        self.failures = 0

    def failed(self, up_s: float) -> float:
        """Notes that the process ended after `up_s` seconds in which it was ready; answers the pause before the next start."""
        self.failures = 1 if up_s >= STEADY_S else self.failures + 1
        pause_s: float = min(LONGEST_S, FIRST_S * 2 ** (self.failures - 1))
        return pause_s

    @property
    def is_hopeless(self) -> bool:
        """Whether it failed so often in a row that callers should no longer wait for it."""
        return self.failures >= FAILURES_MAX
