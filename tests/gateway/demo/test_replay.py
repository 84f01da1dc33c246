import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from gateway.demo.callers import Answer, Values
from gateway.demo.replay import ANSWERS_CSV, LABELS_CSV, Flight, Progress, Replay, Timeline

HOUR = 3600.0


class Known:
    """An application that is always answered, or always refused."""

    name = "v2-rest"

    def __init__(self, status: int = 200) -> None:
        self.asked: list[str] = []
        self._status = status

    async def ask(self, values: Values, unit: str, request_id: str) -> Answer:
        self.asked.append(request_id)
        if self._status != 200:
            return Answer(status=self._status, problem="no")
        return Answer(status=200, prediction_id=f"p-{request_id}", variant="champion", revision=1, label=0)

    async def close(self) -> None: ...


class Posted:
    def __init__(self) -> None:
        self.truths: list[tuple[str, int]] = []
        self.at_s: dict[str, float] = {}

    async def post(self, truths: Sequence[tuple[str, int]]) -> int:
        self.truths += truths
        self.at_s |= {prediction_id: time.monotonic() for prediction_id, _ in truths}
        return len(truths)

    async def close(self) -> None: ...


def flight(name: str, due: float, landed: float | None, late: int | None) -> Flight:
    return Flight(name, "N1/2013-07-01", due, landed, late, ())


WORLD = [
    flight("a", 0.0, 1 * HOUR, 1),
    flight("b", 0.5 * HOUR, None, None),
    flight("c", 8 * HOUR, 12 * HOUR, 0),
]


async def run(folder: Path, caller: Known, world: Sequence[Flight] = WORLD) -> tuple[Progress, Posted, list[Progress]]:
    poster, said = Posted(), io.StringIO()
    replay = Replay(world, [caller], poster, folder=folder, seconds=0.8, say=said)  # type: ignore[arg-type]
    done = await replay.run()
    return done, poster, [msgspec.json.decode(line, type=Progress) for line in said.getvalue().splitlines()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_replayed_clock_runs_faster_and_tells_how_long_to_wait() -> None:
    timeline = Timeline(start_unix_s=1000.0, speed=60.0, began_s=5.0)
    assert timeline.unix_s(6.0) == 1060.0
    assert timeline.wait_s(1120.0, 6.0) == pytest.approx(1.0)
    assert timeline.wait_s(1000.0, 6.0) < 0


async def test_flights_are_asked_about_in_order_and_all_are_logged(tmp_path: Path) -> None:
    caller = Known()
    done, _, told = await run(tmp_path, caller)
    assert caller.asked == ["a", "b", "c"]
    assert [row["prediction_id"] for row in rows(tmp_path / ANSWERS_CSV)] == ["p-a", "p-b", "p-c"]
    assert (done.asked, done.answered, done.failed, done.by_variant) == (3, 3, 0, {"champion": 3})
    assert told[-1].asked == 3


async def test_a_label_is_posted_when_the_flight_has_landed_and_not_before(tmp_path: Path) -> None:
    began_s = time.monotonic()
    _, posted, _ = await run(tmp_path, Known())
    assert posted.truths == [("p-a", 1), ("p-c", 0)]
    # Eight hours take 0.8 s; c is asked about at 8:00 and lands at 12:00.
    assert posted.at_s["p-c"] - began_s >= 1.2


async def test_a_cancelled_flight_is_asked_about_and_never_labelled(tmp_path: Path) -> None:
    await run(tmp_path, Known())
    assert [row["prediction_id"] for row in rows(tmp_path / LABELS_CSV)] == ["p-a", "p-c"]


async def test_a_refusal_is_logged_counted_and_never_labelled(tmp_path: Path) -> None:
    done, posted, _ = await run(tmp_path, Known(status=503))
    assert (done.answered, done.failed, done.problem) == (0, 3, "v2-rest 503: no")
    assert posted.truths == []
    assert {row["status"] for row in rows(tmp_path / ANSWERS_CSV)} == {"503"}


async def test_a_stop_asks_no_more_and_still_labels_what_has_landed(tmp_path: Path) -> None:
    caller, poster = Known(), Posted()
    replay = Replay(WORLD, [caller], poster, folder=tmp_path, seconds=60.0, say=io.StringIO())  # type: ignore[arg-type]
    replay.stop()
    done = await replay.run()
    assert (done.asked, done.labels) == (0, 0)
