"""Which candidates are in memory: loaded one at a time on a thread, the most important first; let go when they are not wanted any more,
or when this process holds too much.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from gateway.shadow.suspects import Suspects
from gateway.telemetry.log import EventLog
from models.catalog import Catalog, LoadedModel

_log: Final = EventLog(__name__)

RETRY_S: Final = 30.0
"""When a candidate that could not be loaded is tried again; a new revision that names it tries at once."""
EVICTED_S: Final = 300.0


class Loader:
    """Belongs to the loop. `refusal` and `model` answer for any digest, wanted or not."""

    def __init__(self, catalog: Catalog, suspects: Suspects, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._suspects = suspects
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._wanted: tuple[str, ...] = ()
        self._failed: dict[str, float] = {}
        self._evicted: dict[str, float] = {}
        self._loading: asyncio.Task[None] | None = None

    def is_settled(self, digests: Sequence[str]) -> bool:
        """Whether each of these is loaded, or cannot be for now."""
        return not any(self._is_due(digest) for digest in digests)

    async def wait(self, timeout_s: float) -> None:
        """Waits for the load that is under way, at most `timeout_s`."""
        if self._loading is not None:
            await asyncio.wait({self._loading}, timeout=timeout_s)

    def want(self, digests: Sequence[str]) -> None:
        """What should be in memory, the most important first; what failed before is tried again."""
        self._wanted = tuple(dict.fromkeys(digests))
        self._failed.clear()
        self._evicted = {digest: until for digest, until in self._evicted.items() if digest in self._wanted}
        self.step()

    def step(self) -> None:
        """Lets go of what is not wanted, and begins the next load; called at least each second."""
        now = self._clock()
        for held in (self._failed, self._evicted):
            for digest in [digest for digest, until in held.items() if until <= now]:
                del held[digest]
        if self._catalog.retain({digest for digest in self._wanted if digest not in self._evicted}):
            _give_back()
        if self._loading is None:
            due = self._next()
            if due is not None:
                self._loading = asyncio.create_task(self._load(due), name="load")

    def model(self, digest: str) -> LoadedModel | None:
        """The candidate if it may be run."""
        return None if digest in self._evicted else self._catalog.get(digest)

    @property
    def loaded(self) -> list[LoadedModel]:
        """All that is in memory."""
        return self._catalog.loaded()

    def refusal(self, digest: str) -> str:
        """Why there is no model."""
        if self._suspects.is_quarantined(digest):
            return "model_failed"
        return "governor" if digest in self._evicted else "not_warm"

    def shrink(self) -> bool:
        """Gives up the least important candidate that is loaded, for a while; False when none is left."""
        for digest in reversed(self._wanted):
            if self._catalog.get(digest) is not None and digest not in self._evicted:
                self._evicted[digest] = self._clock() + EVICTED_S
                _log.warning("candidate_evicted", digest=digest[:12])
                self.step()
                return True
        return False

    async def close(self) -> None:
        """Waits for the load that is under way."""
        if self._loading is not None:
            await self._loading
        self._thread.shutdown(wait=True)

    def _next(self) -> str | None:
        return next((digest for digest in self._wanted if self._is_due(digest)), None)

    def _is_due(self, digest: str) -> bool:
        return (
            self._catalog.get(digest) is None
            and digest not in self._failed
            and digest not in self._evicted
            and not self._suspects.is_quarantined(digest)
        )

    async def _load(self, digest: str) -> None:
        started = self._clock()
        try:
            model = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, digest)
        except Exception as error:  # noqa: BLE001  # a candidate may fail to load in any way; the others go on
            self._failed[digest] = self._clock() + RETRY_S
            _log.warning("candidate_not_loaded", digest=digest[:12], problem=str(error)[:300])
        else:
            _log.info("candidate_loaded", model=str(model.staged.key), seconds=round(self._clock() - started, 3))
        self._loading = None
        self.step()

    def _read(self, digest: str) -> LoadedModel:
        with self._suspects.mark("load", digest):
            return self._catalog.load(digest)


def _give_back() -> None:
    """Returns freed memory to the system at once, so that the next look at it sees what was gained (glibc; elsewhere nothing happens)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
