"""Whether a child hangs, by the beats that it sends each second. Pure: time comes in."""

from typing import Final

from gateway.processes.birth import Role

HUNG_S: Final[dict[Role, float]] = {"worker": 5.0, "shadow": 300.0, "features": 60.0, "control": 30.0}
"""Silence after which a process is taken to hang. Control and features may import large libraries, which holds the interpreter; the shadow
gets a four-hundredth of a core while production takes all of them."""
FIRST_WORD_S: Final = 60.0
"""How long a process may take from its start to its first beat: cold disks, large imports."""
_LATE_S: Final = 2.0


class Watch:
    """Judges silence, except just after the judge itself was asleep: then the lines that say otherwise have not been read yet."""

    def __init__(self) -> None:
        self._looked_at: float | None = None

    def may_judge(self, now: float) -> bool:
        """Called at each look; False when the last one was too long ago (a stopped process, a suspended machine)."""
        before, self._looked_at = self._looked_at, now
        return before is not None and now - before < _LATE_S


def is_hung(role: Role, started_at: float, beat_at: float | None, now: float) -> bool:
    if beat_at is None:
        return now - started_at > FIRST_WORD_S
    return now - beat_at > HUNG_S[role]
