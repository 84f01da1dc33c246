import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from gateway.shadow.breaker import FAILURES_MAX
from gateway.shadow.draw import Job
from gateway.shadow.lane import CALLS_MAX, Lane
from models.runtime.remote import RemoteModel
from models.runtime.target import Access
from models.signature import Answer
from tests.kit.remote_server import Behave, Handler, Server, failing, hanging, linear, saying, serving, slow
from tests.kit.shadowed import draw_of

ANSWER = Answer(kind="classification", label_output="label", score_output="probabilities", classes=(0, 1))

GATEWAY = "a" * 16


class Landing:
    """Takes the jobs that a lane has done."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.changed = asyncio.Event()

    def __call__(self, job: Job) -> None:
        self.jobs.append(job)
        self.changed.set()

    async def of(self, count: int) -> list[Job]:
        async with asyncio.timeout(30):
            while len(self.jobs) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.jobs


@asynccontextmanager
async def lane_to(behave: Behave, **fields: Any) -> AsyncIterator[tuple[Lane, Landing, Server]]:
    landing = Landing()
    with serving(behave) as server:
        client = RemoteModel(server.url, "m", Access(allow=("127.0.0.1",), timeout_s=fields.pop("timeout_s", 5.0)))
        lane = Lane(client, "m", gateway=GATEWAY, landed=landing, **({"body_bytes_max": 1 << 20} | fields))
        try:
            yield lane, landing, server
        finally:
            await lane.close()


def job_of(
    rows: Sequence[int], *, age_s: float = 0.0, x: np.ndarray | None = None, indexes: Sequence[int] | None = None
) -> Job:
    inputs = np.ones((sum(rows), 2), np.float32) if x is None else x
    draw = draw_of({"x": inputs}, rows=rows, received_unix_s=time.time() - age_s)
    return Job(draw, "far", range(len(rows)) if indexes is None else indexes)


async def test_requests_of_a_frame_share_a_call_and_get_their_own_rows() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    async with lane_to(linear(2.0)) as (lane, landing, server):
        lane.offer(job_of([1, 2, 2, 1], x=x, indexes=[0, 2, 3]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        (job,) = await landing.of(1)

    (answer,) = job.answers
    assert answer.indexes == [0, 2, 3]
    assert len(server.calls) == 1
    np.testing.assert_allclose(answer.scores, 1 / (1 + np.exp(-2 * x[[0, 3, 4, 5]].sum(axis=1))), rtol=1e-5)
    assert job.version == "9"
    assert lane.is_idle


async def test_requests_that_cannot_share_a_run_are_called_for_one_by_one() -> None:
    async with lane_to(linear(2.0)) as (lane, landing, server):
        lane.offer(job_of([1, 1, 1]), ANSWER, is_batched=False, waiting_bytes_max=1 << 24)
        (job,) = await landing.of(1)
        assert len(server.calls) == 3
    assert len(job.answers) == 3


async def test_a_call_names_the_gateways_that_its_rows_came_through_and_rows_that_come_round_go_no_further() -> None:
    other, third = "b" * 16, "c" * 16
    job = job_of([1] * 5)
    job.draw.block.chains.extend([None, other, f"{other},{GATEWAY}", other, f"{third},{other}"])
    async with lane_to(linear(2.0)) as (lane, landing, server):
        lane.offer(job, ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        await landing.of(1)
        sent = {
            headers["x-runoff-mirrored"]: len(json.loads(body)["inputs"][0]["data"]) for headers, body in server.calls
        }
    assert sent == {GATEWAY: 2, f"{other},{GATEWAY}": 4, f"{third},{other},{GATEWAY}": 2}  # two values a row
    assert job.reasons == {2: "cycle"}


async def test_a_frame_of_rows_that_all_come_round_is_done_at_once() -> None:
    job = job_of([1, 1])
    job.draw.block.chains.extend([GATEWAY, GATEWAY])
    async with lane_to(linear(2.0)) as (lane, landing, server):
        lane.offer(job, ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        assert landing.jobs == [job]
        assert lane.is_idle
        assert not server.calls
    assert job.reasons == {0: "cycle", 1: "cycle"}


async def test_an_input_that_the_server_refuses_fails_alone() -> None:
    def picky(handler: Handler) -> None:
        if 666 in json.loads(handler.body)["inputs"][0]["data"]:
            failing(400)(handler)
        else:
            linear(1.0)(handler)

    x = np.ones((4, 2), np.float32)
    x[2, 0] = 666
    async with lane_to(picky) as (lane, landing, _):
        lane.offer(job_of([1] * 4, x=x), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        (job,) = await landing.of(1)

    assert job.reasons == {2: "remote_error"}
    assert sorted(index for answer in job.answers for index in answer.indexes) == [0, 1, 3]


async def test_a_request_whose_body_is_too_large_is_counted_and_the_others_are_sent() -> None:
    async with lane_to(linear(1.0), body_bytes_max=300) as (lane, landing, _):
        lane.offer(job_of([1, 100, 1]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        (job,) = await landing.of(1)

    assert job.reasons == {1: "too_large"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"outputs": []}',
        b'{"outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [1]}]}',
        (
            b'{"outputs": [{"name": "label", "datatype": "INT64", "shape": [2], "data": [1, 1]}, '
            b'{"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}]}'
        ),
    ],
)
async def test_an_answer_that_cannot_stand_beside_productions_is_incompatible(body: bytes) -> None:
    async with lane_to(saying(body)) as (lane, landing, _):
        lane.offer(job_of([2]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        (job,) = await landing.of(1)

    assert job.reasons == {0: "incompatible"}


async def test_a_server_that_keeps_failing_is_left_alone() -> None:
    async with lane_to(failing(500)) as (lane, landing, server):
        for done in range(20):
            lane.offer(job_of([1]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
            await landing.of(done + 1)
        assert len(server.calls) == FAILURES_MAX
    assert {reason for job in landing.jobs for reason in job.reasons.values()} == {"remote_error"}


async def test_a_server_that_hangs_costs_a_few_time_outs_and_then_nothing() -> None:
    async with lane_to(hanging, timeout_s=0.3) as (lane, landing, server):
        for _ in range(10 * CALLS_MAX):
            lane.offer(job_of([1]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        jobs = await landing.of(10 * CALLS_MAX)
        assert len(server.calls) < CALLS_MAX + FAILURES_MAX
    assert {reason for job in jobs for reason in job.reasons.values()} == {"remote_timeout"}


async def test_no_more_than_a_few_calls_run_at_once() -> None:
    together = threading.Semaphore(CALLS_MAX)
    crowded = threading.Event()

    def behave(handler: Handler) -> None:
        if not together.acquire(blocking=False):
            crowded.set()
        linear(1.0)(handler)
        together.release()

    async with lane_to(slow(behave, 0.005)) as (lane, landing, _):
        for _ in range(10 * CALLS_MAX):
            lane.offer(job_of([1]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        await landing.of(10 * CALLS_MAX)
    assert not crowded.is_set()


async def test_rows_that_grew_too_old_in_the_queue_are_not_sent() -> None:
    async with lane_to(linear(1.0)) as (lane, landing, server):
        lane.offer(job_of([1, 1], age_s=61), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        (job,) = await landing.of(1)
        assert not server.calls
    assert set(job.reasons.values()) == {"expired"}


async def test_what_a_lane_cannot_hold_is_shed_at_once_and_never_waited_for() -> None:
    async with lane_to(hanging) as (lane, landing, _):
        for _ in range(20):
            lane.offer(job_of([1]), ANSWER, is_batched=True, waiting_bytes_max=1000)
        assert 0 < lane.waiting_bytes <= 1000
        assert landing.jobs
        assert {reason for job in landing.jobs for reason in job.reasons.values()} == {"governor"}


async def test_what_waits_for_a_removed_mirror_says_so() -> None:
    async with lane_to(linear(1.0)) as (lane, landing, server):
        lane.offer(job_of([1]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        lane.remove()
        (job,) = await landing.of(1)
        assert not server.calls
    assert job.reasons == {0: "mirror_removed"}


async def test_a_closed_lane_gives_no_outcome_to_what_was_under_way() -> None:
    async with lane_to(hanging) as (lane, landing, _):
        job = job_of([1])
        lane.offer(job, ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
    assert not landing.jobs
    assert not job.is_done


async def test_why_a_remote_does_not_answer_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    async with lane_to(failing(503), clock=lambda: now[0]) as (lane, landing, _):
        for count in (1, 2):
            lane.offer(job_of([1]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
            await landing.of(count)
        now[0] = 61.0
        lane.offer(job_of([1]), ANSWER, is_batched=True, waiting_bytes_max=1 << 24)
        await landing.of(3)
    told = [record.getMessage() for record in caplog.records if "mirror_fails" in record.getMessage()]
    assert len(told) == 2
    assert "status 503" in told[0]
