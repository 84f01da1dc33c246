"""Takes routes with `steps` from step to step: each an ordinary revision of weights, authored `system:steps`, when the one before is over.

    begins with the revision that brings the steps ──▶ running ──▶ finished
                                                        │  ▲
                  alarm, `:pause`, a change by others   ▼  │  `:resume`
                                                       paused

Where it stands is stored with every step, so that a restart goes on where it was. A change of weights or versions by anybody else pauses
it: whoever steps in knows something that the schedule does not.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.control.changes import Author, Changes
from gateway.control.reconcile import Reconciler
from gateway.state.revision import Revision
from gateway.state.standing import Ramp
from gateway.state.store import STEPS, StateStore
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
    """One task on the event loop. `alarms` are where guards and verdicts speak; the first that does pauses."""

    def __init__(
        self, store: StateStore, changes: Changes, reconciler: Reconciler, *, alarms: Sequence[Alarm] = ()
    ) -> None:
        self._store = store
        self._changes = changes
        self._reconciler = reconciler
        self._alarms = tuple(alarms)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._reconciler.noted(LOOK_S if self.step() else _IDLE_S)

    def step(self) -> bool:
        """One look at every endpoint; answers whether a ramp runs."""
        running = [
            self._look(endpoint) for endpoint in self._store.endpoints()
        ]  # each is looked at, also after the first
        return any(running)

    def pause(self, endpoint: str, *, author: Author) -> Ramp:
        """Stays at the present weights. Raises NothingToPause."""
        ramp = self._store.ramp(endpoint)
        if ramp is None or ramp.state != "running":
            raise NothingToPause(f"endpoint '{endpoint}' has no steps that run")
        return self._paused(endpoint, ramp, f"by {author.principal}: {author.reason}", author)

    def resume(self, endpoint: str, *, author: Author) -> bool:
        """Goes on with what was left of the step, at its weights; False: nothing was paused."""
        ramp, live = self._store.ramp(endpoint), self._store.live(endpoint)
        if ramp is None or ramp.state != "paused" or live is None:
            return False
        due = self._store.now_unix_us() + ramp.left_us
        running = msgspec.structs.replace(ramp, state="running", revision=live.number, due_unix_us=due, reason="")
        self._store.keep_ramp(endpoint, running, author=author.principal, reason=author.reason)
        self._hold(live, validate(live.document), running, f"step {ramp.step + 1} goes on: {author.reason}")
        self._reconciler.wake()
        return True

    # ----------------------------------------------------------------

    def _look(self, endpoint: str) -> bool:
        live, ramp = self._store.live(endpoint), self._store.ramp(endpoint)
        if live is None or live.document is None or self._store.current(endpoint) != live:
            return ramp is not None and ramp.state == "running"  # what is on its way is waited for
        route = validate(live.document)
        if not route.steps:
            if ramp is not None:
                self._store.keep_ramp(endpoint, None)
            return False
        if ramp is None or self._is_other(ramp, route):
            ramp = self._begun(live, route)
        elif ramp.revision != live.number:
            ramp = self._overtaken(live, route, ramp)
        if ramp.state != "running":
            return False
        alarm = next(filter(None, (self._raised(alarm, live, route, ramp) for alarm in self._alarms)), None)
        if alarm is not None:
            self._paused(endpoint, ramp, f"{ALARM}{alarm}", Author(STEPS, alarm))
            return False
        if self._store.now_unix_us() >= ramp.due_unix_us:
            self._advance(live, route, ramp)
        return True

    @staticmethod
    def _raised(alarm: Alarm, live: Revision, route: Route, ramp: Ramp) -> str | None:
        try:
            return alarm(live, route, ramp)
        except Exception as error:  # noqa: BLE001  # a guard that cannot see must not end control, nor hold up what people have planned
            log.error("alarm_broke", error=error, endpoint=route.endpoint)
            return None

    def _is_other(self, ramp: Ramp, route: Route) -> bool:
        """Whether the live route has other steps than those that the ramp goes by."""
        known = self._store.revision(ramp.revision)
        return known is None or known.document is None or validate(known.document).steps != route.steps

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
        self._store.keep_ramp(
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
        self._store.keep_ramp(live.endpoint, ramp)
        return ramp

    def _overtaken(self, live: Revision, route: Route, ramp: Ramp) -> Ramp:
        """Another revision went live: the ramp goes on with it, unless it changed what the steps are about."""
        known = self._store.revision(ramp.revision)
        assert known is not None, "a revision is never deleted"
        reason = None
        if live.action != "steps":  # a step of our own, kept before control died
            reason = disturbance(
                validate(known.document),
                route,
                versions_before={arm: str(model.key) for arm, model in known.resolutions.items()},
                versions_after={arm: str(model.key) for arm, model in live.resolutions.items()},
            )
        ramp = msgspec.structs.replace(ramp, revision=live.number)
        if reason is not None and ramp.state == "running":
            return self._paused(live.endpoint, ramp, f"{reason} by {live.author} (revision {live.number})", None)
        self._store.keep_ramp(live.endpoint, ramp)
        return ramp

    def _paused(self, endpoint: str, ramp: Ramp, reason: str, author: Author | None) -> Ramp:
        left = max(0, ramp.due_unix_us - self._store.now_unix_us())
        paused = msgspec.structs.replace(ramp, state="paused", left_us=left, reason=reason)
        self._store.keep_ramp(endpoint, paused, author=author.principal if author else STEPS, reason=reason[:1000])
        log.warning("steps_paused", endpoint=endpoint, revision=ramp.revision, problem=reason)
        return paused

    def _timed(self, route: Route, ramp: Ramp) -> Ramp:
        due = self._store.now_unix_us() + route.steps[ramp.step].for_s * 1_000_000
        return msgspec.structs.replace(ramp, due_unix_us=due)
