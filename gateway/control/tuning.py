"""Tuning while the gateway serves: what runs without a profile of this machine is measured, and what somebody asks to have measured.

One model at a time, in a process of low priority; workers take the new profile within seconds (`gateway/retuning.py`).
"""

import asyncio
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
        measure: Measure = measure,
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._evidence = evidence
        self._threads_max = profiles.threads_share(workers)
        self._look_s = look_s
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
        """Measures what is served and has no profile of this processor, this ONNX Runtime and this number of workers."""
        for digest in self._served():
            folder = self._artifacts / digest
            if digest in self._failed or profiles.is_current(profiles.read(folder), self._threads_max):
                continue
            newest = profiles.newest(folder)
            try:
                await self._tuned(digest, newest.ask if newest else None, newest.traffic if newest else None)
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
                traffic = await self._on_thread(lambda: self._evidence().traffic(endpoint))
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

    def _measured(self, digest: str, ask: Ask | None, traffic: Traffic | None) -> Profile:
        folder = self._artifacts / digest
        staged = StagedModel.read(folder)
        recorded = self._evidence().recorded(traffic.endpoint, staged.signature) if traffic else None
        return self._measure(
            folder, staged, ask=ask, threads_max=self._threads_max, traffic=traffic, recorded=recorded or None
        )

    def _served(self) -> list[str]:
        """Digests of all live arms."""
        live = (self._store.live(endpoint) for endpoint in self._store.endpoints())
        return list(dict.fromkeys(model.digest for one in live if one for model in one.resolutions.values()))

    async def _on_thread(self, ask: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, ask)
