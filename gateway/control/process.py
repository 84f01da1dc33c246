"""The control process: wires the state, the reconciler, the alias mover, the lake and the admin API, and ends them in order."""

import asyncio
import contextlib
import getpass
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import uvicorn
from starlette.types import ASGIApp

from gateway.admin.app import build, webhooks_alone
from gateway.admin.context import Admin
from gateway.admin.deliveries import Webhooks
from gateway.control.aliases import AliasMover
from gateway.control.answering import Answering
from gateway.control.changes import Changes
from gateway.control.features import FeatureServices
from gateway.control.feedback import Feedback
from gateway.control.fleet import Fleet
from gateway.control.follow import Follower
from gateway.control.guards import Guards
from gateway.control.planning import Planner
from gateway.control.preparation import Preparation
from gateway.control.pruning import Pruning
from gateway.control.ramp import Ramps
from gateway.control.reconcile import Reconciler
from gateway.control.registry import Registries
from gateway.control.remotes import Remotes
from gateway.control.tuning import Tuning
from gateway.control.unit_counts import UnitCounts
from gateway.features.client import FeatureClient
from gateway.inquiries import answered
from gateway.keys.key_sets import KeySetSource
from gateway.keys.usage import tell_used
from gateway.keys.watch import KeyWatch
from gateway.pipe import Line, Pipe
from gateway.processes.birth import Birth, adopt, new_writer
from gateway.settings import Listener, Settings
from gateway.spool.segment import SegmentWriter
from gateway.state.documents import documents
from gateway.state.store import StateStore
from gateway.streams.answers import StagedAnswers
from gateway.streams.sinks import relays
from gateway.streams.tail import LakeStream
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.log import EventLog, configure
from gateway.unit_key import unit_key
from models.artifacts import Artifacts
from routing.errors import RouteInvalid
from routing.records import QualityBlock
from routing.traffic import Retention, Route
from routing.validate import validate

if TYPE_CHECKING:
    from gateway.control.pulls import Pulls
    from gateway.evidence.evidence import Evidence

log = EventLog(__name__)

BEAT_S: Final = 1.0
_COMPARED_S: Final = 10.0
_STAGERS: Final = 2
_ASKERS: Final = 4


class Server(uvicorn.Server):
    """uvicorn without its signal handlers (the process decides when it ends), and with a word once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Control:
    """Everything of one control process. Made inside its event loop; raises what the state database raises."""

    def __init__(self, birth: Birth, *, clock: Callable[[], float] = time.monotonic) -> None:
        settings = birth.settings
        self._settings = settings
        self._clock = clock
        self._page = CounterPage(settings.state_path / "run", birth.writer)
        configure(birth.process, settings.telemetry.log_level, folder=settings.state_path / "logs", page=self._page)
        self._pipe = Pipe(birth.pipe_fd)
        self._stopping = asyncio.Event()
        self._stagers = ThreadPoolExecutor(_STAGERS, "stage")
        self._askers = ThreadPoolExecutor(_ASKERS, "registry")
        self._store = StateStore(settings.state_file)
        self._fleet = Fleet(clock=clock)
        self._artifacts = Artifacts(settings.artifacts_path)
        self._artifacts.recover()
        registries = Registries(settings, self._artifacts)
        state = settings.state_path
        answers = StagedAnswers(settings.artifacts_path)
        evidence = _evidence(settings.lake_uri, answers, state / "spill")
        preparation = Preparation(
            self._store,
            registries.stage,
            registries.resolve,
            settings.artifacts_path,
            self._askers,
            self._stagers,
            lambda endpoint, signature: evidence().recorded(endpoint, signature),
        )
        self._features = FeatureClient(state / "run")
        features = FeatureServices(self._features if settings.features_repo else None)
        self._reconciler = Reconciler(self._store, preparation, self._fleet, features=features, clock=clock)
        self._aliases = AliasMover(self._store, registries.named, registries.move, self._askers)
        self._lake = LakeStream(
            settings.lake_uri,
            state / "spool",
            answers=answers,
            letters=state / "dead_letters",
            forgets=state / "forgets.json",
            retention=partial(_retention, settings.state_file),
            ingested_s=settings.ingested_kept_s,
        )
        self._relays = relays(settings)
        self._lake_stop = asyncio.Event()
        self._evidence = evidence
        self._feedback = Feedback(settings, evidence, self._page, self._record_quality)
        self._spool: SegmentWriter | None = None
        remotes = Remotes(settings, os.environ, self._store.routes)
        changes = Changes(self._store, self._reconciler, against=remotes.problems)
        units = UnitCounts(lambda *asked: evidence().units(*asked), clock=clock)
        guards = Guards(self._store, state / "run", settings.ramps, units=units, clock=clock)
        self._ramps = Ramps(self._store, changes, self._reconciler, alarms=(guards.alarm,))
        self._answering = Answering(changes, self._reconciler, self._fleet, self._store.keys)
        self._answers: set[asyncio.Task[None]] = set()
        self._follower = Follower(
            self._store,
            changes,
            self._reconciler,
            registries.aliases,
            self._askers,
            poll_s=settings.registry_poll_s,
            on_return=self._aliases.wake,
        )
        self._keys = KeyWatch(settings)
        self._tuning = Tuning(self._store, settings.artifacts_path, evidence, workers=settings.workers)
        admin = Admin(
            settings=settings,
            store=self._store,
            fleet=self._fleet,
            changes=changes,
            planner=Planner(self._store, changes, preparation, features),
            reconciler=self._reconciler,
            evidence=evidence,
            follower=self._follower,
            ramps=self._ramps,
            webhooks=Webhooks(settings.webhook_secret, self._follower.nudge) if settings.webhook_secret else None,
            artifacts=settings.artifacts_path,
            tuning=self._tuning,
            principal=f"local:{_user()}",
            keys=self._keys,
            forget=self._lake.forget,
        )
        listening: list[tuple[Listener, ASGIApp, int | None]] = [("admin", build(admin), birth.admin_fd)]
        if birth.webhook_fd is not None:
            listening.append(("webhook", webhooks_alone(admin), birth.webhook_fd))
        self._servers = [(Server(_config(app, settings, listener)), fd) for listener, app, fd in listening]

    async def run(self) -> None:
        """Until the supervisor says drain, goes away, or a signal comes."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        if self._store.audit_broken_at is not None:
            log.error("audit_broken", sequence=self._store.audit_broken_at)
        rows, newest = self._store.audit_newest
        # Outside of the database: rows that are cut off its end show here.
        log.info("audit_read", rows=rows, hash=newest)
        serving = {
            asyncio.create_task(server.serve(sockets=[] if fd is None else [adopt(fd)])) for server, fd in self._servers
        }
        lives = [
            self._listen(),
            self._beat(),
            self._aliases.run(),
            self._follower.run(),
            self._ramps.run(),
            self._keys.run(),
            tell_used(self._keys.ring, self._note_used),
            self._feedback.run(),
            self._tuning.run(),
        ]
        lives.append(Pruning(self._store, self._artifacts, self._stagers).run())
        lives += [relay.run(self._lake_stop) for relay in self._relays]
        if self._settings.labels_file is not None:
            lives.append(self._pulls(Path(self._settings.labels_file)).run())
        oidc = self._settings.auth.oidc
        if oidc.issuer is not None:
            lives.append(KeySetSource(oidc, partial(self._store.keys.keep_key_set, oidc.issuer)).run())
        tasks = [asyncio.create_task(life) for life in lives]
        self._reconciler.start()
        lake = asyncio.create_task(self._carry_to_lake())
        stopping = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait({*serving, stopping, lake, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            if not task.cancelled() and task.exception() is not None:
                log.error("control_broke", error=task.exception())
        await self._end(serving, lake, tasks)

    async def _end(
        self, serving: set[asyncio.Task[None]], lake: asyncio.Task[None], tasks: list[asyncio.Task[None]]
    ) -> None:
        """Callers first, then revisions (they go on at the next start), then what the lake still has to take."""
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.wait(serving, timeout=2.0)
        await self._reconciler.close()
        self._lake_stop.set()
        await asyncio.wait({lake}, timeout=self._settings.grace_s / 4)  # what it does not take stays in the spool
        for task in (*tasks, *self._answers, lake):
            task.cancel()
        await asyncio.gather(*tasks, *self._answers, return_exceptions=True)
        self._stagers.shutdown(wait=False, cancel_futures=True)
        self._askers.shutdown(wait=False, cancel_futures=True)
        if self._spool is not None:
            self._spool.close()
        self._tuning.close()
        await self._features.close()
        self._keys.close()
        self._store.close()
        self._page.close()
        self._pipe.close()

    async def _carry_to_lake(self) -> None:
        """From the spool, once sinks have held their positions to the lake as it was found: one restored from a backup lies before them."""
        if self._relays:
            await asyncio.wait([asyncio.create_task(relay.begin()) for relay in self._relays], timeout=_COMPARED_S)
        await self._lake.run(self._lake_stop)

    async def _listen(self) -> None:
        """The supervisor's lines; when they end, so do we."""
        async for line in self._pipe:
            match line.get("command"):
                case "drain":
                    self._stopping.set()
                case "asked":
                    task = asyncio.create_task(self._answer(line))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)
                case _:
                    self._fleet.hear(line)
        self._stopping.set()
        await asyncio.Event().wait()

    async def _answer(self, asked: Line) -> None:
        self._pipe.send(answered(asked, await self._answering.answer(asked["question"])))

    async def _note_used(self, ids: list[str]) -> bool:
        self._store.keys.used(ids)
        return True

    async def _beat(self) -> None:
        for server, _ in self._servers:
            await server.listening.wait()
        self._pipe.send({"event": "ready"})
        while True:
            before = self._clock()
            await asyncio.sleep(BEAT_S)
            self._pipe.send({"event": "beat", "loop_lag_s": max(0.0, self._clock() - before - BEAT_S)})
            self._show()

    def _pulls(self, file: Path) -> "Pulls":
        from gateway.control.pulls import Pulls

        writer = partial(
            SegmentWriter,
            self._settings.state_path / "spool" / new_writer("control"),
            bytes_max=self._settings.spool_bytes_max // 8,
            durable=True,
        )
        settings = self._settings
        routes, key = partial(_routes, settings.state_file, "record", "label"), unit_key(settings.state_path)
        return Pulls(file, self._evidence, writer, self._count_labels, routes=routes, unit_key=key)

    def _record_quality(self, block: QualityBlock) -> None:
        if self._spool is None:
            folder = self._settings.state_path / "spool" / new_writer("control")
            self._spool = SegmentWriter(folder, bytes_max=self._settings.spool_bytes_max // 8)
        self._spool.append([msgspec.msgpack.encode(block)])

    def _count_labels(self, outcome: str, labels: int) -> None:
        self._page.cells[self._page.counter("runoff_labels_total", {"outcome": outcome})] += labels

    def _show(self) -> None:
        """The lake's figures on the scrape."""
        figures = self._lake.figures
        self._page.floats[self._page.gauge("runoff_sink_lag_seconds", {"sink": "lake"})] = figures.lag_s
        stored = self._page.counter("runoff_sink_rows_total", {"sink": "lake", "outcome": "stored"})
        aside = self._page.counter("runoff_sink_rows_total", {"sink": "lake", "outcome": "dead_letter"})
        self._page.cells[stored] = sum(figures.rows.values())
        self._page.cells[aside] = figures.dead_letters
        expired = self._page.counter("runoff_sink_rows_total", {"sink": "lake", "outcome": "expired"})
        self._page.cells[expired] = figures.expired
        for relay in self._relays:
            lag = self._page.gauge("runoff_sink_lag_seconds", {"sink": relay.name})
            self._page.floats[lag] = relay.figures.lag_s
            stored = self._page.counter("runoff_sink_rows_total", {"sink": relay.name, "outcome": "stored"})
            self._page.cells[stored] = relay.figures.rows
            too_large = self._page.counter("runoff_sink_rows_total", {"sink": relay.name, "outcome": "too_large"})
            self._page.cells[too_large] = relay.figures.too_large


def main() -> None:
    """The whole life of the process; the environment holds what the supervisor gave it."""
    birth = Birth.of(os.environ)
    asyncio.run(_run(birth))


async def _run(birth: Birth) -> None:
    await Control(birth).run()
    # Threads that still stage, look at evidence or ask a silent registry must not hold up the end, and asyncio.run would wait for them. What
    # they do is repeated at the next start.
    os._exit(0)


def _evidence(uri: str, answers: StagedAnswers, spill: Path) -> Callable[[], "Evidence"]:
    """Made when somebody asks for the first time, so that the admin API need not wait for DuckDB at its start."""

    @cache
    def made() -> "Evidence":
        from gateway.evidence.evidence import Evidence

        return Evidence(uri, answers, spill=spill)

    return made


def _routes(state_file: Path, *parts: str) -> dict[str, Route]:
    """By endpoint, its route as it is or last was; also of a document that this release refuses, but not for these parts of it."""
    found = {}
    for endpoint, document in documents(state_file).items():
        try:
            found[endpoint] = validate(document)
        except RouteInvalid as error:
            is_misread = any(problem.path.startswith(parts) for problem in error.problems)
            if isinstance(error.read, Route) and not is_misread:
                found[endpoint] = error.read
    return found


def _retention(state_file: Path) -> dict[str, Retention]:
    """How long records are kept, by endpoint."""
    return {endpoint: route.record.retention for endpoint, route in _routes(state_file, "record").items()}


def _config(app: ASGIApp, settings: Settings, listener: Listener) -> uvicorn.Config:
    certificate, key = settings.tls.pair(listener) or (None, None)
    ca = settings.tls.client_ca(listener)
    return uvicorn.Config(
        app,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ca_certs=ca,
        ssl_cert_reqs=ssl.CERT_NONE if ca is None else ssl.CERT_REQUIRED,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=int(settings.limits.idle_s),
        limit_concurrency=256,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
