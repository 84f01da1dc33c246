"""What is counted adds up, and a minute leaves once, when it is over."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.kit.plane import Plane
from tests.kit.staged import stage_linear


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


async def ask(plane: Plane, rows: int = 1) -> None:
    await plane.corridor.infer(plane.request({"x": np.ones((rows, 2), np.float32)}))


async def test_an_answer_is_counted_with_its_arm_its_version_and_its_status(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    await ask(plane)
    await ask(plane)
    labels = {"endpoint": "line", "variant": "champion", "model": "line", "version": "1", "protocol": "v2-rest"}
    totals = plane.totals()
    assert totals.value("runoff_requests_total", **labels, code="200") == 2
    buckets = totals.series["runoff_request_duration_seconds", tuple(labels.items())]
    assert sum(buckets[:-1]) == 2


async def test_a_minute_is_cut_once_and_holds_what_came_in_it(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    start = plane.meter._minute_unix_s
    await ask(plane, rows=3)
    assert plane.meter.close_minute(start + 59) is None
    block = plane.meter.close_minute(start + 60)
    assert block is not None
    (minute,) = block.minutes
    assert (minute.endpoint, minute.minute_unix_s, minute.requests, minute.rows) == ("line", start, 1, 3)
    assert sum(minute.latency_buckets) == 1
    assert plane.meter.close_minute(start + 120) is None
    await ask(plane)
    last = plane.meter.close_last(start + 130)
    assert last is not None
    assert last.minutes[0].requests == 1


async def test_refusals_are_counted_by_their_code(plane: Plane) -> None:
    plane.meter.refused("line", "overloaded")
    assert plane.totals().value("runoff_refused_total", endpoint="line", reason="overloaded") == 1


async def test_statistics_count_rows_runs_and_times_as_triton_does(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    assert plane.meter.statistics("line", "1") is None
    await ask(plane, rows=3)
    await ask(plane)
    found = plane.meter.statistics("line", "1")
    assert found is not None
    assert (found.inference_count, found.execution_count, found.success.count, found.fail.count) == (4, 2, 2, 0)
    assert [batch.batch_size for batch in found.batches] == [1, 3]
    assert found.success.ns >= found.queue.ns + found.compute_infer.ns > 0
