"""Group commit for callers that wait: one sync at a time, and whoever comes meanwhile shares the next."""

import asyncio
from typing import Final

from gateway.spool.segment import SegmentWriter


class GroupCommit:
    """Belongs to the event loop; the syncs of `writer`, which is nobody else's to sync, run on a thread."""

    def __init__(self, writer: SegmentWriter) -> None:
        self._writer: Final = writer
        self._next: asyncio.Future[None] | None = None
        self._syncing: asyncio.Task[None] | None = None

    async def synced(self) -> None:
        """Returns once all that was appended before the call is on the disk. Raises OSError: it may not be, and never will be said to be."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._next.add_done_callback(_heard)
        group = self._next
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await asyncio.shield(group)  # the others of the group wait for it too

    async def close(self) -> None:
        """Ends with the last group, then closes the writer. Raises OSError."""
        if self._syncing is not None:
            await self._syncing
        await asyncio.to_thread(self._writer.close)

    async def _sync(self) -> None:
        while (group := self._next) is not None:
            self._next = None  # what is appended from here on belongs to the next group
            try:
                await asyncio.to_thread(self._writer.sync)
            except OSError as error:
                group.set_exception(error)
            else:
                group.set_result(None)
        self._syncing = None


def _heard(group: "asyncio.Future[None]") -> None:
    """Takes note of a failure also where all who waited for it are gone."""
    group.exception()
