"""A quota as a token bucket: so many requests a second, with room for a burst (one process, one thread)."""

import math
from collections.abc import Callable


class TokenBucket:
    """Full at first. `rate_per_s` tokens a second, at most `burst` of them; a request takes one."""

    __slots__ = ("_at_s", "_clock_s", "_tokens", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: int, clock_s: Callable[[], float]) -> None:
        """`clock_s` is any monotonic clock."""
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._clock_s = clock_s
        self._tokens = float(burst)
        self._at_s = clock_s()

    def take(self) -> bool:
        """Takes a token; False, and nothing taken, where there is none."""
        now_s = self._clock_s()
        tokens = min(self.burst, self._tokens + (now_s - self._at_s) * self.rate_per_s)
        self._at_s = now_s
        if tokens < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True

    def wait_s(self) -> int:
        """Whole seconds, at least 1, after which there is a token again: what Retry-After says."""
        return max(1, math.ceil((1.0 - self._tokens) / self.rate_per_s))
