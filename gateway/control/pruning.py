"""Artifacts that nobody can want any more leave the disk, a month after the last revision that named them."""

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from typing import Final

from gateway.state.revision import Revision
from gateway.state.store import StateStore
from gateway.telemetry.log import EventLog
from models.artifacts import Artifacts

log: Final = EventLog(__name__)

KEPT_S: Final = 30 * 86_400
_EVERY_S: Final = 3600.0
_PAGE: Final = 200


class Pruning:
    """Belongs to the event loop: an artifact is taken out of the store in the same turn in which it is seen that no revision names it.

    Nothing goes while a revision is on its way. Whoever meets a version that has gone stages it again from its registry.
    """

    def __init__(
        self, store: StateStore, artifacts: Artifacts, thread: Executor, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._thread = thread
        self._wall = wall

    async def run(self) -> None:
        """Looks each hour until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.prune()
            except (OSError, sqlite3.Error) as error:  # the next look may find the disk or the state well again
                log.warning("artifacts_not_pruned", problem=str(error))

    async def prune(self) -> list[str]:
        """Deletes what no revision of the last month, and none that workers or the shadow may load, names; answers the digests."""
        if self._store.unfinished():
            return []
        since_unix_s = self._wall() - KEPT_S
        retired = self._artifacts.retire(self._kept(since_unix_s), since_unix_s)
        delete = partial(shutil.rmtree, ignore_errors=True)
        for digest, folder in retired.items():
            await asyncio.get_running_loop().run_in_executor(self._thread, delete, folder)
            log.info("artifact_pruned", digest=digest[:12])
        return list(retired)

    def _kept(self, since_unix_s: float) -> set[str]:
        """Digests of live and previous revisions, however old, of those of the last month, and of those that these replaced."""
        found = [
            one for name in self._store.endpoints() for one in (self._store.live(name), self._store.previous(name))
        ]
        for revision in self._recent(since_unix_s):
            found += [revision, None if revision.replaced is None else self._store.revision(revision.replaced)]
        return {model.digest for one in found if one is not None for model in one.resolutions.values()}

    def _recent(self, since_unix_s: float) -> Iterable[Revision]:
        before = None
        while page := self._store.revisions(limit=_PAGE, before=before):
            yield from (one for one in page if one.changed_unix_us >= since_unix_s * 1e6)
            before = page[-1].number
            if page[-1].created_unix_us < since_unix_s * 1e6:
                return
