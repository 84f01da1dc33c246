"""Takes every written revision to live, or to failed with its problem while the old one stays: one task an endpoint, one step a transaction.

    pending ──▶ loading ──▶ warming ──▶ live         (weights only, rollback: pending ──▶ live at once)
       │           │           │
       └───────────┴───────────┴──▶ failed, or superseded by a newer revision of the same endpoint

Control may die at any step: what is unfinished in the store is taken up again at its start.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from gateway.control.checks import Checks
from gateway.control.features import FeatureServices, unchanged
from gateway.control.fleet import Fleet
from gateway.control.preparation import Preparation, Prepared, compile_route, needs_warming, pins_of
from gateway.state.compiled import CompiledFeatures, CompiledModel, CompiledRoute
from gateway.state.revision import Revision
from gateway.state.store import StateStore, readable
from gateway.telemetry.log import EventLog
from models.signature import Signature
from routing.errors import Problem, RouteInvalid
from routing.traffic import Route
from routing.validate import validate

WARM_UP_S: Final = 300.0
"""How long all workers together may take to load and warm a revision's models."""
STATE_RETRY_S: Final = 5.0
"""Between two tries to write a step of a revision into a state that cannot be written."""
_UNQUESTIONED: Final = frozenset({"override", "promote", "rollback", "weights", "steps"})
"""What takes versions that were checked before, or that a person wants past the checks."""
FLEET_KNOWN_S: Final = 5.0
"""How long control waits at its start for the supervisor to say who is live, before it takes nobody to be."""

log = EventLog(__name__)


class Reconciler:
    """`written` starts the work on a revision, `finished` waits for its end. One event loop; the store is read and written on it."""

    def __init__(
        self,
        store: StateStore,
        preparation: Preparation,
        fleet: Fleet,
        *,
        features: FeatureServices | None = None,
        warm_up_s: float = WARM_UP_S,
        retry_s: float = STATE_RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._preparation = preparation
        self._checks = Checks(preparation)
        self._features = features or FeatureServices(None)
        self._fleet = fleet
        self._warm_up_s = warm_up_s
        self._retry_s = retry_s
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Takes up what an earlier control left unfinished. The supervisor tells a new control again what workers had answered."""
        for revision in self._store.unfinished():
            self.written(revision)

    def written(self, revision: Revision) -> None:
        """Goes to work on a revision just written; what needs no preparation is live when this returns."""
        try:
            is_live = self._is_at_once(revision)
        except sqlite3.Error as error:  # what is written must not lie there until somebody writes again
            log.error("state_not_written", error=error, endpoint=revision.endpoint, revision=revision.number)
            is_live = False
        if is_live:
            self._note()
            return
        task = self._tasks.get(revision.endpoint)
        if task is None or task.done():
            self._tasks[revision.endpoint] = asyncio.create_task(self._work(revision.endpoint))
        self._fleet.wake()

    async def finished(self, number: int, timeout_s: float) -> Revision:
        """The revision once it is live, failed or superseded, or as it is after `timeout_s`."""
        deadline = self._clock() + timeout_s
        while True:
            revision = self._store.revision(number)
            assert revision is not None, "a revision is never deleted"
            remaining = deadline - self._clock()
            if not revision.is_unfinished or remaining <= 0:
                return revision
            changed = self._changed
            try:
                async with asyncio.timeout(remaining):
                    await changed.wait()
            except TimeoutError:
                continue

    async def rehearse(self, endpoint: str, resolutions: Mapping[str, CompiledModel]) -> list[Problem]:
        """Stages these versions for the live route and says what would stand against them; changes nothing that is served."""
        live = self._live(endpoint)
        if live is None:
            return []
        route = validate(live.document)
        prepared = await self._preparation.prepare(route, resolutions)
        if prepared.problems:
            return list(prepared.problems)
        _, problems = self._checks.fit(route, prepared, live, live.features)
        return problems or await self._checks.answers(route, prepared, live)

    def wake(self) -> None:
        """Makes waiters look again, after something outside this object changed."""
        self._note()

    async def noted(self, timeout_s: float) -> None:
        """Until some revision has ended, at most `timeout_s`."""
        changed = self._changed
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await changed.wait()

    async def close(self) -> None:
        """Stops working; unfinished revisions go on at the next start."""
        tasks = [task for task in self._tasks.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ----------------------------------------------------------------

    async def _work(self, endpoint: str) -> None:
        """Until this endpoint has nothing unfinished. Each turn of the loop ends one revision, once the state can be written, so it ends."""
        while True:
            revision = next((found for found in self._store.unfinished() if found.endpoint == endpoint), None)
            if revision is None:
                return
            try:
                problems = await self._take_further(revision)
            except sqlite3.Error as error:
                await self._wait_for_state(revision, error)
                continue
            except Exception as error:  # noqa: BLE001  # whatever is wrong, the revision must end and the old one stay
                log.error("revision_broke", error=error, endpoint=endpoint, revision=revision.number)
                problems = [
                    Problem("", "internal", "preparation failed unexpectedly; the log of control has the details")
                ]
            try:
                is_failed = bool(problems) and self._store.fail(revision.number, problems)
            except sqlite3.Error as error:
                await self._wait_for_state(revision, error)
                continue
            if is_failed:
                log.warning(
                    "revision_failed", endpoint=endpoint, revision=revision.number, problems=[str(p) for p in problems]
                )
            self._note()

    async def _wait_for_state(self, revision: Revision, error: sqlite3.Error) -> None:
        """The disk is full, or somebody holds the file. The revision is as it was, and is gone on with."""
        log.error("state_not_written", error=error, endpoint=revision.endpoint, revision=revision.number)
        await asyncio.sleep(self._retry_s)

    async def _take_further(self, revision: Revision) -> list[Problem]:
        """One revision to its end; empty when it is live or superseded."""
        if revision.document is None:  # live at once, unless the state could not be written then
            self._store.activate(revision.number, None)
            return []
        try:
            route = validate(revision.document)
        except RouteInvalid as error:  # written by an older release
            return list(error.problems)
        if revision.state == "pending" and not self._store.advance(revision.number, "loading"):
            return []
        prepared = await self._preparation.prepare(route, revision.resolutions)
        if prepared.problems:
            return list(prepared.problems)
        signature, features, problems = await self._checked(revision, route, prepared)
        if problems:
            return problems
        unfit = self._checks.unfit_pins(prepared, signature)
        if unfit and revision.action == "load":
            return [
                Problem("", "pin_unfit", f"version {name[1:]} does not fit the endpoint's signature") for name in unfit
            ]
        models = {name: model for name, model in prepared.models.items() if name not in unfit}
        compiled = compile_route(route, revision=revision.number, models=models, signature=signature, features=features)
        if self._needs_warming(compiled):
            if not self._store.advance(revision.number, "warming", compiled):
                return []
            self._note()
            await self._fleet.known(FLEET_KNOWN_S)
            problems = await self._fleet.warm(
                revision.number, self._warm_up_s, lambda: self._is_wanted(revision.number)
            )
            if problems:
                return problems
        if self._store.activate(revision.number, compiled):
            log.info("revision_live", endpoint=revision.endpoint, revision=revision.number, author=revision.author)
        return []

    def _is_at_once(self, revision: Revision) -> bool:
        """Whether the revision could be made live right here, because workers hold all that it needs."""
        if revision.document is None:
            return self._store.activate(revision.number, None)
        base = self._base(revision)
        if base is None or self._live(revision.endpoint) is None:
            return False
        route = readable(revision)
        if route is None:  # written by an older release, and taken up at a start: it fails with its problems
            return False
        pins = pins_of(revision.resolutions)
        models = {name: model for name, model in revision.resolutions.items() if name in route.models or name in pins}
        if models.keys() != route.models.keys() | pins.keys():
            return False
        features = unchanged(route, base.signature, base)
        if (features is None) != (route.features is None):
            return False
        compiled = compile_route(
            route, revision=revision.number, models=models, signature=base.signature, features=features
        )
        if self._needs_warming(compiled) or any(
            self._preparation.manifest(model.digest) is None for model in models.values()
        ):
            return False
        return self._store.activate(revision.number, compiled)

    async def _checked(
        self, revision: Revision, route: Route, prepared: Prepared
    ) -> tuple[Signature, CompiledFeatures | None, list[Problem]]:
        """The endpoint's signature and features, and what stands against these and the versions."""
        base = self._base(revision)
        declared = self._checks.declared(route, prepared, base)
        features, unfit = await self._features.compile(route, declared, base)
        signature, problems = self._checks.fit(route, prepared, base, features)
        problems += unfit
        if not problems and revision.action not in _UNQUESTIONED:
            problems = await self._checks.answers(route, prepared, self._live(revision.endpoint))
        return signature, features, problems

    def _base(self, revision: Revision) -> CompiledRoute | None:
        """Whose signature holds on: the live one's, or that of the revision gone back to. An override declares the endpoint anew."""
        match revision.action:
            case "override":
                return None
            case "rollback":
                return self._store.compiled(revision.restores)
            case _:
                return self._live(revision.endpoint)

    def _live(self, endpoint: str) -> CompiledRoute | None:
        live = self._store.live(endpoint)
        return self._store.compiled(live.number) if live else None

    def _needs_warming(self, compiled: CompiledRoute) -> bool:
        previous = self._store.previous(compiled.endpoint)
        return needs_warming(
            compiled, self._live(compiled.endpoint), self._store.compiled(previous.number) if previous else None
        )

    def _is_wanted(self, number: int) -> bool:
        revision = self._store.revision(number)
        return revision is not None and revision.is_unfinished

    def _note(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
