"""Tuning while the gateway serves: what runs without a profile of this machine is measured, and what somebody asks to have measured.

One model at a time, in a process of low priority; workers take the new profile within seconds (`gateway/retuning.py`).
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from gateway.state.store import StateStore
from gateway.telemetry.log import EventLog
from models import profiles
from models.errors import ArtifactInvalid
from models.staged import Ask, Profile, StagedModel, Traffic
from models.tensors import Array
from models.tuning.job import TuningFailed
from models.tuning.process import measure

if TYPE_CHECKING:
    from gateway.evidence.evidence import Evidence

log = EventLog(__name__)

LOOK_S: Final = 10.0
"""Between two looks for served models without a current profile; a look reads one small file for each."""
SHAPE_LOOK_S: Final = 3600.0
"""Between two looks at the shape of the traffic, which read the lake."""
_REQUESTS_MIN: Final = 1000
_CHANGE: Final = 2
"""A median or 95th percentile of rows a request that is so many times what it was, or that part of it, is another traffic."""
WAITING_MAX: Final = 8
Found = TypeVar("Found")


class NothingRecorded(Exception):
    """The lake has no requests of the endpoint; the message names it."""


class TuningBusy(Exception):
    """As many questions wait as may."""


class Measure(Protocol):
    """`models.tuning.process.measure`: blocks for seconds, raises TuningFailed."""

    def __call__(
        self,
        artifact: Path,
        staged: StagedModel,
        *,
        ask: Ask | None = None,
        threads_max: int = 1,
        traffic: Traffic | None = None,
        recorded: dict[str, Array] | None = None,
    ) -> Profile: ...


class Tuning:
    """Belongs to control's loop; measuring and the lake are met on one thread, so that one model is measured at a time."""

    def __init__(
        self,
        store: StateStore,
        artifacts: Path,
        evidence: Callable[[], "Evidence"],
        *,
        workers: int,
        look_s: float = LOOK_S,
        shape_look_s: float = SHAPE_LOOK_S,
        clock: Callable[[], float] = time.monotonic,
        measure: Measure = measure,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._evidence = evidence
        self._threads_max = profiles.threads_share(workers)
        self._look_s = look_s
        self._shape_look_s = shape_look_s
        self._clock = clock
        self._shapes_at = clock() + shape_look_s
        self._measure = measure
        self._failed: set[str] = set()
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, "tune")

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._look_s)
            try:
                await self.step()
            except Exception as error:  # noqa: BLE001  # profiles are advice: control goes on without
                log.error("tuning_broke", error=error)

    async def step(self) -> None:
        """Measures what is served and has no profile of this processor, ONNX Runtime and number of workers, or now sees another traffic."""
        await self._measure_unknown()
        if self._clock() >= self._shapes_at:
            self._shapes_at = self._clock() + self._shape_look_s
            await self._measure_reshaped()

    async def _measure_reshaped(self) -> None:
        """The models of endpoints whose requests have come to be of another size than those that the model was measured for."""
        for live, _ in self._store.live_routes():
            traffic = await self._on_thread(partial(self._traffic, live.endpoint))
            if traffic is None or traffic.requests < _REQUESTS_MIN:
                continue
            for digest in dict.fromkeys(model.digest for model in live.resolutions.values()):
                newest = profiles.newest(self._artifacts / digest)
                if newest is None or digest in self._failed or not is_reshaped(newest.traffic, traffic):
                    continue
                log.info(
                    "traffic_changed", endpoint=live.endpoint, rows_p50=traffic.rows_p50, rows_p95=traffic.rows_p95
                )
                await self._try(digest, newest.ask, traffic)

    async def _measure_unknown(self) -> None:
        for digest in self._served():
            folder = self._artifacts / digest
            if digest in self._failed or profiles.is_current(profiles.read(folder), self._threads_max):
                continue
            newest = profiles.newest(folder)
            await self._try(digest, newest.ask if newest else None, newest.traffic if newest else None)

    async def _try(self, digest: str, ask: Ask | None, traffic: Traffic | None) -> None:
        try:
            await self._tuned(digest, ask, traffic)
        except (TuningFailed, ArtifactInvalid, OSError) as error:
            self._failed.add(digest)  # the model is served all the same; another try would fail as well
            log.warning("model_not_tuned", digest=digest[:12], problem=str(error))

    async def tune(self, digest: str, *, ask: Ask | None = None, endpoint: str | None = None) -> Profile:
        """Measures now. `ask` None: as asked before. `endpoint`: on the rows that it was asked, by their recorded number a request.

        Raises TuningFailed, NothingRecorded, TuningBusy or ArtifactInvalid.
        """
        if self._waiting >= WAITING_MAX:
            raise TuningBusy(f"{self._waiting} models are being measured or wait for it")
        self._waiting += 1
        try:
            traffic = None
            if endpoint is not None:
                traffic = await self._on_thread(partial(self._traffic, endpoint))
                if traffic is None:
                    raise NothingRecorded(f"no answered request of endpoint '{endpoint}' is in the lake")
            newest = profiles.newest(self._artifacts / digest)
            profile = await self._tuned(digest, ask or (newest.ask if newest else None), traffic)
        finally:
            self._waiting -= 1
        self._failed.discard(digest)
        return profile

    def asked(self, digest: str) -> Ask:
        """What was asked for when the model was measured last."""
        newest = profiles.newest(self._artifacts / digest)
        return newest.ask if newest else Ask()

    def close(self) -> None:
        """Does not wait: the measuring process ends with this one."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _tuned(self, digest: str, ask: Ask | None, traffic: Traffic | None) -> Profile:
        profile = await self._on_thread(partial(self._measured, digest, ask, traffic))
        log.info(
            "model_tuned",
            digest=digest[:12],
            rows_max=profile.rows_max,
            threads=profile.setting.threads,
            form=profile.setting.form,
            seconds=round(profile.took_s, 1),
        )
        return profile

    def _traffic(self, endpoint: str) -> Traffic | None:
        return self._evidence().traffic(endpoint)

    def _measured(self, digest: str, ask: Ask | None, traffic: Traffic | None) -> Profile:
        folder = self._artifacts / digest
        staged = StagedModel.read(folder)
        recorded = self._evidence().recorded(traffic.endpoint, staged.signature) if traffic else None
        return self._measure(
            folder, staged, ask=ask, threads_max=self._threads_max, traffic=traffic, recorded=recorded or None
        )

    def _served(self) -> list[str]:
        """Digests of all live arms."""
        live = self._store.live_routes()
        return list(dict.fromkeys(model.digest for one, _ in live for model in one.resolutions.values()))

    async def _on_thread(self, ask: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, ask)


def is_reshaped(known: Traffic | None, now: Traffic) -> bool:
    """Whether requests have another size than those that a model was measured for; without any known, that is one row.

    Of endpoints that share a model the first one counts.
    """
    if known is not None and known.endpoint != now.endpoint:
        return False
    then = (1, 1) if known is None else (known.rows_p50, known.rows_p95)
    return any(
        max(old, new) >= _CHANGE * min(old, new) for old, new in zip(then, (now.rows_p50, now.rows_p95), strict=True)
    )
