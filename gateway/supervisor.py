"""The supervisor: owns the listening sockets and the state directory, starts, watches, restarts and drains the other processes, and
answers probes and scrapes, whatever happens to them. It knows nothing of models, routes or requests.
"""

import asyncio
import contextlib
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Final

import msgspec

from gateway.keys.start import check, tls_context
from gateway.pipe import Line
from gateway.processes.birth import Role, new_writer
from gateway.processes.board import Board
from gateway.processes.child import Child
from gateway.processes.health import Watch, is_hung
from gateway.processes.lock import StateLock, StateTaken
from gateway.processes.place import Place, resident_bytes
from gateway.processes.ports import PortGroup, PortTaken, bind
from gateway.processes.switchboard import Switchboard
from gateway.settings import WEBHOOK_PATH, Settings, SettingsInvalid
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.log import EventLog, configure
from gateway.telemetry.responder import Answer, Responder
from gateway.telemetry.retained import fold_dead, read_pages

log = EventLog(__name__)

_LOOK_S: Final = 0.5
_WORKERS_SHARE: Final = 0.75
"""Share of `grace_s` in which workers finish what they hold; the rest is for shadow and control, which drain after them."""


_OURS: Final = (sys.executable, "-P", "-m")
"""-P: without it a `models.py` in the folder where somebody starts a gateway would be taken for our package of that name."""


class Commands(msgspec.Struct, frozen=True):
    """How each role is started. Tests put small programs here."""

    worker: tuple[str, ...] = (*_OURS, "gateway.worker")
    shadow: tuple[str, ...] = (*_OURS, "gateway.shadow")
    control: tuple[str, ...] = (*_OURS, "gateway.control")
    features: tuple[str, ...] = (*_OURS, "gateway.features")


def serve(settings: Settings, *, commands: Commands | None = None, say: Callable[[str], None] = print) -> int:
    """Runs a gateway until it is told to stop; answers the exit status. What prevents a start is one line on standard error."""
    os.umask(0o077)  # all processes inherit it: what they keep is for their owner alone, also what libraries write
    try:
        check(settings)
        supervisor = Supervisor(settings, commands=commands or Commands(), say=say)
    except (SettingsInvalid, StateTaken, PortTaken, OSError) as error:
        sys.stderr.write(f"runoff: {error}\n")
        return 1
    try:
        return asyncio.run(supervisor.run())
    finally:
        supervisor.close()


class Supervisor:
    """One gateway. Everything happens on one event loop, and nothing there takes longer than a scrape (a few milliseconds)."""

    def __init__(
        self,
        settings: Settings,
        *,
        commands: Commands,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the state directory and the ports. Raises StateTaken, PortTaken or OSError, and then holds nothing."""
        self._settings = settings
        self._say = say
        self._clock = clock
        self._run_folder = settings.state_path / "run"
        with contextlib.ExitStack() as held:
            held.enter_context(contextlib.closing(StateLock(settings.state_path)))
            self._groups = {
                name: held.enter_context(contextlib.closing(PortGroup(host, port, f"{name}_port")))
                for name, host, port in (
                    ("rest", settings.host, settings.rest_port),
                    ("grpc", settings.host, settings.grpc_port),
                    ("admin", settings.admin_host, settings.admin_port),
                    ("webhook", settings.webhook_host, settings.webhook_port),
                )
                if port is not None
            }
            self._metrics: socket.socket = held.enter_context(
                contextlib.closing(bind(settings.metrics_host, settings.metrics_port, "metrics_port"))
            )
            self._page = held.enter_context(contextlib.closing(CounterPage(self._run_folder, new_writer("supervisor"))))
            self._held = held.pop_all()
        self._settings = msgspec.structs.replace(
            settings,
            **{f"{name}_port": group.port for name, group in self._groups.items()},
            metrics_port=self._metrics.getsockname()[1],
        )
        configure("supervisor", settings.telemetry.log_level, folder=settings.state_path / "logs", page=self._page)
        self._board = Board()
        self._places = [
            *(self._place("worker", f"worker-{n}", commands.worker, "rest", "grpc") for n in range(settings.workers)),
            self._place("shadow", "shadow", commands.shadow),
            *([self._place("features", "features", commands.features)] if settings.features_repo else []),
            self._place("control", "control", commands.control, *(self._groups.keys() & {"admin", "webhook"})),
        ]
        self._switchboard = Switchboard(self._places)
        self._stopping = asyncio.Event()
        self._is_hopeless = False
        self._ready_slots: dict[str, int] = {}
        self._exposition = Exposition(partial(read_pages, self._run_folder))

    async def run(self) -> int:
        """Until a signal, or until no worker can be brought up at all. 0: stopped in order; 1: gave up."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)
        self._fold()
        self._describe()
        responder = Responder({"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._scrape})
        await responder.start(self._metrics, tls_context(self._settings, "metrics"))
        self._announce()
        lives = {place.name: asyncio.create_task(self._keep(place)) for place in self._places}
        watching = asyncio.create_task(self._watch())
        await self._stopping.wait()
        await self._drain(lives)
        watching.cancel()
        await asyncio.gather(watching, *lives.values(), return_exceptions=True)
        await responder.stop()
        self._fold()
        log.info("gateway_stopped")
        return 1 if self._is_hopeless else 0

    def close(self) -> None:
        """Lets go of ports and state directory."""
        self._held.close()

    # ── lives ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep(self, place: Place) -> None:
        """One life of a place after another, until the gateway stops."""
        while not self._stopping.is_set():
            try:
                await self._live(place)
            except Exception as error:  # noqa: BLE001  # whatever it was: a place that is not kept any more is never started again
                log.error("process_lost", child=place.name, error=error)
                if place.child is not None:
                    place.child.kill()
            pause_s = self._buried(place)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _live(self, place: Place) -> None:
        """One life, from its start to its end."""
        try:
            child = await place.start(self._settings, self._clock())
        except OSError as error:  # no memory, no descriptors: later there may be
            log.error("process_not_started", child=place.name, problem=str(error))
            return
        self._greet(place, child)
        end = await child.live(partial(self._hear, place))
        if not self._stopping.is_set():
            log.warning("process_exited", child=place.name, writer=child.writer, end=end)

    def _greet(self, place: Place, child: Child) -> None:
        """What a newborn is told, and others of it."""
        if place.role == "worker":
            self._board.born(place.name, child.writer)
        if place.role == "control":
            for line in (self._board.roster(), *self._board.retold()):
                child.send(line)
        if self._stopping.is_set():
            child.send({"command": "drain"})

    def _hear(self, place: Place, line: Line) -> None:
        place.heard(line, self._clock())
        if self._switchboard.hear(place, line) or place.role != "worker":
            return
        told = self._board.hear(place.name, line)
        if told is not None:
            self._control.send(told)
        if line.get("event") == "ready":
            log.info("worker_ready", child=place.name)
            self._control.send(self._board.roster())
        self._publish_readiness()

    def _buried(self, place: Place) -> float:
        """What a death means for everybody else; answers the pause before the next life."""
        if place.child is not None:
            self._switchboard.died(place.child.writer)
        pause_s = place.ended(self._clock())
        if place.role == "worker":
            self._board.died(place.name)
            self._control.send(self._board.roster())
            self._publish_readiness()
            workers = [other for other in self._places if other.role == "worker"]
            if all(worker.backoff.is_hopeless and not worker.was_ready for worker in workers):
                log.error("gateway_gave_up", problem="no worker could be started; the lines above say why")
                self._is_hopeless = True
                self._stopping.set()
        self._fold()
        return pause_s

    def _fold(self) -> None:
        """Keeps what dead processes have counted."""
        try:
            losses = fold_dead(self._run_folder)
        except Exception as error:  # noqa: BLE001  # a full disk, a spoilt file: counts may be late, processes may not
            log.error("counters_not_folded", error=error)
            return
        for writer, lost in losses.items():
            if lost:
                log.warning("records_lost", writer=writer, count=lost)

    async def _watch(self) -> None:
        """Kills what hangs: it is then restarted like anything that ended."""
        watch = Watch()
        own = self._page.gauge("runoff_process_resident_bytes", {"process": "supervisor"})
        while True:
            await asyncio.sleep(_LOOK_S)
            now = self._clock()
            self._page.floats[own] = resident_bytes(os.getpid())
            if not watch.may_judge(now):
                continue
            for place in self._places:
                child = place.child
                if child is not None and is_hung(place.role, child.started_at, child.beat_at, now):
                    log.error("process_hung", child=place.name, writer=child.writer)
                    child.kill()

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _signalled(self, number: int) -> None:
        if not self._stopping.is_set():
            log.info("gateway_stopping", signal=signal.Signals(number).name)
            self._board.is_draining = True
            self._stopping.set()
        elif number == signal.SIGINT:
            log.warning("gateway_killed", signal="SIGINT")
            for place in self._places:
                if place.child is not None:
                    place.child.kill()

    async def _drain(self, lives: Mapping[str, "asyncio.Task[None]"]) -> None:
        """Workers first, as shadow and control still take what they write; then these. Whoever is late is killed."""
        self._board.is_draining = True
        self._publish_readiness()
        deadline = self._clock() + self._settings.grace_s
        workers = [place for place in self._places if place.role == "worker"]
        others = [place for place in self._places if place.role != "worker"]
        await self._end(workers, lives, self._settings.grace_s * _WORKERS_SHARE)
        await self._end(others, lives, max(0.1, deadline - self._clock()))

    async def _end(self, places: Iterable[Place], lives: Mapping[str, "asyncio.Task[None]"], within_s: float) -> None:
        places = list(places)
        for place in places:
            place.close_sockets()
            place.send({"command": "drain"})
        tasks = [lives[place.name] for place in places]
        _, late = await asyncio.wait(tasks, timeout=within_s)
        for place in places:
            if place.child is not None:
                log.warning("process_killed", child=place.name, problem=f"not done within {within_s:.1f} s")
                place.child.kill()
        if late:
            await asyncio.wait(late)

    # ── what others read ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _livez(self, _accept: str) -> Answer:
        return Answer(200, b'{"live":true}')

    def _readyz(self, _accept: str) -> Answer:
        readiness = self._board.readiness()
        return Answer(200 if readiness.ready else 503, msgspec.json.encode(readiness))

    def _scrape(self, accept: str) -> Answer:
        body, content_type = self._exposition.render(accept)
        return Answer(200, body, content_type)

    def _publish_readiness(self) -> None:
        endpoints = self._board.readiness().endpoints
        for name in self._ready_slots.keys() - endpoints.keys():
            self._page.floats[self._ready_slots.pop(name)] = float("nan")
        for name, is_ready in endpoints.items():
            slot = self._ready_slots.get(name)
            if slot is None:
                slot = self._ready_slots[name] = self._page.gauge("runoff_endpoint_ready", {"endpoint": name})
            self._page.floats[slot] = float(is_ready)

    def _describe(self) -> None:
        info = self._page.gauge(
            "runoff_build_info", {"version": version("runoff"), "python": platform.python_version()}
        )
        up = self._page.gauge("runoff_process_up", {"process": "supervisor"})
        self._page.floats[info] = self._page.floats[up] = 1.0

    def _announce(self) -> None:
        host, port = self._metrics.getsockname()[:2]
        metrics = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        scheme = self._settings.tls.scheme
        self._say(f"REST     {scheme('rest')}://{self._groups['rest'].text}")
        self._say(f"gRPC     {self._groups['grpc'].text}")
        self._say(f"metrics  {scheme('metrics')}://{metrics}/metrics")
        self._say(f"admin    {scheme('admin')}://{self._groups['admin'].text}")
        if "webhook" in self._groups:
            self._say(f"webhook  {scheme('webhook')}://{self._groups['webhook'].text}{WEBHOOK_PATH}")

    @property
    def _control(self) -> Place:
        return self._places[-1]

    def _place(self, role: Role, name: str, command: tuple[str, ...], *groups: str) -> Place:
        return Place(role, name, command, {group: self._groups[group] for group in groups}, self._page)
