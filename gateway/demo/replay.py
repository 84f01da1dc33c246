"""The demo's world: a process of its own that lets July happen again, asks the gateway about each flight and tells it how each ended.

Flights are asked about in their true order, at their scheduled minute of a clock that runs faster; the label of each is posted when that
clock has reached its landing. What was answered is kept in a log of our own, so that the gateway's records can be held against it.
"""

import argparse
import asyncio
import csv
import heapq
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from gateway.demo import flights
from gateway.demo.callers import Answer, Caller, GrpcCaller, LabelPoster, MlflowCaller, V2Caller, Values, monotonic_us

REPLAY_MONTH: Final = 7
ANSWERS_CSV: Final = "answers.csv"
LABELS_CSV: Final = "labels.csv"
ANSWERS_HEAD: Final = (
    "request_id", "due_unix_s", "protocol", "status", "prediction_id", "variant", "revision", "label", "latency_us", "problem",
)  # fmt: skip
LABELS_HEAD: Final = ("prediction_id", "label", "landed_unix_s", "posted")

_IN_FLIGHT_MAX: Final = 64
_REPORT_S: Final = 0.5
_LABELS_S: Final = 0.1
_CONNECTIONS: Final = 16


class Flight(NamedTuple):
    """One question. `request_id` says which flight and when ("UA1545.EWR.20130701T0915Z"), so that the records say it too. `landed_unix_s` and `late` are None for flights that never land: their truth never comes."""

    request_id: str
    unit: str
    due_unix_s: float
    landed_unix_s: float | None
    late: int | None
    values: Values


class Timeline:
    """A clock that runs `speed` times as fast as ours, from `start_unix_s` on."""

    def __init__(self, start_unix_s: float, speed: float, began_s: float) -> None:
        self._start_unix_s = start_unix_s
        self._speed = speed
        self._began_s = began_s

    def unix_s(self, now_s: float) -> float:
        """The replayed instant at our monotonic `now_s`."""
        return self._start_unix_s + (now_s - self._began_s) * self._speed

    def wait_s(self, unix_s: float, now_s: float) -> float:
        """Until the replayed instant `unix_s`; negative when it has passed."""
        return self._began_s + (unix_s - self._start_unix_s) / self._speed - now_s


class Progress(msgspec.Struct, kw_only=True):
    """What is reported twice a second, as a JSON line; counts are of the whole replay, latencies of the last half second."""

    event: str = "progress"
    at: str = ""
    asked: int = 0
    total: int = 0
    answered: int = 0
    failed: int = 0
    labels: int = 0
    behind_s: float = 0.0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    by_variant: dict[str, int] = {}
    by_protocol: dict[str, int] = {}
    problem: str = ""


class Replay:
    """One run. Only its own event loop touches it."""

    def __init__(
        self,
        world: Sequence[Flight],
        callers: Sequence[Caller],
        poster: LabelPoster,
        *,
        folder: Path,
        seconds: float,
        say: IO[str],
    ) -> None:
        """Raises OSError when the logs cannot be made. `callers` take turns."""
        self._world = world
        self._callers = callers
        self._poster = poster
        self._seconds = seconds
        self._say = say
        self._free = asyncio.Semaphore(_IN_FLIGHT_MAX)
        self._landing: list[tuple[float, str, int]] = []
        self._latencies_us: list[int] = []
        self._variants: Counter[str] = Counter()
        self._protocols: Counter[str] = Counter()
        self._progress = Progress(total=len(world))
        self._is_stopping = asyncio.Event()
        self._files = ExitStack()
        self._answers = _csv(self._files, folder / ANSWERS_CSV, ANSWERS_HEAD)
        self._labels = _csv(self._files, folder / LABELS_CSV, LABELS_HEAD)

    def stop(self) -> None:
        """No more questions; what was asked is still answered, and what has landed labelled."""
        self._is_stopping.set()

    async def run(self) -> Progress:
        """Until the last flight has landed, or was told to stop."""
        first = self._world[0].due_unix_s
        speed = (self._world[-1].due_unix_s - first) / self._seconds
        timeline = Timeline(first, speed, time.monotonic())
        with self._files:
            async with asyncio.TaskGroup() as group:
                labelling = group.create_task(self._label(timeline))
                reporting = group.create_task(self._report(timeline))
                await self._ask_all(timeline)
                await self._await_landings(timeline)
                for task in (labelling, reporting):
                    task.cancel()
            await self._post_landed(timeline.unix_s(time.monotonic()))
        self._tell(timeline)
        return self._progress

    async def _ask_all(self, timeline: Timeline) -> None:
        """Every flight at its minute, or as soon as a place is free: order is kept, and `behind_s` says how late it got."""
        async with asyncio.TaskGroup() as group:
            for number, flight in enumerate(self._world):
                wait_s = timeline.wait_s(flight.due_unix_s, time.monotonic())
                if wait_s > 0:
                    await self._pause(wait_s)
                if self._is_stopping.is_set():
                    return
                await self._free.acquire()
                self._progress.asked += 1
                self._progress.behind_s = max(0.0, -timeline.wait_s(flight.due_unix_s, time.monotonic()))
                group.create_task(self._ask(flight, self._callers[number % len(self._callers)]))

    async def _ask(self, flight: Flight, caller: Caller) -> None:
        began_us = monotonic_us()
        try:
            answer = await caller.ask(flight.values, flight.unit, flight.request_id)
        finally:
            self._free.release()
        latency_us = monotonic_us() - began_us
        self._note(flight, caller.name, answer, latency_us)

    def _note(self, flight: Flight, protocol: str, answer: Answer, latency_us: int) -> None:
        if answer.status == 200:
            self._progress.answered += 1
            self._variants[answer.variant] += 1
            if flight.landed_unix_s is not None and flight.late is not None:
                heapq.heappush(self._landing, (flight.landed_unix_s, answer.prediction_id, flight.late))
        else:
            self._progress.failed += 1
            self._progress.problem = f"{protocol} {answer.status}: {answer.problem}"
        self._protocols[protocol] += 1
        self._latencies_us.append(latency_us)
        self._answers.writerow(
            (
                flight.request_id, int(flight.due_unix_s), protocol, answer.status, answer.prediction_id, answer.variant,
                answer.revision, answer.label, latency_us, answer.problem,
            )
        )  # fmt: skip

    async def _label(self, timeline: Timeline) -> None:
        while True:
            await asyncio.sleep(_LABELS_S)
            await self._post_landed(timeline.unix_s(time.monotonic()))

    async def _post_landed(self, unix_s: float) -> None:
        """Posts the labels of what has landed by the replayed instant `unix_s`."""
        landed: list[tuple[float, str, int]] = []
        while self._landing and self._landing[0][0] <= unix_s and len(landed) < 1000:
            landed.append(heapq.heappop(self._landing))
        if not landed:
            return
        accepted = await self._poster.post([(prediction_id, late) for _, prediction_id, late in landed])
        self._progress.labels += accepted
        self._labels.writerows(
            (prediction_id, late, int(at), int(accepted == len(landed))) for at, prediction_id, late in landed
        )

    async def _await_landings(self, timeline: Timeline) -> None:
        """The last flights are still in the air when the last has left."""
        last = max((flight.landed_unix_s or 0.0 for flight in self._world), default=0.0)
        wait_s = timeline.wait_s(last, time.monotonic()) + 2 * _LABELS_S
        if wait_s > 0 and not self._is_stopping.is_set():
            await self._pause(wait_s)

    async def _report(self, timeline: Timeline) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            self._tell(timeline)

    def _tell(self, timeline: Timeline) -> None:
        progress, seen = self._progress, sorted(self._latencies_us)
        self._latencies_us.clear()
        progress.at = datetime.fromtimestamp(timeline.unix_s(time.monotonic()), UTC).isoformat(timespec="minutes")
        progress.latency_p50_ms = seen[len(seen) // 2] / 1e3 if seen else None
        progress.latency_p99_ms = seen[len(seen) * 99 // 100] / 1e3 if seen else None
        progress.by_variant, progress.by_protocol = dict(self._variants), dict(self._protocols)
        self._say.write(msgspec.json.encode(progress).decode() + "\n")
        self._say.flush()

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not through a stop."""
        try:
            await asyncio.wait_for(self._is_stopping.wait(), seconds)
        except TimeoutError:
            return


def july(days: int) -> list[Flight]:
    """The flights of the first `days` days of July, by scheduled departure, none of which any model has seen."""
    data = flights.load(until_month=REPLAY_MONTH)
    data = data[(data["month"] == REPLAY_MONTH) & (data["day"] <= days)]
    columns = [data[name].tolist() for name in ("request_id", "unit", "due_unix_s", "landed_unix_s", "late")]
    values = zip(*(data[name].tolist() for name in flights.INPUTS), strict=True)
    return [
        Flight(name, unit, due, None if math.isnan(late) else landed, None if math.isnan(late) else int(late), row)
        for name, unit, due, landed, late, row in zip(*columns, values, strict=True)
    ]


def main(arguments: Iterable[str] | None = None) -> None:
    """Loads, says `{"event":"ready"}`, waits for a line on standard input, and goes. SIGTERM ends it in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest", required=True, help="address of the REST listener, with http://")
    parser.add_argument("--grpc", required=True, help="host and port of the gRPC listener")
    parser.add_argument("--folder", required=True, type=Path, help="where the two logs go")
    parser.add_argument("--days", type=int, default=31, help="how many days of July")
    parser.add_argument("--seconds", type=float, default=75.0, help="how long they shall take")
    given = parser.parse_args(None if arguments is None else list(arguments))
    given.folder.mkdir(parents=True, exist_ok=True)
    world = july(given.days)
    sys.stdout.write('{"event":"ready"}\n')
    sys.stdout.flush()
    if not sys.stdin.readline():
        return
    try:
        import uvloop
    except ImportError:
        asyncio.run(_main(world, given))
    else:
        uvloop.run(_main(world, given))


async def _main(world: Sequence[Flight], given: argparse.Namespace) -> None:
    # Half of the applications speak V2 over REST, a quarter MLflow's protocol, a quarter gRPC.
    v2, mlflow, rpc = V2Caller(given.rest, _CONNECTIONS), MlflowCaller(given.rest, _CONNECTIONS), GrpcCaller(given.grpc)
    poster = LabelPoster(given.rest)
    replay = Replay(world, (v2, mlflow, v2, rpc), poster, folder=given.folder, seconds=given.seconds, say=sys.stdout)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, replay.stop)
    try:
        done = await replay.run()
    finally:
        for one in (v2, mlflow, rpc, poster):
            await one.close()
    done.event = "done"
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
    sys.stdout.flush()


def _csv(files: ExitStack, path: Path, head: Sequence[str]) -> Any:
    """A CSV writer with its head written; the file is closed with `files`."""
    writer = csv.writer(files.enter_context(path.open("w", newline="", encoding="utf-8")))
    writer.writerow(head)
    return writer


if __name__ == "__main__":
    main()
