"""Takes routes with `steps` from step to step: each an ordinary revision of weights, authored `system:steps`, when the one before is over.

    begins with the revision that brings the steps ──▶ running ──▶ finished
                                                        │  ▲
                  alarm, `:pause`, a change by others   ▼  │  `:resume`
                                                       paused

Where it stands is stored with every step, so that a restart goes on where it was. A change of weights or versions by anybody else pauses
it: whoever steps in knows something that the schedule does not.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.control.changes import Author, Changes
from gateway.control.reconcile import Reconciler
from gateway.state.revision import Revision
from gateway.state.standing import STEPS, Ramp
from gateway.state.store import StateStore, readable
from gateway.telemetry.log import EventLog
from routing.errors import RouteInvalid
from routing.ramp import disturbance, weights_at
from routing.traffic import Route
from routing.validate import validate

Alarm = Callable[[Revision, Route, Ramp], str | None]
"""Why the ramp of a live route must not go on now; None: nothing speaks against it. Asked about once a second while one runs."""

LOOK_S: Final = 1.0
_IDLE_S: Final = 60.0
ALARM: Final = "alarm: "
"""How the reason of a pause begins that an alarm made."""

log = EventLog(__name__)


class NothingToPause(Exception):
    """The endpoint has no ramp that runs."""


class Ramps:
    """One task on the event loop. `alarms` are where guards and verdicts speak; the first that does pauses. `clock` is monotonic."""

    def __init__(
        self,
        store: StateStore,
        changes: Changes,
        reconciler: Reconciler,
        *,
        alarms: Sequence[Alarm] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._changes = changes
        self._reconciler = reconciler
        self._alarms = tuple(alarms)
        self._clock = clock
        self._ends: dict[str, tuple[int, float]] = {}
        """By endpoint: when its step is due as it was stored, and when that is by `clock`."""

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                is_running = self.step()
            except Exception as error:  # noqa: BLE001  # a state that cannot be written now must not end ramps, nor control
                log.error("steps_broke", error=error)
                is_running = True
            await self._reconciler.noted(LOOK_S if is_running else _IDLE_S)

    def step(self) -> bool:
        """One look at every endpoint that has steps, or had; answers whether a ramp runs."""
        ramps = self._store.standings.ramps()
        running = [
            self._look(live, route, ramps.get(live.endpoint))
            for live, route in self._store.live_routes()
            if route.steps or live.endpoint in ramps
        ]  # each is looked at, also after the first
        return any(running)

    def pause(self, endpoint: str, *, author: Author) -> Ramp:
        """Stays at the present weights. Raises NothingToPause."""
        ramp = self._store.standings.ramp(endpoint)
        if ramp is None or ramp.state != "running":
            raise NothingToPause(f"endpoint '{endpoint}' has no steps that run")
        return self._paused(endpoint, ramp, f"by {author.principal}: {author.reason}", author)

    def resume(self, endpoint: str, *, author: Author) -> bool:
        """Goes on with what was left of the step, at its weights; False: nothing was paused."""
        ramp, live = self._store.standings.ramp(endpoint), self._store.live(endpoint)
        if ramp is None or ramp.state != "paused" or live is None:
            return False
        due = self._due(endpoint, ramp.left_us)
        running = msgspec.structs.replace(ramp, state="running", revision=live.number, due_unix_us=due, reason="")
        self._store.standings.keep_ramp(endpoint, running, author=author.principal, reason=author.reason)
        self._hold(live, validate(live.document), running, f"step {ramp.step + 1} goes on: {author.reason}")
        self._reconciler.wake()
        return True

    # ----------------------------------------------------------------

    def _look(self, live: Revision, route: Route, ramp: Ramp | None) -> bool:
        endpoint = live.endpoint
        if self._store.current(endpoint) != live:
            return ramp is not None and ramp.state == "running"  # what is on its way is waited for
        if not route.steps:
            self._store.standings.keep_ramp(endpoint, None)
            return False
        known = None if ramp is None else self._store.revision(ramp.revision)
        before = route if known == live else readable(known)
        if ramp is None or known is None or before is None or before.steps != route.steps:
            ramp = self._begun(live, route)
        elif known != live:
            ramp = self._overtaken(live, route, ramp, known, before)
        if ramp.state != "running":
            return False
        alarm = next(filter(None, (self._raised(alarm, live, route, ramp) for alarm in self._alarms)), None)
        if alarm is not None:
            self._paused(endpoint, ramp, f"{ALARM}{alarm}", Author(STEPS, alarm))
            return False
        if self._left_us(endpoint, ramp) <= 0:
            self._advance(live, route, ramp)
        return True

    @staticmethod
    def _raised(alarm: Alarm, live: Revision, route: Route, ramp: Ramp) -> str | None:
        try:
            return alarm(live, route, ramp)
        except Exception as error:  # noqa: BLE001  # a guard that cannot see must not end control, nor hold up what people have planned
            log.error("alarm_broke", error=error, endpoint=route.endpoint)
            return None

    def _begun(self, live: Revision, route: Route) -> Ramp:
        """The first step; after a rollback nothing begins by itself."""
        ramp = Ramp(state="running", revision=live.number, base=dict(route.weights))
        if live.action == "rollback":
            return self._paused(live.endpoint, self._timed(route, ramp), "a rollback brought these steps", None)
        return self._taken(live, route, self._timed(route, ramp))

    def _advance(self, live: Revision, route: Route, ramp: Ramp) -> None:
        if ramp.step + 1 < len(route.steps):
            self._taken(live, route, self._timed(route, msgspec.structs.replace(ramp, step=ramp.step + 1)))
            return
        self._store.standings.keep_ramp(
            live.endpoint, msgspec.structs.replace(ramp, state="finished"), author=STEPS, reason="the last step is over"
        )
        log.info("steps_finished", endpoint=live.endpoint, revision=ramp.revision)

    def _taken(self, live: Revision, route: Route, ramp: Ramp) -> Ramp:
        """Sets the weights of the step that `ramp` has come to, and keeps it."""
        return self._hold(live, route, ramp, f"step {ramp.step + 1} of {len(route.steps)}")

    def _hold(self, live: Revision, route: Route, ramp: Ramp, reason: str) -> Ramp:
        wanted = weights_at(route.steps, ramp.step)
        if any(dict(route.weights)[name] != weight for name, weight in wanted.items()):
            try:
                revision, _ = self._changes.weights(
                    live.endpoint, wanted, expected=live.number, author=Author(STEPS, reason), action="steps"
                )
            except RouteInvalid as error:  # the other arms' weights were changed to nothing meanwhile
                return self._paused(live.endpoint, ramp, str(error), None)
            ramp = msgspec.structs.replace(ramp, revision=revision.number)
            log.info("step_taken", endpoint=live.endpoint, revision=revision.number, step=ramp.step + 1)
        self._store.standings.keep_ramp(live.endpoint, ramp)
        return ramp

    def _overtaken(self, live: Revision, route: Route, ramp: Ramp, known: Revision, before: Route) -> Ramp:
        """Another revision went live: the ramp goes on with it, unless it changed what the steps are about."""
        reason = None
        if live.action != "steps":  # a step of our own, kept before control died
            reason = disturbance(
                before,
                route,
                versions_before={arm: str(model.key) for arm, model in known.resolutions.items()},
                versions_after={arm: str(model.key) for arm, model in live.resolutions.items()},
            )
        ramp = msgspec.structs.replace(ramp, revision=live.number)
        if reason is not None and ramp.state == "running":
            return self._paused(live.endpoint, ramp, f"{reason} by {live.author} (revision {live.number})", None)
        self._store.standings.keep_ramp(live.endpoint, ramp)
        return ramp

    def _paused(self, endpoint: str, ramp: Ramp, reason: str, author: Author | None) -> Ramp:
        left_us = max(0, self._left_us(endpoint, ramp))
        paused = msgspec.structs.replace(ramp, state="paused", left_us=left_us, reason=reason)
        self._store.standings.keep_ramp(
            endpoint, paused, author=author.principal if author else STEPS, reason=reason[:1000]
        )
        log.warning("steps_paused", endpoint=endpoint, revision=ramp.revision, problem=reason)
        return paused

    def _timed(self, route: Route, ramp: Ramp) -> Ramp:
        due = self._due(route.endpoint, route.steps[ramp.step].for_s * 1_000_000)
        return msgspec.structs.replace(ramp, due_unix_us=due)

    def _due(self, endpoint: str, left_us: int) -> int:
        """When a step ends that has so much left, by the wall clock, for people and for a next process; noted by this one's own too."""
        due_unix_us = self._store.now_unix_us() + left_us
        self._ends[endpoint] = due_unix_us, self._clock() + left_us / 1e6
        return due_unix_us

    def _left_us(self, endpoint: str, ramp: Ramp) -> int:
        """What is left of the step. A wall clock that is set meanwhile ends it neither early, without anybody having looked on, nor late."""
        due_unix_us, ends = self._ends.get(endpoint, (None, 0.0))
        if due_unix_us != ramp.due_unix_us:  # begun by an earlier process
            left_us = ramp.due_unix_us - self._store.now_unix_us()
            ends = self._clock() + left_us / 1e6
            self._ends[endpoint] = ramp.due_unix_us, ends
        return int((ends - self._clock()) * 1e6)
