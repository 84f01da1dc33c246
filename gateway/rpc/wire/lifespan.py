"""How long a connection lives (RFC 9113, sections 6.5.3, 6.7 and 6.8): signs of life, idleness, and a leave-taking that loses no call."""

from typing import Final

from gateway.rpc.wire import frames
from gateway.rpc.wire.bounds import Bounds
from gateway.rpc.wire.frames import Code, ConnectionFault
from gateway.rpc.wire.outflow import Outflow

_DRAIN_PING: Final = b"draining"
_DRAIN_S: Final = 1.0
"""In which a peer is to answer the PING behind our first GOAWAY; then the second is sent all the same."""
_ALIVE_PING: Final = b"alive?\0\0"
_ALIVE_PATIENCE: Final = 4 / 3
_FIRST_LAST_ID: Final = 2**31 - 1


class Lifespan:
    """`heard_s` is when the peer last sent anything, `idle_since_s` when the last stream ended; whoever reads and ends them keeps both.

    `final_id`: no stream above it is served any more, None while all are. `peer_leaves`: it will open no more.
    """

    __slots__ = (
        "_bounds",
        "_drained_s",
        "_is_asked",
        "_opened_s",
        "_out",
        "final_id",
        "has_acknowledged",
        "heard_s",
        "idle_since_s",
        "is_draining",
        "peer_leaves",
    )

    def __init__(self, bounds: Bounds, out: Outflow, now_s: float) -> None:
        self._bounds = bounds
        self._out = out
        self._opened_s = self._drained_s = self.heard_s = self.idle_since_s = now_s
        self.has_acknowledged = self.is_draining = self.peer_leaves = self._is_asked = False
        self.final_id: int | None = None

    def drain(self, now_s: float) -> None:
        """Warns the peer, which may have requests on their way to us; the PING comes back behind them."""
        if not self.is_draining:
            self.is_draining = True
            self._drained_s = now_s
            self._out.ready += (frames.goaway(_FIRST_LAST_ID, Code.NO_ERROR, "draining"), frames.ping(_DRAIN_PING))

    def has_drained(self, pong: bytes) -> bool:
        """Whether an acknowledged PING is the one that was sent behind the warning."""
        return self.is_draining and pong == _DRAIN_PING

    def announce_last(self, last_id: int) -> None:
        """Tells the peer which stream is the last that is served, once."""
        if self.final_id is None:
            self.final_id = last_id
            self._out.ready.append(frames.goaway(last_id, Code.NO_ERROR, "draining"))

    def is_announcement_due(self, now_s: float) -> bool:
        """Whether the peer has had its time to answer the warning."""
        return self.is_draining and self.final_id is None and now_s - self._drained_s > _DRAIN_S

    def is_done(self) -> bool:
        """Whether one side has said that no more streams come."""
        return self.peer_leaves or self.final_id is not None

    def trouble(self, now_s: float, *, is_idle: bool) -> ConnectionFault | None:
        """Why the connection ends now, if it does. `is_idle`: no stream is open. A peer that is silent is asked for a sign first."""
        bounds = self._bounds
        if not self.has_acknowledged and now_s - self._opened_s > bounds.settings_s:
            return ConnectionFault(Code.SETTINGS_TIMEOUT, "SETTINGS were not acknowledged in time")
        if is_idle:
            is_over = now_s - self.idle_since_s > bounds.idle_s
            return ConnectionFault(Code.NO_ERROR, "idle") if is_over else None
        silent_s = now_s - self.heard_s
        if silent_s > bounds.alive_s * _ALIVE_PATIENCE:
            return ConnectionFault(Code.NO_ERROR, "the peer does not answer")
        if silent_s <= bounds.alive_s:
            self._is_asked = False
        elif not self._is_asked:
            self._is_asked = True
            self._out.ready.append(frames.ping(_ALIVE_PING))
        return None
