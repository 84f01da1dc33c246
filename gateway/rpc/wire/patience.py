"""How much cheap-to-send, dear-to-read traffic one connection may cause before it is told to calm down.

One purse of points for every known flood: rapid reset (CVE-2023-44487), PING, SETTINGS and PRIORITY floods, empty frames
(CVE-2019-9512 to 9518), endless CONTINUATION (CVE-2024-27316). Time refills it, and so does useful work, so that a busy honest
caller is never near the end of it.
"""

from typing import Final

from gateway.rpc.wire.frames import Code, ConnectionFault

POINTS_MAX: Final = 10_000
POINTS_A_SECOND: Final = 1_000
ANSWERED: Final = 20
"""What a call that was answered gives back."""

RESET: Final = 10
PING: Final = 10
SETTINGS: Final = 50
EMPTY: Final = 10
STALE: Final = 5
"""A frame on a stream that is closed already, or a stream that had to be reset."""
SMALL: Final = 1
"""PRIORITY, WINDOW_UPDATE, unknown kinds."""


class Patience:
    """Points left; `now_s` is any monotonic clock, the same in every call."""

    __slots__ = ("_at_s", "left")

    def __init__(self, now_s: float) -> None:
        self.left = float(POINTS_MAX)
        self._at_s = now_s

    def charge(self, points: int, now_s: float, why: str) -> None:
        """Raises ConnectionFault when the purse is empty also after what time has refilled."""
        self.left -= points
        if self.left < 0:
            refilled = self.left + points + (now_s - self._at_s) * POINTS_A_SECOND
            self.left = min(refilled, float(POINTS_MAX)) - points
            self._at_s = now_s
            if self.left < 0:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, why)

    def refund(self, points: int) -> None:
        """Useful work was done."""
        if self.left < POINTS_MAX:
            self.left += points
