"""Labels on their way from the doors to the spool: as durable as their route says, sensitive attributes apart from the rest.

A label by prediction id does not say whose it is. It is treated as the strictest of the live routes would have it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gateway.errors import Overloaded, SpoolClosed
from gateway.live import LiveTable
from gateway.meter import Meter
from gateway.privacy import label_blocks, routes_of_labels
from gateway.spool.group import GroupCommit
from gateway.spool.segment import SegmentWriter, SpoolFull
from routing.records import LabelRow

_WAITING_MAX: Final = 256
"""Posts that wait for a sync at once; a slow disk becomes 429, not memory."""


class SpoolLabels:
    """`gateway.request.LabelSink` over the worker's spool. Belongs to the event loop.

    `process` writes at the level of that name. `synced` makes the durable segment at the first label that wants it (it blocks): a worker
    whose routes do not say `disk` needs none. `durability: async` is no less than `process` here: it would save nothing.
    """

    def __init__(
        self,
        process: SegmentWriter,
        synced: Callable[[], SegmentWriter],
        table: Callable[[], LiveTable],
        meter: Meter,
        unit_key: bytes,
    ) -> None:
        self._process = process
        self._make = synced
        self._making: asyncio.Task[tuple[SegmentWriter, GroupCommit]] | None = None
        self._table = table
        self._meter = meter
        self._unit_key = unit_key
        self._waiting = 0

    async def accept(self, rows: Sequence[LabelRow]) -> None:
        """On return the labels are as durable as they must be. Raises SpoolClosed, Overloaded; those of a request share its fate."""
        concerned = routes_of_labels(rows, {name: one.route for name, one in self._table().endpoints.items()})
        payloads = label_blocks(rows, concerned, self._unit_key)
        try:
            if any(route.record.durability == "disk" for routes in concerned for route in routes):
                await self._write_synced(payloads)
            else:
                self._process.append(payloads)  # one write of microseconds, so it stays on the loop
        except (SpoolFull, OSError) as error:
            self._meter.count("runoff_labels_total", {"outcome": "rejected"}, len(rows))
            raise SpoolClosed("the spool takes no labels now") from error
        self._meter.count("runoff_labels_total", {"outcome": "accepted"}, len(rows))

    async def close(self) -> None:
        """Ends the durable segment, if there is one. Raises OSError."""
        if self._making is not None:
            await (await self._making)[1].close()

    async def _write_synced(self, payloads: list[bytes]) -> None:
        if self._waiting >= _WAITING_MAX:
            raise Overloaded(
                f"labels: {self._waiting} requests wait for the disk, at most {_WAITING_MAX}", "concurrency"
            )
        self._waiting += 1
        try:
            if self._making is None:
                self._making = asyncio.create_task(self._made())
            writer, group = await asyncio.shield(self._making)
            writer.append(payloads)
            await group.synced()
        except OSError:
            if self._making is not None and self._making.done() and self._making.exception() is not None:
                self._making = None  # it could not be made: the next label tries again
            raise
        finally:
            self._waiting -= 1

    async def _made(self) -> tuple[SegmentWriter, GroupCommit]:
        writer = await asyncio.to_thread(self._make)
        return writer, GroupCommit(writer)
