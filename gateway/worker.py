"""A worker, the data plane's process: wires its parts, follows the routes, opens its doors once it is warm, and leaves in good order.

It imports neither MLflow nor pandas, pyarrow, deltalake or scikit-learn (a test holds it to that).
"""

import asyncio
import gc
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import uvloop

from gateway.activation import Activation
from gateway.admission import Admission
from gateway.corridor import PlaneCorridor
from gateway.dataplane import Dataplane
from gateway.features.client import FeatureClient, StoreFailed, StoreSilent
from gateway.inquiries import AskedRepository, AskedStatistics, Inquiries, answered
from gateway.keys.doorkeeper import KeyDoor
from gateway.keys.usage import tell_used
from gateway.keys.watch import KeyWatch
from gateway.labels import SpoolLabels
from gateway.meter import Meter
from gateway.processes.birth import Birth, adopt, new_writer
from gateway.recorder import Recorder
from gateway.rest.app import build
from gateway.rest.listener import RestListener
from gateway.rest.protocol import HotPaths, WireProtocol
from gateway.retuning import retune
from gateway.rpc.wire import server as wire
from gateway.rpc.wire.server import WireServer
from gateway.spool.segment import SegmentWriter
from gateway.state.reader import StateReader
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.log import EventLog, configure
from gateway.telemetry.trace import Tracer
from gateway.unit_key import unit_key
from models import profiles
from models.catalog import Catalog
from models.pool import ComputePool
from routing.records import MetricBlock

if TYPE_CHECKING:
    from gateway.rpc.server import RpcServer

log = EventLog("gateway.worker")

_TICK_S: Final = 0.05
_GC_THRESHOLD: Final = 50_000
"""New containers before the collector looks at the young ones. A hot request leaves no reference cycle (a test holds it to that), and
with the default of 700 the collector took 6% of a worker's time."""
_TICKS_A_BEAT: Final = 20
_TICKS_A_SWEEP: Final = 10
_FEATURES_WARM_S: Final = 30.0
"""How long a worker that is warm waits for the feature store before it listens all the same."""
_DOORS_SHARE: Final = 0.6
"""Share of `grace_s` in which callers get what they asked for; the supervisor kills at three quarters."""


class Worker:
    """Everything one worker is made of. Made and run on its event loop."""

    def __init__(self, birth: Birth) -> None:
        assert birth.rest_fd is not None, "a worker is born with its REST socket"
        assert birth.grpc_fd is not None, "a worker is born with its gRPC socket"
        settings = self._settings = birth.settings
        state = settings.state_path
        loop = asyncio.get_running_loop()
        self._pipe = birth.pipe()
        self._page = CounterPage(state / "run", birth.writer)
        configure(birth.process, settings.telemetry.log_level, folder=state / "logs", page=self._page)
        share_bytes = settings.spool_bytes_max // settings.workers // 2
        self._spools = {
            "records": SegmentWriter(state / "spool" / birth.writer, bytes_max=share_bytes),
            "mirror": SegmentWriter(
                state / "mirror" / birth.writer, bytes_max=settings.mirror_bytes_max // settings.workers
            ),
            "disk": SegmentWriter(state / "spool" / new_writer("worker"), bytes_max=share_bytes, durable=True),
        }
        key = unit_key(state)
        self._recorder = Recorder(self._spools["records"], self._spools["mirror"], self._spools["disk"], key)
        self._meter = Meter(self._page)
        self._tracer = Tracer(
            endpoint=settings.telemetry.otlp_endpoint,
            sample_ratio=settings.telemetry.sample_ratio,
            sampled_per_s_max=settings.telemetry.sampled_per_s_max,
            page=self._page,
            process=birth.process,
        )
        self._pools = ComputePool(max(1, len(os.sched_getaffinity(0)) // settings.workers)), ComputePool(1)
        self._plane = Dataplane(
            loop=loop,
            recorder=self._recorder,
            meter=self._meter,
            admission=Admission(settings.limits.inflight_max, settings.limits.inflight_bytes_max),
            pool=self._pools[0],
            sync_pool=self._pools[1],
            tracer=self._tracer,
        )
        paths = HotPaths()
        self._catalog = Catalog(settings.artifacts_path, intra_threads=profiles.threads_share(settings.workers))
        self._activation = Activation(
            reader=StateReader(settings.state_file),
            catalog=self._catalog,
            plane=self._plane,
            paths=paths,
            page=self._page,
            tell=self._pipe.send,
            default_endpoint=settings.default_endpoint,
            turns=state / "run" / "warm-up.lock",
        )
        self._features = FeatureClient(state / "run")
        self._corridor = PlaneCorridor(self._plane, loop, self._features)
        synced_labels = partial(
            SegmentWriter, state / "spool" / new_writer("worker"), bytes_max=share_bytes // 4, durable=True
        )
        self._labels = SpoolLabels(self._spools["records"], synced_labels, lambda: self._plane.table, self._meter, key)
        self._inquiries = Inquiries(self._pipe.send)
        self._repository = AskedRepository(self._inquiries, self._activation.index)
        self._statistics = AskedStatistics(self._inquiries, self._meter.statistics)
        self._keys = KeyWatch(settings)
        is_open = settings.auth.data == "open"
        self._doorkeeper = KeyDoor(self._keys.ring, is_open=is_open, refused=partial(self._meter.refused, ""))
        app = build(
            self._corridor,
            self._labels,
            settings,
            doorkeeper=self._doorkeeper,
            statistics=self._statistics,
            repository=self._repository,
            admission=self._plane.admission,
        )
        hot_keys = None if is_open else self._doorkeeper
        protocol = WireProtocol.bind(self._plane, paths, settings.limits, hot_keys) if settings.door == "wire" else None
        self._rest = RestListener(app, protocol, adopt(birth.rest_fd), settings)
        self._grpc_socket = adopt(birth.grpc_fd)
        self._rpc: RpcServer | WireServer | None = None
        self._draining = asyncio.Event()
        self._is_warm = asyncio.Event()
        self._inflight: dict[str, int] = {}

    async def run(self) -> None:
        """Until it is told to drain, or the supervisor is gone. A part that fails ends the process, which is then started anew."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._draining.set)
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(part)
                for part in (
                    self._hear(),
                    self._activation.run(),
                    self._keys.run(),
                    tell_used(self._keys.ring, self._inquiries.note_used),
                    self._beat(),
                    retune(self._catalog),
                )
            ]
            if await self._warm():
                await self._open()
                await self._draining.wait()
            await self._close()
            for part in parts:
                part.cancel()
        await self._pipe.flush()

    async def _warm(self) -> bool:
        """Waits until the live revisions are served, or known not to be servable here; False when told to drain before."""
        waits = {asyncio.create_task(self._is_warm.wait()), asyncio.create_task(self._draining.wait())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return not self._draining.is_set()

    async def _open(self) -> None:
        await self._warm_features()
        gc.collect()
        gc.freeze()  # what was made so far stays: the collector need not walk it again and again
        gc.set_threshold(_GC_THRESHOLD)
        self._rest.open()
        self._rpc = await self._serve_grpc()
        self._tell_beat(0.0)  # before `ready`, so that nobody takes a worker without endpoints for one without routes
        self._pipe.send({"event": "ready"})
        log.info("worker_listening", grpc_port=self._rpc.port)

    async def _warm_features(self) -> None:
        """Has the feature store ready before anybody asks; without it the routes' defaults do, from the first request on."""
        routes = [endpoint.route.features for endpoint in self._plane.table.endpoints.values()]
        services = {features.service for features in routes if features is not None}
        deadline = time.monotonic() + _FEATURES_WARM_S
        while services and time.monotonic() < deadline and not self._draining.is_set():
            try:
                await self._features.describe(next(iter(services)), 1.0)
            except StoreSilent:  # it loads
                continue
            except StoreFailed as error:
                if error.code == "down":  # it is being started beside us
                    await asyncio.sleep(_TICK_S)
                    continue
                log.warning("features_not_ready", problem=str(error))
            services.pop()

    async def _serve_grpc(self) -> "RpcServer | WireServer":
        """The gRPC listener that the settings name. grpcio binds for itself; the supervisor's own sockets keep the port for it."""
        if self._settings.grpc_door == "wire":
            return await wire.serve(
                self._plane,
                self._corridor,
                self._grpc_socket,
                self._settings,
                doorkeeper=self._doorkeeper,
                statistics=self._statistics,
                repository=self._repository,
            )
        from gateway.rpc.server import serve  # grpcio's server is imported only where it is wanted

        with self._grpc_socket as reserved:
            host, port = reserved.getsockname()[:2]
        return await serve(
            self._corridor,
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            self._settings,
            doorkeeper=self._doorkeeper,
            statistics=self._statistics,
            repository=self._repository,
        )

    async def _close(self) -> None:
        """Doors first, then what they used: nothing is closed that a request in flight still needs."""
        log.info("worker_draining", inflight=self._plane.inflight)
        self._corridor.leave()
        within_s = self._settings.grace_s * _DOORS_SHARE
        doors = [self._rest.close(within_s)]
        if self._rpc is not None:
            doors.append(self._rpc.stop(within_s))
        await asyncio.gather(*doors)
        self._plane.is_draining = True
        for pool in self._pools:
            await asyncio.to_thread(pool.close)
        await asyncio.sleep(0)  # what the pools' threads handed over is recorded in this turn
        self._plane.write_late()
        self._write_minutes(self._meter.close_last(time.time()))
        await asyncio.to_thread(self._tracer.close)
        await asyncio.to_thread(self._activation.close)
        self._keys.close()
        await self._features.close()
        with suppress(OSError):  # whoever waited for that sync has been told
            await self._labels.close()
        self._recorder.close()

    # ── the background ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _hear(self) -> None:
        """The supervisor's lines. Its end is ours: without it nobody would answer probes for us or start us again."""
        async for line in self._pipe:
            match line.get("command"):
                case "drain":
                    self._draining.set()
                case "asked":
                    self._pipe.send(answered(line, self._statistics.answer(line["question"])))
                case "asked_of" | "answer":
                    self._inquiries.hear(line)
        self._draining.set()

    async def _beat(self) -> None:
        """Measures how late the loop wakes; each second says that we live, and closes the minute."""
        ticks, late_s = 0, 0.0
        while True:
            asleep_at = time.monotonic()
            await asyncio.sleep(_TICK_S)
            late_s = max(late_s, time.monotonic() - asleep_at - _TICK_S)
            ticks += 1
            if self._activation.is_settled:
                self._is_warm.set()
            if ticks % _TICKS_A_SWEEP == 0:
                self._rest.tick()
            if ticks % _TICKS_A_BEAT == 0:
                self._tell_beat(late_s)
                self._plane.tick(time.time())
                self._publish()
                late_s = 0.0
                if not self._plane.is_draining:
                    self._write_minutes(self._meter.close_minute(time.time()))

    def _tell_beat(self, late_s: float) -> None:
        self._pipe.send({"event": "beat", "loop_lag_s": late_s, "endpoints": self._activation.endpoints})

    def _publish(self) -> None:
        """The gauges that are cheaper to read once a second than to keep."""
        floats, gauge = self._page.floats, self._page.gauge
        floats[gauge("runoff_connections", {"protocol": "rest"})] = self._rest.connections
        if isinstance(self._rpc, WireServer):  # grpcio's server does not tell
            floats[gauge("runoff_connections", {"protocol": "grpc"})] = self._rpc.connections
        for spool, writer in self._spools.items():
            floats[gauge("runoff_spool_bytes", {"spool": spool})] = writer.pending_bytes()
        for name, slot in self._inflight.items():
            if name not in self._plane.table.endpoints:
                floats[slot] = 0.0
        for name, endpoint in self._plane.table.endpoints.items():
            slot = self._inflight[name] = gauge("runoff_inflight", {"endpoint": name})
            floats[slot] = endpoint.inflight

    def _write_minutes(self, block: MetricBlock | None) -> None:
        if block is not None:
            try:
                self._recorder.write_minutes(block)
            except OSError as error:
                log.warning("minutes_dropped", problem=str(error))


def main() -> int:
    """The process. Answers its exit status."""
    birth = Birth.of(os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def run() -> None:
        await Worker(birth).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(KeyboardInterrupt):
        runner.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
