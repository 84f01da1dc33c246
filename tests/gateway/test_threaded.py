"""Who does not stay until a run on a thread ends: late requests are answered at their deadline, gone callers recorded as gone."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import DeadlinePassed
from gateway.request import InferReply
from gateway.threaded import LOOK_S
from models.errors import InputInvalid
from models.staged import ModelKey
from routing.records import PredictionBlock, RequestRow
from tests.kit.held import hold, settled
from tests.kit.onnx_models import turning
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear, stage_made


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


def ask(plane: Plane, value: float, **fields: Any) -> "asyncio.Task[Any]":
    request = plane.request({"x": np.array([[value, 0]], np.float32)}, **fields)
    return asyncio.get_running_loop().create_task(plane.corridor.infer(request))


def recorded(plane: Plane) -> list[tuple[PredictionBlock, RequestRow]]:
    return [(b, r) for b in plane.blocks() if isinstance(b, PredictionBlock) for r in b.requests]


async def test_a_deadline_that_passes_while_the_model_runs_is_answered_then_and_its_neighbour_later(
    plane: Plane,
) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged}, limits={"timeout_s": 30})
    model, held = hold(plane, staged)
    first, late, last = ask(plane, 1.0), ask(plane, 2.0, timeout_s=0.5), ask(plane, 3.0)
    await held.begun()
    with pytest.raises(DeadlinePassed, match="while the model ran") as caught:
        await late
    assert not first.done()
    ((block, record),) = recorded(plane)
    assert record.prediction_id.hex() == caught.value.prediction_id.replace("-", "")  # type: ignore[attr-defined]
    assert (record.status, record.code, record.answered, len(block.outputs)) == (504, "deadline_passed", -1, 0)
    assert record.total_us >= 500_000
    assert 0 <= record.queue_us <= record.queue_us + record.compute_us <= record.total_us
    assert model.leases == 3, "the run still holds the model for it"
    held.let_go()
    answers = [float((await task).outputs[1][0, 1]) for task in (first, last)]
    assert answers == pytest.approx([1 / (1 + np.exp(-v)) for v in (1.0, 3.0)], abs=1e-6)
    assert sorted(r.status for _, r in recorded(plane)) == [200, 200, 504]
    assert (model.leases, plane.data.inflight) == (0, 0)
    assert plane.totals().value("runoff_records_total", outcome="recorded") == 3


async def test_a_deadline_that_passes_behind_a_run_is_answered_then(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged}, limits={"timeout_s": 30})
    model, held = hold(plane, staged)
    first = ask(plane, 1.0)
    await held.begun()
    waiting, late = ask(plane, 2.0), ask(plane, 3.0, timeout_s=0.05)
    with pytest.raises(DeadlinePassed, match="before the model ran"):
        await late
    ((_, record),) = recorded(plane)
    assert (record.status, record.compute_us) == (504, 0)
    assert 45_000 <= record.queue_us <= record.total_us + 1_000, "it never ran"
    held.let_go()
    await asyncio.gather(first, waiting)
    assert (model.leases, plane.data.inflight) == (0, 0)
    assert len(recorded(plane)) == 3


async def test_a_run_that_ends_in_time_is_an_answer_whatever_was_looked_at_meanwhile(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged}, limits={"timeout_s": 30})
    _, held = hold(plane, staged)
    asked = ask(plane, 1.0)
    await held.begun()
    await asyncio.sleep(LOOK_S * 5)
    held.let_go()
    assert (await asked).variant == "champion"
    ((_, record),) = recorded(plane)
    assert record.status == 200


async def test_a_caller_who_leaves_while_the_model_runs_is_recorded_as_gone(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged}, limits={"timeout_s": 30})
    model, held = hold(plane, staged)
    stays, leaves = ask(plane, 1.0), ask(plane, 2.0)
    await held.begun()
    leaves.cancel()
    await asyncio.wait([leaves])
    held.let_go()
    await stays
    await settled(plane, model)
    records = {r.status: (b, r) for b, r in recorded(plane)}
    assert sorted(records) == [200, 499]
    block, record = records[499]
    assert (record.code, record.answered, len(block.outputs)) == ("cancelled", -1, 0)
    assert np.frombuffer(block.inputs[0].data, np.float32).tolist() == [2, 0]  # type: ignore[arg-type]
    assert plane.totals().value("runoff_cancelled_total", endpoint="line") == 1


async def test_who_leaves_because_of_the_deadline_is_recorded_as_late(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged}, limits={"timeout_s": 30})
    model, held = hold(plane, staged)
    asked = ask(plane, 1.0, timeout_s=0.5)
    await held.begun()
    time.sleep(0.6)  # the loop is busy past the deadline, then the door gives up before anybody looked  # noqa: ASYNC251
    asked.cancel()
    await asyncio.wait([asked])
    await asyncio.sleep(LOOK_S * 5)
    ((_, record),) = recorded(plane)
    assert (record.status, record.code) == (504, "deadline_passed")
    held.let_go()
    await settled(plane, model)
    assert len(recorded(plane)) == 1


async def test_the_champion_answers_within_what_is_left_of_the_deadline(plane: Plane) -> None:
    good, broken = stage_linear(plane.artifacts), stage_linear(plane.artifacts, version="2")
    variants = [
        {"name": "champion", "model": good.uri, "weight": 0},
        {"name": "challenger", "model": broken.uri, "weight": 1, "fallback": True},
    ]
    plane.serve({"champion": good, "challenger": broken}, variants=variants, limits={"timeout_s": 30})
    model, held = hold(plane, broken, is_broken=True)
    in_time, late = ask(plane, 1.0), ask(plane, 2.0, timeout_s=0.05)
    await held.begun()
    with pytest.raises(DeadlinePassed):
        await late
    held.let_go()
    reply = await in_time
    assert (reply.variant, reply.assigned) == ("champion", "challenger")
    await settled(plane, model)
    assert sorted(r.status for _, r in recorded(plane)) == [200, 504]
    assert plane.totals().value("runoff_fallbacks_total", endpoint="line", variant="challenger") == 1


async def test_a_poisoned_batch_is_halved_without_those_who_left_it(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts, check_row=True)
    plane.serve({"champion": staged}, limits={"timeout_s": 30})
    model, held = hold(plane, staged)
    tasks = [ask(plane, v) for v in (1.0, 666.0, 3.0)]
    late = ask(plane, 4.0, timeout_s=0.05)
    await held.begun()
    with pytest.raises(DeadlinePassed):
        await late
    tasks[2].cancel()
    await asyncio.wait([tasks[2]])
    held.let_go()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [InferReply, InputInvalid, asyncio.CancelledError]
    await settled(plane, model)
    assert sorted(r.status for _, r in recorded(plane)) == [200, 400, 499, 504]
    assert plane.totals().value("runoff_records_total", outcome="assigned") == 4


async def test_nobody_is_looked_at_when_nothing_runs(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged}, limits={"timeout_s": 30})
    _, held = hold(plane, staged)
    held.let_go()
    await ask(plane, 1.0)
    for _ in range(200):
        if not plane.data._threads._is_looking:
            break
        await asyncio.sleep(LOOK_S)
    assert not plane.data._threads._is_looking
    assert not plane.data._threads.running


@pytest.mark.parametrize("is_late", [True, False], ids=["late", "gone"])
async def test_a_run_that_nobody_waits_for_is_stopped_and_frees_its_thread(plane: Plane, *, is_late: bool) -> None:
    staged = stage_made(plane.artifacts, turning(), ModelKey("turning", "1"))
    plane.serve({"champion": staged}, endpoint="turning")
    model = plane.catalog.get(staged.digest)
    assert model is not None
    model._curve = [0.5] * len(model._curve)  # on a thread, of which there is one

    def turn(*turns: int, **fields: Any) -> "asyncio.Task[Any]":
        request = plane.request({"x": np.array(turns, np.int64)[:, None]}, endpoint="turning", **fields)
        return asyncio.get_running_loop().create_task(plane.corridor.infer(request))

    endless = [turn(1 << 60, 1, timeout_s=0.2 if is_late else 30.0) for _ in range(2)]
    while not plane.data._threads.running:  # noqa: ASYNC110 - turns are what is waited for
        await asyncio.sleep(0)
    if not is_late:
        for task in endless:
            task.cancel()
    ended = await asyncio.gather(*endless, return_exceptions=True)
    assert [type(one) for one in ended] == [DeadlinePassed if is_late else asyncio.CancelledError] * 2
    reply = await turn(5)
    assert reply.outputs[0].tolist() == [[6]]
    await settled(plane, model)
    assert sorted(r.status for _, r in recorded(plane)) == [200, *([504] * 2 if is_late else [499] * 2)]
