"""Room 7: what may wait. A request is refused at once when it would wait too long, rather than late when it has waited."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from gateway.errors import NotReady, Overloaded
from gateway.live import ServedEndpoint
from gateway.runs import Queue
from gateway.ticket import HEAVY_BYTES_MIN
from models.catalog import LoadedModel


class Admission:
    """Bounds of one worker: requests in flight over all endpoints, bytes of large ones, and each endpoint's own `limits`."""

    def __init__(self, inflight_max: int, inflight_bytes_max: int = 256 << 20) -> None:
        self.inflight = 0
        """Over all endpoints, also those of revisions that are live no more; whoever counts a request in its endpoint counts it here."""
        self._inflight_max = inflight_max
        self._bytes_max = inflight_bytes_max
        self._heavy_bytes = 0

    def has_room(self, heavy_bytes: int, already: int = 0) -> bool:
        """Whether so much more of a large request may be held, of which some is `already`; one is always taken alone."""
        return self._heavy_bytes <= already or self._heavy_bytes + heavy_bytes <= self._bytes_max

    def hold(self, heavy_bytes: int, already: int = 0) -> None:
        """Takes in a large request, or more of it. Raises NotReady where the worker holds too many bytes of such."""
        if not self.has_room(heavy_bytes, already):
            raise NotReady("this process holds as many bytes of large requests as it may", "process_bound")
        self._heavy_bytes += heavy_bytes

    def release(self, heavy_bytes: int) -> None:
        """A large request is answered, or goes on as a ticket, which holds for itself."""
        self._heavy_bytes -= heavy_bytes

    @contextmanager
    def held_open(self, endpoint: ServedEndpoint) -> Iterator[None]:
        """A request without a ticket yet is in flight, and its models stay open. Raises Overloaded or NotReady."""
        self.enter(endpoint, endpoint.champion.model, None)
        models = endpoint.models
        endpoint.inflight += 1
        self.inflight += 1
        for model in models:
            model.leases += 1
        try:
            yield
        finally:
            endpoint.inflight -= 1
            self.inflight -= 1
            for model in models:
                model.leases -= 1

    def enter(self, endpoint: ServedEndpoint, model: LoadedModel, queue: Queue | None) -> None:
        """Raises Overloaded or NotReady. `queue`: what waits for the model already, None for nothing.

        The wait is predicted from the model's own curve (`_ahead`). Models under a millisecond have no wait to speak of: there the door
        stops reading instead (refusing costs as much as answering).
        """
        limits = endpoint.route.limits
        if endpoint.inflight >= limits.concurrency_max:
            raise Overloaded(
                f"endpoint '{endpoint.name}': {endpoint.inflight} requests in flight, at most {limits.concurrency_max}",
                "concurrency",
            )
        if self.inflight >= self._inflight_max:
            raise NotReady("this process holds as many requests as it may", "process_bound")
        if queue is not None and queue.rows >= model.rows_max:
            runs, run_s = _ahead(model, queue)
            wait_s = runs * run_s
            if run_s > 0.001 and wait_s > limits.queue_wait_max_s:
                raise Overloaded(
                    f"endpoint '{endpoint.name}': the wait would be {wait_s:.3f} s, at most {limits.queue_wait_max_s} s",
                    "queue_wait",
                    max(1, round(wait_s)),
                )


def _ahead(model: LoadedModel, queue: Queue) -> tuple[int, float]:
    """How many runs come before who is last, the one that goes on among them, and the seconds of each: full batches, or one a request."""
    if model.shares_runs:
        return queue.rows // model.rows_max + 1, model.predicted_s(model.rows_max)
    return len(queue) + 1, model.predicted_s(queue.rows // len(queue))


class Holding:
    """What of one body is here before it is a ticket: counted as it arrives, so that nobody holds a place with bytes that he does not send."""

    __slots__ = ("_admission", "_size")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def expect(self, size: int) -> None:
        """So much is announced. Raises NotReady where there is no room for it now."""
        if size >= HEAVY_BYTES_MIN:
            self._admission.hold(size)
            self._admission.release(size)

    def grow_to(self, size: int) -> None:
        """So much is here now. Raises NotReady; small bodies are not counted."""
        if size >= HEAVY_BYTES_MIN and size > self._size:
            self._admission.hold(size - self._size, self._size)
            self._size = size

    def release(self) -> None:
        if self._size:
            self._admission.release(self._size)
            self._size = 0
