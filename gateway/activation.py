"""How a worker follows the routes: it polls the state, warms what is coming on one slow thread, and switches one reference.

    changed? ──▶ switch every endpoint whose live revision is warm ──▶ load the next missing model, or read ──▶ look again
                                                                       the next revision (live, pending, previous)

A look costs 2 µs while nothing changes. Whatever cannot be loaded leaves the revision before it serving, and is told to control.
"""

import asyncio
import fcntl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from gateway.dataplane import Dataplane
from gateway.gauges import RouteGauges
from gateway.inventory import Place, inventory, loadable
from gateway.live import LiveTable, ServedEndpoint, table_of
from gateway.pipe import Line
from gateway.repository import VersionState
from gateway.rest.protocol import HotPaths
from gateway.state.compiled import CompiledModel, CompiledRoute, RouteState
from gateway.state.reader import StateReader, follow
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.log import EventLog
from models.catalog import Catalog, LoadedModel
from models.niceness import thread_steps_back
from models.staged import ModelKey
from routing.table import EndpointTable

log = EventLog(__name__)

POLL_S: Final = 0.02
RETRY_S: Final = 10.0
"""How long a live model that could not be loaded is left alone before it is tried again (a disk may come back)."""
_NICE: Final = 3
"""Enough for the loop to take the core when it wakes; more, and control could keep the thread off it while it holds the interpreter lock."""
_SWITCH_S: Final = 0.0005
"""After how long the loop gets the interpreter lock back from the thread while that works; else the interpreter's own 5 ms hold."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")
Attempt = tuple[str, int]
"""An endpoint at a revision."""


class _Closed(Exception):
    """The worker closed while its thread waited for its turn."""


class Activation:
    """Belongs to the event loop; only `Catalog.load` and `table_of` run elsewhere, one at a time, on a thread of low priority."""

    def __init__(
        self,
        *,
        reader: StateReader,
        catalog: Catalog,
        plane: Dataplane,
        paths: HotPaths,
        page: CounterPage,
        tell: Callable[[Line], None],
        default_endpoint: str | None = None,
        turns: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._catalog = catalog
        self._plane = plane
        self._paths = paths
        self._tell = tell
        self._default = default_endpoint
        self._turns = turns
        self._clock = clock
        self._gauges = RouteGauges(page)
        self._version = -1
        self._states: list[RouteState] = []
        self._tables: dict[Attempt, EndpointTable] = {}
        self._prepared: dict[str, ServedEndpoint] = {}
        self._failed: dict[Attempt, float] = {}
        self._problems: dict[Attempt, str] = {}
        self._unread: set[Attempt] = set()
        self._broken: set[str] = set()
        self._leaving: dict[Place, str] = {}
        self._working: asyncio.Future[Any] | None = None
        self._has_landed = False
        self._is_closed = False
        self._switch_s = sys.getswitchinterval()
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="warm-up", initializer=partial(thread_steps_back, _NICE)
        )

    @property
    def endpoints(self) -> dict[str, bool]:
        """Every endpoint that is live, and whether this worker serves it."""
        table = self._plane.table.endpoints
        return {one.endpoint: one.endpoint in table for one in self._states if one.live or one.unread_live}

    @property
    def is_settled(self) -> bool:
        """Whether every live revision is served here, or known not to be servable: the moment at which a worker may listen."""
        return self._version >= 0 and all(
            self._serves(state.live) or _attempt(state.live) in self._failed for state in self._states if state.live
        )

    def index(self) -> list[VersionState]:
        """Every endpoint × version that is loaded here, or on its way in or out."""
        return inventory(
            self._states,
            self._plane.table.endpoints,
            is_loaded=lambda digest: self._catalog.get(digest) is not None,
            problem_of=lambda route: self._problems.get(_attempt(route)) if _attempt(route) in self._failed else None,
            leaving=[place for place, digest in self._leaving.items() if self._catalog.get(digest) is not None],
        )

    async def run(self) -> None:
        """Follows the routes until it is cancelled."""
        await follow(self.look, POLL_S, log)

    def look(self) -> None:
        """One look at the state, and what follows from it at once."""
        version = self._reader.data_version()
        if version == self._version and not self._has_landed and not self._is_retry_due():
            return
        if version != self._version:
            self._take_in(self._reader.routes())
            self._version = version
        self._switch()
        self._warm_pending()
        self._work_next()
        if self._working is None:
            self._let_go()
        self._gauges.models(self._catalog.loaded(), self._model_states())
        self._has_landed = False  # last: a look that fails is to come again

    def close(self) -> None:
        """Waits for a load in progress, not for its turn to load; nothing is switched any more."""
        self._is_closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._reader.close()

    def _take_in(self, states: list[RouteState]) -> None:
        """A new state; forgets what was prepared or failed for revisions that nobody wants any more."""
        before = {
            (route.endpoint, model.key.version): model.digest for route in self._wanted() for model in loadable(route)
        }
        self._states = self._read(states)
        named = {model.digest for route in self._wanted() for model in loadable(route)}
        leaving = self._leaving | before
        self._leaving = {place: digest for place, digest in leaving.items() if digest not in named}
        self._broken &= named
        wanted = {_attempt(route) for route in self._wanted()}
        self._problems = {attempt: text for attempt, text in self._problems.items() if attempt in wanted}
        self._failed = {attempt: at for attempt, at in self._failed.items() if attempt in wanted}
        self._tables = {attempt: table for attempt, table in self._tables.items() if attempt in wanted}
        self._prepared = {name: built for name, built in self._prepared.items() if (name, built.revision) in wanted}

    def _read(self, states: list[RouteState]) -> list[RouteState]:
        """Where another release has written what is live, the revision before it stays so; that is told, once."""
        before = {state.endpoint: state.live for state in self._states}
        unread: set[Attempt] = set()
        for state in states:
            for one in (state.unread_live, state.unread_pending):
                if one is not None:
                    unread.add((state.endpoint, one.revision))
                    if (state.endpoint, one.revision) not in self._unread:
                        self._tell_failed(state.endpoint, one.revision, one.problem)
        self._unread = unread
        return [
            msgspec.structs.replace(state, live=before.get(state.endpoint)) if state.unread_live else state
            for state in states
        ]

    # ── switching ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _switch(self) -> None:
        """Makes the newest live revision of every endpoint the served one, where its models are loaded. All in one new table."""
        before = self._plane.table.endpoints
        after: dict[str, ServedEndpoint] = {}
        cold: dict[str, tuple[str, ...]] = {}
        for state in self._states:
            if state.live is None:
                if state.unread_live is not None:
                    cold[state.endpoint] = ()
                continue
            served = before.get(state.endpoint)
            if served is None or served.revision != state.live.revision or self._keeps_more(served, state.previous):
                served = self._built(state.live, state.previous) or served
            if served is not None:
                after[state.endpoint] = served
            else:
                cold[state.endpoint] = tuple(dict.fromkeys(model.key.version for model in loadable(state.live)))
        changed = [endpoint for name, endpoint in after.items() if before.get(name) is not endpoint]
        names = [*after, *cold]
        table = LiveTable(after, self._default or (names[0] if len(names) == 1 else None), cold)
        if not changed and after.keys() == before.keys() and table == self._plane.table:
            return
        self._plane.table = table
        self._paths.rebuild(table)
        self._gauges.show(after, gone=before.keys() - after.keys())
        for endpoint in changed:
            self._prepared.pop(endpoint.name, None)
            if (was := before.get(endpoint.name)) is not None and was.revision == endpoint.revision:
                continue
            log.info("route_active", endpoint=endpoint.name, revision=endpoint.revision)
            self._tell({"event": "active", "endpoint": endpoint.name, "revision": endpoint.revision})

    def _built(self, route: CompiledRoute, previous: CompiledRoute | None) -> ServedEndpoint | None:
        """The endpoint at a revision, None while a model or its split is missing or when it cannot be built here (which is told).

        `previous`: the revision that a rollback would go to, whose models answer for their versions as pins do.
        """
        prepared = self._prepared.get(route.endpoint)
        if prepared is not None and prepared.revision == route.revision:
            return prepared
        table = self._tables.get(_attempt(route))
        if table is None or _attempt(route) in self._failed or self._missing(route) is not None:
            return None
        try:
            return ServedEndpoint(route, self._catalog, table, self._kept(previous))
        except Exception as error:  # noqa: BLE001  # another release's document may break anything; the old revision goes on
            self._fail(route, error)
            return None

    def _keeps_more(self, served: ServedEndpoint, previous: CompiledRoute | None) -> bool:
        """Whether models for a rollback were loaded after the endpoint was built, as at a start, where they come last."""
        return any(model.digest not in served.kept for model in self._kept(previous))

    def _kept(self, previous: CompiledRoute | None) -> list[CompiledModel]:
        """The variants of a previous revision that are loaded here; its pins are no longer wanted by anybody."""
        models = loadable(previous) if previous else []
        return [model for model in models if model.role == "variant" and self._catalog.get(model.digest) is not None]

    # ── warming ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _warm_pending(self) -> None:
        """Builds every pending endpoint whose models are loaded, and says so, once."""
        for state in self._states:
            route = state.pending
            prepared = self._prepared.get(state.endpoint)
            if route is None or (prepared is not None and prepared.revision == route.revision):
                continue
            built = self._built(route, state.live)
            if built is not None:
                self._prepared[state.endpoint] = built
                self._tell({"event": "warm", "endpoint": route.endpoint, "revision": route.revision})

    def _work_next(self) -> None:
        """Hands the thread what is needed most, unless it has work."""
        if self._working is not None:
            return
        self._working = self._handed_over()
        sys.setswitchinterval(self._switch_s if self._working is None else _SWITCH_S)

    def _handed_over(self) -> "asyncio.Future[Any] | None":
        """The thread's next piece of work; None when all that is wanted is there."""
        loop = asyncio.get_running_loop()
        for route, is_next in self._by_need():
            if _attempt(route) in self._failed:
                continue
            model = self._missing(route)
            if model is not None:
                work = loop.run_in_executor(self._thread, self._alone, self._catalog.load, model.digest)
                work.add_done_callback(lambda done, model=model: self._loaded(model, done))  # type: ignore[misc]
                return work
            if is_next and _attempt(route) not in self._tables:
                dealt = loop.run_in_executor(self._thread, self._alone, table_of, route)
                dealt.add_done_callback(lambda done, route=route: self._dealt(route, done))  # type: ignore[misc]
                return dealt
        return None

    def _alone(self, work: Callable[[_In], _Out], subject: _In) -> _Out:
        """On the thread: while this worker serves, only one of all workers prepares at a time, so that a core is left for requests."""
        if self._turns is None or not self._plane.table.endpoints:
            return work(subject)
        with self._turns.open("w") as turn:
            while not self._is_closed:
                try:
                    fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(POLL_S)
                else:
                    return work(subject)
        raise _Closed

    def _missing(self, route: CompiledRoute) -> CompiledModel | None:
        """The first of its models that is not loaded."""
        return next((model for model in loadable(route) if self._catalog.get(model.digest) is None), None)

    def _by_need(self) -> list[tuple[CompiledRoute, bool]]:
        """Revisions, and whether each is to be served next; of the previous ones only the models are kept at hand."""
        live = [(state.live, True) for state in self._states if state.live and not self._serves(state.live)]
        pending = [(state.pending, True) for state in self._states if state.pending]
        previous = [(state.previous, False) for state in self._states if state.previous]
        return live + pending + previous

    def _loaded(self, model: CompiledModel, done: "asyncio.Future[LoadedModel]") -> None:
        """On the loop, after the thread. A model that cannot be loaded fails every revision that needs it."""
        if done.cancelled() or isinstance(error := done.exception(), _Closed):
            return
        if error is None:
            self._broken.discard(model.digest)
            log.info("model_warmed", model=model.key.name, version=model.key.version, digest=model.digest[:12])
        else:
            self._broken.add(model.digest)
            for route in self._wanted():
                if any(other.digest == model.digest for other in loadable(route)):
                    self._fail(route, error)
        self._landed()

    def _dealt(self, route: CompiledRoute, done: "asyncio.Future[EndpointTable]") -> None:
        """On the loop, after the thread: a revision's table, or why there is none."""
        if done.cancelled() or isinstance(error := done.exception(), _Closed):
            return
        if error is None:
            self._tables[_attempt(route)] = done.result()
        else:
            self._fail(route, error)
        self._landed()

    def _landed(self) -> None:
        self._working, self._has_landed = None, True
        if not self._is_closed:
            self.look()

    def _model_states(self) -> dict[ModelKey, str]:
        """Of what is wanted: `warm`, `loading` or about to be, `failed`; nothing of what is not tried because another model failed."""
        states: dict[ModelKey, str] = {}
        for route in self._wanted():
            for model in loadable(route):
                if model.digest in self._broken:
                    states[model.key] = "failed"
                elif self._catalog.get(model.digest) is not None:
                    states[model.key] = "warm"
                elif _attempt(route) not in self._failed:
                    states[model.key] = "loading"
        return states

    def _fail(self, route: CompiledRoute, error: BaseException) -> None:
        if _attempt(route) in self._failed:
            self._failed[_attempt(route)] = self._clock()
            return
        self._failed[_attempt(route)] = self._clock()
        problem = f"{type(error).__name__}: {error}"
        self._problems[_attempt(route)] = _without_path(error) if isinstance(error, OSError) else problem
        self._tell_failed(route.endpoint, route.revision, problem)

    def _tell_failed(self, endpoint: str, revision: int, problem: str) -> None:
        log.error("route_failed", endpoint=endpoint, revision=revision, problem=problem)
        self._tell({"event": "failed", "endpoint": endpoint, "revision": revision, "problem": problem})

    def _is_retry_due(self) -> bool:
        """Forgets the failure of live revisions after a while, so that they are tried again."""
        now = self._clock()
        due = [
            _attempt(state.live)
            for state in self._states
            if state.live and now - self._failed.get(_attempt(state.live), now) > RETRY_S
        ]
        for attempt in due:
            del self._failed[attempt]
        return bool(due)

    def _let_go(self) -> None:
        """Drops models that no live, pending or previous revision names, once their last lease is back."""
        named = {model.digest for route in self._wanted() for model in loadable(route)}
        served = {model.staged.digest for endpoint in self._plane.table.endpoints.values() for model in endpoint.models}
        for model in self._catalog.retain(named | served):
            log.info("model_dropped", model=model.staged.key.name, version=model.staged.key.version)
        self._leaving = {
            place: digest for place, digest in self._leaving.items() if self._catalog.get(digest) is not None
        }

    def _wanted(self) -> list[CompiledRoute]:
        """Every revision whose models are kept."""
        return [route for state in self._states for route in (state.live, state.pending, state.previous) if route]

    def _serves(self, route: CompiledRoute) -> bool:
        served = self._plane.table.endpoints.get(route.endpoint)
        return served is not None and served.revision == route.revision


def _without_path(error: OSError) -> str:
    """For callers of the index: where files lie is nobody's matter on the data listeners."""
    return f"{type(error).__name__}: {error.strerror or 'the files cannot be read'}"


def _attempt(route: CompiledRoute) -> Attempt:
    return route.endpoint, route.revision
