"""The way out: done jobs become shadow blocks in this process's own spool, and a draw is finished once all its jobs are there."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.shadow.draw import Draw, Job
from gateway.shadow.meter import Meter
from gateway.shadow.pairs import blocks
from gateway.shadow.progress import Progress
from gateway.spool.segment import SegmentWriter
from gateway.telemetry.log import EventLog

_log: Final = EventLog(__name__)
_ENCODER: Final = msgspec.msgpack.Encoder()
_WRITE_BYTES: Final = 64 << 10
"""About what one write takes: small against any bound of the spool, so that it always fits again some time."""


class Outbox:
    """Belongs to the loop. What the spool does not take now waits here; the caller then reads nothing more, so that it stays small."""

    def __init__(
        self,
        writer: SegmentWriter,
        progress: Progress,
        meter: Meter,
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._writer = writer
        self._progress = progress
        self._meter = meter
        self._wall_us = wall_us
        self._waiting: deque[tuple[bytes, Job, bool]] = deque()
        self.is_blocked = False
        """Whether the last flush could not write all."""

    def put(self, job: Job) -> None:
        """Takes a done job."""
        payloads = [_ENCODER.encode(block) for block in blocks(job, self._wall_us())]
        self._waiting.extend((payload, job, payload is payloads[-1]) for payload in payloads)

    def flush(self) -> None:
        """Writes what waits. Where the spool is full or broken the rest is kept, and the next call tries again."""
        while self._waiting:
            payloads = self._next_write()
            self._progress.link()
            before = self._writer.sequence
            try:
                self._writer.append(payloads)
            except OSError as error:
                if not self.is_blocked:
                    _log.warning("shadow_spool_blocked", problem=error.strerror, frames=len(self._waiting))
                self.is_blocked = True
                self._written(self._writer.sequence - before)
                return
            self._written(len(payloads))
        self.is_blocked = False

    def skip(self, draw: Draw) -> None:
        """A draw of which nothing is to be written."""
        self._progress.finish(draw.writer, draw.sequence)

    def _next_write(self) -> list[bytes]:
        payloads: list[bytes] = []
        size = 0
        for payload, _, _ in self._waiting:
            if payloads and size + len(payload) > _WRITE_BYTES:
                break
            payloads.append(payload)
            size += len(payload)
        return payloads

    def _written(self, count: int) -> None:
        written = [self._waiting.popleft() for _ in range(count)]
        self._progress.appended(job.draw for _, job, _ in written)
        for _, job, is_last in written:
            if is_last:
                self._meter.count(job)
                job.draw.open_jobs -= 1
                if not job.draw.open_jobs:
                    self._progress.finish(job.draw.writer, job.draw.sequence)
