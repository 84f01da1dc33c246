"""Runs on the pool's threads: how many a model has there, and the requests that do not stay until theirs ends.

Whose deadline passes meanwhile is answered then, by a look at what runs every few milliseconds and not by a timer of its own; whose caller
leaves is recorded as that when the run ends, for until then it holds its place. What the model computed for them is dropped, and a run that
nobody waits for any more is stopped: else one huge request held the thread, and all models that need it, long after its deadline. Runs on
the loop are shorter than such a look, so nobody leaves them.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.errors import Cancelled, DeadlinePassed
from gateway.runs import run
from gateway.ticket import Batch, Ticket
from models.catalog import LoadedModel
from models.pool import ComputePool
from models.runtime.onnx import Stop

LOOK_S: Final = 0.005
"""By so much a deadline that passes during a run may be answered late."""

Batches = Callable[[list[Batch]], None]


class ThreadedRuns:
    """Belongs to the event loop, on which it calls `land` with what a thread has done, and `expire` with the late of each look."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: ComputePool,
        clock_ns: Callable[[], int],
        land: Batches,
        expire: Batches,
    ) -> None:
        self.running: dict[LoadedModel, int] = {}
        """How many runs of a model go on now; only models that have any."""
        self._loop = loop
        self._pool = pool
        self._clock_ns = clock_ns
        self._land = land
        self._expire = expire
        self._batches: set[Batch] = set()
        self._is_looking = False

    def start(self, batch: Batch) -> None:
        """Hands a batch to a thread."""
        self.running[batch.model] = self.running.get(batch.model, 0) + 1
        batch.stop = Stop()
        self._batches.add(batch)
        self._pool.submit(lambda: self._run(batch))
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(LOOK_S, self._look)

    def _run(self, batch: Batch) -> None:
        """On a thread."""
        done = run(batch, self._clock_ns)
        self._loop.call_soon_threadsafe(self._ended, batch, done)

    def _ended(self, batch: Batch, done: list[Batch]) -> None:
        """Back on the loop. `done` is the batch, or the parts that it was halved into."""
        running = self.running.pop(batch.model) - 1
        if running:
            self.running[batch.model] = running
        self._batches.discard(batch)
        gone = []
        for part in done:
            for ticket in part.tickets:
                if ticket.cancelled and not ticket.has_left:
                    gone.append(_left(ticket, part, Cancelled("the caller has gone")))
                part.is_whole &= not ticket.has_left
        self._land(done + gone)

    def _look(self) -> None:
        """While anything runs: whose deadline has passed, and does anybody still wait?"""
        self._is_looking = bool(self._batches)
        if not self._batches:
            return
        self._loop.call_later(LOOK_S, self._look)
        now_ns = self._clock_ns()
        late: list[Batch] = []
        for batch in self._batches:
            waiting = [ticket for ticket in batch.tickets if not (ticket.has_left or ticket.cancelled)]
            passed = [ticket for ticket in waiting if now_ns > ticket.deadline_ns]
            late += [
                _left(ticket, batch, DeadlinePassed("the deadline passed while the model ran")) for ticket in passed
            ]
            if len(passed) == len(waiting) and batch.stop is not None:
                batch.stop.now()
        self._expire(late)


def _left(ticket: Ticket, batch: Batch, error: Exception) -> Batch:
    """A ticket that does not stay: a batch of its own, which began with the run and has no end. The run keeps the ticket's lease."""
    ticket.has_left, ticket.error = True, error
    alone = Batch(batch.model, [ticket], ticket.rows)
    alone.started_ns = batch.started_ns
    return alone
