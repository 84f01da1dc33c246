"""Where the rows for one remote candidate wait and are called for, a few at a time, apart from all other candidates."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from gateway.shadow.breaker import Breaker
from gateway.shadow.chain import onward
from gateway.shadow.draw import AGE_MAX_S, Answered, Draw, Job
from gateway.shadow.local import chunks
from gateway.shadow.reading import read_remote
from gateway.telemetry.log import EventLog
from models.runtime.target import BodyTooLarge, InputRefused, Named, RemoteAnswer, RemoteFailed, RemoteTimeout
from models.signature import Answer
from routing.traffic import MIRRORED_HEADER

_log: Final = EventLog(__name__)

CALLS_MAX: Final = 8
TELL_S: Final = 60.0
"""Between two words in the log about a remote that does not answer as it should."""
ROWS_MAX: Final = 64
"""Rows of one call, where the endpoint's requests can share one."""

Chunk = tuple[Job, list[int]]


class Remote(Protocol):
    """A model that another server runs, over any protocol: `RemoteModel`, `MlflowModel`, `gateway.rpc.remote.GrpcModel`."""

    async def infer(
        self, inputs: Sequence[Named], *, body_bytes_max: int, headers: Mapping[str, str] = ...
    ) -> RemoteAnswer:
        """One bounded call; `headers` (lower case) go along. Raises RemoteTimeout, RemoteRefused, InputRefused, BodyTooLarge or, for all else, RemoteFailed."""
        ...

    async def close(self) -> None: ...


class Lane:
    """One remote candidate. Belongs to the loop; `landed` is called with each job that is done. `gateway` is the id of this one.

    `offer` never waits: what the lane cannot hold is shed there and then.
    """

    def __init__(
        self,
        remote: Remote,
        model: str,
        *,
        gateway: str,
        body_bytes_max: int,
        landed: Callable[[Job], None],
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remote = remote
        self._model = model
        self._gateway = gateway
        self._body_bytes_max = body_bytes_max
        self._landed = landed
        self._wall = wall
        self._clock = clock
        self._told_at = float("-inf")
        self._breaker = Breaker(clock)
        self._queue: asyncio.Queue[Chunk] = asyncio.Queue()  # bounded by `offer`, in bytes
        self._answers: dict[int, Answer] = {}
        self._waiting: dict[int, int] = {}
        self._is_removed = False
        self._has_told = False
        self._runners = [asyncio.create_task(self._serve(), name=f"remote {model}") for _ in range(CALLS_MAX)]

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the frames that wait here or are being called for."""
        return sum(self._waiting.values())

    def offer(self, job: Job, answer: Answer, *, is_batched: bool, waiting_bytes_max: int) -> None:
        """Takes the waiting requests of a job; `answer` says how production's outputs are read, and so the remote's.

        With `waiting_bytes_max` of frames waiting here nothing more is taken, beyond one.
        """
        job.model = self._model
        waiting = job.waiting()
        ways = self._ways(job, waiting)
        if self._waiting and self.waiting_bytes + job.draw.size_bytes > waiting_bytes_max:
            job.fail(job.waiting(), "governor")
        if job.is_done:
            self._landed(job)
            return
        self._answers[id(job)] = answer
        self._waiting[id(job)] = job.draw.size_bytes
        for indexes in ways:
            for chunk in chunks([(job, index) for index in indexes], ROWS_MAX if is_batched else 1):
                self._queue.put_nowait((job, [index for _, index in chunk]))

    def _ways(self, job: Job, indexes: list[int]) -> list[list[int]]:
        """The requests that may share a call, since they came through the same gateways. Those that go round fail."""
        if not job.draw.block.chains:
            return [indexes]
        ways: dict[str | None, list[int]] = {}
        for index in indexes:
            ways.setdefault(onward(job.draw.chain(index), self._gateway), []).append(index)
        circling = ways.pop(None, [])
        if circling:
            job.fail(circling, "cycle")
            if not self._has_told:
                self._has_told = True
                through = job.draw.chain(circling[0])
                _log.warning("mirror_cycle", endpoint=job.draw.block.endpoint, mirror=job.mirror, came_through=through)
        return list(ways.values())

    def remove(self) -> None:
        """The mirror is gone from the route: what waits is counted as such. The lane ends once it is idle, by `close`."""
        self._is_removed = True

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    async def close(self) -> None:
        """Stops at once; what is under way has no outcome, and stays for the next process."""
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        await self._remote.close()

    async def _serve(self) -> None:
        while True:
            job, indexes = await self._queue.get()
            try:
                await self._call(job, indexes)
            except Exception as error:  # noqa: BLE001  # a fault of ours must not strand the job, nor end the runner
                _log.error("remote_call_broken", error=error)
                job.fail(indexes, "remote_error")
            if job.is_done:
                del self._waiting[id(job)], self._answers[id(job)]
                self._landed(job)

    async def _call(self, job: Job, indexes: list[int]) -> None:
        reason = self._refusal(job, indexes)
        if reason is not None:
            job.fail(indexes, reason)
            return
        draw = job.draw
        inputs = [(name, draw.take(array, indexes)) for name, array in draw.inputs.items()]
        started = time.perf_counter_ns()
        try:
            answer = await self._remote.infer(
                inputs, body_bytes_max=self._body_bytes_max, headers=self._marks(draw, indexes)
            )
            self._breaker.succeeded()
            answered = self._read(job, indexes, answer, (time.perf_counter_ns() - started) // 1000)
        except (BodyTooLarge, InputRefused) as error:
            if isinstance(error, InputRefused):
                self._breaker.succeeded()  # it lives, and answers
            if len(indexes) > 1:  # one of them may be the cause
                for index in indexes:
                    self._queue.put_nowait((job, [index]))
                return
            if isinstance(error, InputRefused):
                self._tell(job, str(error))
            job.fail(indexes, "too_large" if isinstance(error, BodyTooLarge) else "remote_error")
        except RemoteFailed as error:
            reason = "remote_timeout" if isinstance(error, RemoteTimeout) else "remote_error"
            self._breaker.failed(reason)
            self._tell(job, str(error))
            job.fail(indexes, reason)
        else:
            if answered is None:
                self._tell(job, "its answer cannot be read as production's")
                job.fail(indexes, "incompatible")
            else:
                job.version = answer.version or job.version
                job.answer(answered)

    def _tell(self, job: Job, problem: str) -> None:
        """Why rows have no answer, now and then: the counters know how many, and not what the other server said."""
        if self._clock() - self._told_at >= TELL_S:
            self._told_at = self._clock()
            _log.warning("mirror_fails", endpoint=job.draw.block.endpoint, mirror=job.mirror, problem=problem)

    def _marks(self, draw: Draw, indexes: Sequence[int]) -> Mapping[str, str]:
        """Where the requests of one call have come through; those of a job that differ in it share none (`_ways`)."""
        chain = onward(draw.chain(indexes[0]), self._gateway)
        return {} if chain is None else {MIRRORED_HEADER: chain}

    def _refusal(self, job: Job, indexes: Sequence[int]) -> str | None:
        if self._is_removed:
            return "mirror_removed"
        if self._wall() - job.draw.block.requests[indexes[0]].received_unix_us / 1e6 > AGE_MAX_S:
            return "expired"
        return self._breaker.refusal()

    def _read(self, job: Job, indexes: list[int], answer: RemoteAnswer, call_us: int) -> Answered | None:
        """The remote's outputs as an answer; None where they cannot stand beside production's."""
        rows = sum(job.draw.block.requests[index].rows for index in indexes)
        found = read_remote(self._answers[id(job)], answer, rows)
        if found is None:
            return None
        names, outputs, labels, scores = found
        return Answered(
            indexes=indexes,
            names=names,
            outputs=outputs,
            labels=labels,
            scores=scores,
            compute_us=call_us,
            batch_rows=rows,
            done_unix_us=int(self._wall() * 1e6),
        )
