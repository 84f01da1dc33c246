"""The shadow process: reads what was mirrored, shows it to every candidate, writes the pairs. Nobody waits for it.

One turn: read some frames → what is asked of whom (`plan`) → local candidates by priority, one run for the rows of many requests
(on a thread of their own) → the spool. Remote candidates are called meanwhile; what they answered joins a later turn.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from gateway.instance import instance_id
from gateway.pipe import Pipe, PipeBroken
from gateway.rpc.remote import GrpcModel
from gateway.settings import Settings
from gateway.shadow import local
from gateway.shadow.draw import Draw, Job
from gateway.shadow.governor import Governor
from gateway.shadow.inbox import Inbox
from gateway.shadow.lane import Lane
from gateway.shadow.loader import Loader
from gateway.shadow.meter import Meter
from gateway.shadow.outbox import Outbox
from gateway.shadow.plan import plan
from gateway.shadow.progress import Progress
from gateway.shadow.roster import Candidate, Roster
from gateway.shadow.suspects import Suspects
from gateway.spool.segment import SegmentWriter
from gateway.state.reader import StateReader
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.log import EventLog
from models.answer import read
from models.catalog import Catalog, LoadedModel
from models.runtime.remote import RemoteModel
from models.runtime.remote_mlflow import MlflowModel
from models.runtime.target import Access, RemoteRefused
from models.signature import Answer
from routing.traffic import Mirror

_log: Final = EventLog(__name__)

READ_BYTES: Final = 1 << 20
"""Frames of one turn: some thousand rows of a table, so that a turn is a fraction of a second."""
WAITING_BYTES_MAX: Final = 64 << 20
"""Frames that wait for remotes, shared equally by all of them; one remote gets at most a quarter."""
LOAD_PATIENCE_S: Final = 10.0
"""After a change of the routes rows wait so long for their candidate to load, before they are counted as not warm."""
BUDGET_S: Final = 5.0
"""What one candidate may take of one turn; what it has not begun by then is shed."""
RUN_MAX_S: Final = 30.0
"""A single run that takes longer hangs."""
REMOTE_TIMEOUT_S: Final = 5.0
DRAIN_S: Final = 4.0
"""What calls under way get to end in; the supervisor leaves a quarter of `grace_s` to this process."""
_BUSY_POLL_S: Final = 0.01
_IDLE_POLL_S: Final = 0.1
_TICK_S: Final = 1.0


_CLIENTS: Final[Mapping[str, type[RemoteModel] | type[MlflowModel] | type[GrpcModel]]] = {
    "v2": RemoteModel,
    "v2-grpc": GrpcModel,
    "mlflow": MlflowModel,
}


class Shadow:
    """Everything belongs to the loop but the runs of local candidates and their loading, which have a thread each."""

    def __init__(
        self,
        settings: Settings,
        writer: str,
        *,
        environ: Mapping[str, str],
        memory_bytes_max: int,
        cores: int = 1,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Takes over from the predecessor. Called with the loop running. Raises ShadowRuns while one lives, or OSError.

        `cores` are those that this process may use, of which it takes the share that the settings leave it.
        """
        state = settings.state_path
        self._settings = settings
        self._environ = environ
        self._gateway = instance_id(state)
        cores_max = max(0.25, settings.shadow.cpu_share_max * cores)
        self._governor = Governor(memory_bytes_max=memory_bytes_max, cores_max=cores_max)
        self._wall = wall
        self._page = CounterPage(state / "run", writer)
        self._progress = Progress(state / "shadow", state / "spool", writer)
        self._spool = SegmentWriter(state / "spool" / writer, bytes_max=settings.spool_bytes_max)
        self._inbox = Inbox(state / "mirror", self._progress)
        self._meter = Meter(self._page)
        self._outbox = Outbox(self._spool, self._progress, self._meter)
        self._suspects = Suspects(state / "shadow")
        self._loader = Loader(Catalog(settings.artifacts_path, intra_threads=1), self._suspects)
        self._roster = Roster(StateReader(settings.state_file), settings.artifacts_path, self._open_lane)
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="candidates")
        self._wake = asyncio.Event()
        self._draining = asyncio.Event()
        self._patient_until = 0.0
        self._ticked_at = 0.0
        self._running_since: float | None = None
        self._progress.link()
        self._tick()

    def drain(self) -> None:
        """Reads nothing more; `run` then ends what was read, and returns."""
        self._draining.set()
        self._wake.set()

    async def run(self) -> None:
        """Turns until it is told to drain."""
        pause_s = _BUSY_POLL_S
        while not self._draining.is_set():
            if await self.turn():
                pause_s = _BUSY_POLL_S
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            self._wake.clear()
            pause_s = min(_IDLE_POLL_S, 2 * pause_s)
        await self._finish()

    async def turn(self) -> bool:
        """One turn; says whether there was anything to read."""
        self._outbox.flush()
        if time.monotonic() - self._ticked_at > _TICK_S:
            self._tick()
            await self._roster.sweep()
        if self._outbox.is_blocked:
            return False
        draws = self._inbox.read(READ_BYTES)
        self._follow_routes()
        if not draws:
            self._meter.idle()
            return False
        if await self._be_patient():
            await self._answer(draws)
        return True

    async def beat(self, pipe: Pipe) -> None:
        """Tells the supervisor each second that this process lives, and gives up candidates while it holds too much memory."""
        pipe.send({"event": "ready"})
        while True:
            asked = time.monotonic()
            await asyncio.sleep(_TICK_S)
            lag_s = max(0.0, time.monotonic() - asked - _TICK_S)
            pipe.send({"event": "beat", "loop_lag_s": round(lag_s, 6), "endpoints": {}})
            self._governor.look()
            if self._governor.is_over_memory:
                self._loader.shrink()
            if self._running_since is not None and time.monotonic() - self._running_since > RUN_MAX_S:
                _log.error("candidate_hangs", seconds=RUN_MAX_S)
                os.kill(
                    os.getpid(), signal.SIGKILL
                )  # a run cannot be stopped from outside; the next process knows who it was

    async def obey(self, pipe: Pipe) -> None:
        """Follows the supervisor's commands; without a supervisor there is nothing to stay for."""
        with suppress(PipeBroken):
            async for line in pipe:
                if line.get("command") == "drain":
                    break
        self.drain()

    async def close(self) -> None:
        """Gives everything back. What has no outcome yet stays in the mirror segments for the next process."""
        await self._roster.close()
        await self._loader.close()
        self._compute.shutdown(wait=True)
        self._tick()
        self._inbox.close()
        self._spool.close()
        self._progress.close()
        self._suspects.close()
        self._page.close()

    async def _answer(self, draws: list[Draw]) -> None:
        mine: dict[str, tuple[Candidate, list[Job]]] = {}
        theirs: list[tuple[Job, Candidate, Lane]] = []
        for draw in draws:
            self._read_live(draw)
            planned = plan(draw, self._roster, self._loader, self._progress, self._governor, self._wall())
            draw.open_jobs = len(planned)
            if not planned:
                self._outbox.skip(draw)
            for job, candidate in planned:
                if candidate is None:
                    self._outbox.put(job)
                elif candidate.lane is not None:
                    theirs.append((job, candidate, candidate.lane))
                else:
                    mine.setdefault(f"{candidate.endpoint}/{candidate.mirror.name}", (candidate, []))[1].append(job)
        share = WAITING_BYTES_MAX // max(4, len(list(self._roster.lanes())))
        for job, candidate, lane in theirs:
            answer = self._roster.answer_of(job.draw.block.model, job.draw.block.version) or Answer()
            lane.offer(job, answer, is_batched=candidate.is_batched, waiting_bytes_max=share)
        for candidate, jobs in sorted(mine.values(), key=lambda pair: pair[0].rank):
            await self._run(candidate, jobs)
            self._outbox.flush()
        self._outbox.flush()

    async def _run(self, candidate: Candidate, jobs: list[Job]) -> None:
        assert candidate.local is not None
        model = self._loader.model(candidate.local.digest)
        if model is None:  # evicted since the plan was made
            for job in jobs:
                job.fail(job.waiting(), self._loader.refusal(candidate.local.digest))
        else:
            await asyncio.get_running_loop().run_in_executor(self._compute, self._run_marked, model, jobs)
            self._running_since = None
        for job in jobs:
            self._outbox.put(job)

    def _run_marked(self, model: LoadedModel, jobs: list[Job]) -> None:
        """On the compute thread."""

        def before_run() -> None:
            self._running_since = time.monotonic()

        with self._suspects.mark("run", model.staged.digest):
            local.run(model, jobs, rows_max=model.rows_max, budget_s=BUDGET_S, before_run=before_run)

    def _read_live(self, draw: Draw) -> None:
        """Production's labels and scores, read as its own version says."""
        answer = self._roster.answer_of(draw.block.model, draw.block.version)
        if answer is None or not draw.live_outputs:
            return
        try:
            labels, scores = read(answer, list(draw.live_outputs), list(draw.live_outputs.values()))
        except Exception as error:  # noqa: BLE001  # outputs of others: pairs without production's answer, not the end of all pairs
            _log.warning("live_answer_unread", endpoint=draw.block.endpoint, model=draw.block.model, error=error)
            return
        if len(labels) == draw.rows:
            draw.live_labels, draw.live_scores = labels, scores

    async def _be_patient(self) -> bool:
        """Lets live candidates load first, within bounds; False: draining, and what was just read is left to the next process."""
        while time.monotonic() < self._patient_until and not self._loader.is_settled(self._roster.live_digests):
            if self._draining.is_set():
                return False
            await self._loader.wait(_IDLE_POLL_S)
        return True

    async def _finish(self) -> None:
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and not all(lane.is_idle for lane in self._roster.lanes()):
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._wake.wait()
            self._outbox.flush()
        self._outbox.flush()

    def _follow_routes(self) -> None:
        if self._roster.refresh():
            self._loader.want(self._roster.wanted)
            self._patient_until = time.monotonic() + LOAD_PATIENCE_S

    def _tick(self) -> None:
        """Once a second: new writers, loads, offsets, and the deletion of what is answered for."""
        self._ticked_at = time.monotonic()
        self._inbox.look()
        self._follow_routes()
        self._loader.step()
        self._progress.checkpoint(self._inbox.writers)
        self._inbox.release()
        self._meter.show(self._loader.loaded, self._spool.pending_bytes())

    def _open_lane(self, endpoint: str, mirror: Mirror) -> Lane:
        assert mirror.remote is not None
        remote = mirror.remote
        token = None
        if remote.auth is not None:
            token = self._environ.get(remote.auth.removeprefix("env:"))
            if token is None:
                raise RemoteRefused(f"{endpoint}/{mirror.name}: the variable of {remote.auth} is not set")
        access = Access(allow=self._settings.remotes.allow, token=token, timeout_s=REMOTE_TIMEOUT_S)
        return Lane(
            _CLIENTS[remote.protocol](remote.url, remote.model, access),
            remote.model,
            gateway=self._gateway,
            body_bytes_max=mirror.body_bytes_max or self._settings.limits.body_bytes_binary_max,
            landed=self._land,
            wall=self._wall,
        )

    def _land(self, job: Job) -> None:
        self._outbox.put(job)
        self._wake.set()
