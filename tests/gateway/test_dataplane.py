"""The corridor's promises: one record for each answer, batch mates do not disturb each other, a late or gone caller costs nothing."""

import asyncio
import errno
import gc
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gateway.admission import Admission
from gateway.errors import DeadlinePassed, NotReady, Overloaded, SpoolClosed, VersionUnknown
from gateway.replies import LATE_BYTES, LATE_S
from gateway.request import InferReply
from gateway.spool.files import Files
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.retained import fold_dead
from gateway.ticket import Batch, Ticket
from models.catalog import LoadedModel
from models.errors import InputInvalid
from models.staged import ModelKey
from routing.errors import PinRefused
from routing.records import MirrorBlock, PredictionBlock, RequestRow
from tests.kit.held import hold, settled
from tests.kit.onnx_models import echo, whole
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear, stage_made


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


def row(*values: float) -> dict[str, np.ndarray]:  # type: ignore[type-arg]  # any shape
    return {"x": np.array([values], np.float32)}


def recorded(plane: Plane, folder: str = "spool/worker-1") -> list[tuple[PredictionBlock, RequestRow]]:
    return [(b, r) for b in plane.blocks(folder) if isinstance(b, PredictionBlock) for r in b.requests]


async def test_requests_of_one_turn_share_a_run_and_each_gets_its_own_answer(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    values = [-3.0, -1.0, 0.5, 2.0]
    replies = await asyncio.gather(*(plane.corridor.infer(plane.request(row(v, 0.0))) for v in values))
    wanted = [1 / (1 + np.exp(-v)) for v in values]
    assert [float(reply.outputs[1][0, 1]) for reply in replies] == pytest.approx(wanted, abs=1e-6)
    records = recorded(plane)
    assert [r.batch_rows for _, r in records] == [4, 4, 4, 4]
    assert {r.prediction_id.hex() for _, r in records} == {reply.prediction_id.replace("-", "") for reply in replies}


async def test_every_answer_has_exactly_one_record_with_its_rows(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    reply = await plane.corridor.infer(plane.request({"x": np.array([[1, 2], [3, 4], [5, 6]], np.float32)}))
    ((block, record),) = recorded(plane)
    assert (block.endpoint, block.revision, block.model, block.version) == ("line", 1, "line", "1")
    assert (record.rows, record.status, record.propensity) == (3, 200, 1.0)
    x = np.frombuffer(block.inputs[0].data, np.float32).reshape(3, *block.inputs[0].tail)  # type: ignore[arg-type]
    assert x.tolist() == [[1, 2], [3, 4], [5, 6]]
    probabilities = np.frombuffer(block.outputs[1].data, np.float32).reshape(3, 2)  # type: ignore[arg-type]
    assert probabilities.tolist() == reply.outputs[1].tolist()


async def test_a_poisoned_request_fails_alone(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts, check_row=True)})
    requests = [plane.request(row(v, 1.0)) for v in (1.0, 2.0, 666.0, 3.0, 4.0)]
    results = await asyncio.gather(*map(plane.corridor.infer, requests), return_exceptions=True)
    assert [isinstance(result, InputInvalid) for result in results] == [False, False, True, False, False]
    assert sorted(r.status for _, r in recorded(plane)) == [200, 200, 200, 200, 400]


async def test_a_cancelled_caller_does_not_disturb_its_batch_mates(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    tasks = [asyncio.create_task(plane.corridor.infer(plane.request(row(v, 0.0)))) for v in (1.0, 2.0, 3.0)]

    def leave() -> None:
        tasks[1].cancel()

    asyncio.get_running_loop().call_soon(leave)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert all(not isinstance(results[i], BaseException) for i in (0, 2))
    assert len(recorded(plane)) == 3


async def test_an_expired_request_is_dropped_before_the_run_and_recorded(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    with pytest.raises(DeadlinePassed):
        await plane.corridor.infer(plane.request(row(1, 2), timeout_s=0.0))
    ((_, record),) = recorded(plane)
    assert (record.status, record.code, record.answered) == (504, "deadline_passed", -1)


async def test_the_champion_answers_for_a_failed_challenger_and_the_record_says_so(plane: Plane) -> None:
    good, broken = stage_linear(plane.artifacts), stage_linear(plane.artifacts, version="2")
    plane.serve(
        {"champion": good, "challenger": broken},
        variants=[
            {"name": "champion", "model": good.uri, "weight": 0},
            {"name": "challenger", "model": broken.uri, "weight": 1, "fallback": True},
        ],
    )
    model = plane.catalog.get(broken.digest)
    assert model is not None
    model.output_names = ["gone"]  # the session now refuses every run
    reply = await plane.corridor.infer(plane.request(row(1, 2)))
    assert (reply.variant, reply.assigned) == ("champion", "challenger")
    ((block, record),) = recorded(plane)
    assert (block.variants[record.assigned], block.variants[record.answered]) == ("challenger", "champion")
    assert (record.status, record.code) == (200, "input_invalid")
    assert plane.totals().value("runoff_fallbacks_total", endpoint="line", variant="challenger") == 1


async def test_a_version_in_the_path_is_a_pin_outside_experiments(plane: Plane) -> None:
    first, second = stage_linear(plane.artifacts), stage_linear(plane.artifacts, version="2")
    plane.serve({"champion": first, "challenger": second}, allow_pin=True)
    reply = await plane.corridor.infer(plane.request(row(1, 2), version="2"))
    assert (reply.variant, reply.model.key.version) == ("challenger", "2")
    ((_, record),) = recorded(plane)
    assert (record.assigned_by, record.propensity, record.experiment) == (2, None, False)
    with pytest.raises(VersionUnknown, match="warm versions are 1, 2"):
        await plane.corridor.infer(plane.request(row(1, 2), version="9"))
    plane.serve({"champion": first, "challenger": second})
    for version in ("1", "2", "9"):  # the champion's own as well
        with pytest.raises(PinRefused, match="set `allow_pin: true` in the route"):
            await plane.corridor.infer(plane.request(row(1, 2), version=version))


async def test_more_than_the_endpoints_bound_is_refused_and_counted(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, limits={"concurrency_max": 2})
    results = await asyncio.gather(
        *(plane.corridor.infer(plane.request(row(1, 2))) for _ in range(5)), return_exceptions=True
    )
    assert [type(result) for result in results].count(Overloaded) == 3
    assert plane.totals().value("runoff_refused_total", endpoint="line", reason="overloaded") == 3
    assert len(recorded(plane)) == 2


async def test_a_draining_worker_takes_nothing_new(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    plane.data.is_draining = True
    with pytest.raises(NotReady):
        await plane.corridor.infer(plane.request(row(1, 2)))


async def test_a_slow_model_runs_on_a_thread_and_a_fast_one_goes_on_meanwhile(plane: Plane) -> None:
    slow, fast = stage_linear(plane.artifacts, name="slow"), stage_linear(plane.artifacts, name="fast")
    plane.serve({"champion": slow}, endpoint="slow")
    plane.serve({"champion": fast}, endpoint="fast")
    model = plane.catalog.get(slow.digest)
    assert model is not None
    model._curve = [0.5] * len(model._curve)
    first = asyncio.create_task(plane.corridor.infer(plane.request(row(1, 2), endpoint="slow")))
    answered = await plane.corridor.infer(plane.request(row(1, 2), endpoint="fast"))
    assert answered.endpoint == "fast"
    assert (await first).endpoint == "slow"


async def test_disk_durability_replies_after_the_sync_of_its_own_segment(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"durability": "disk"})
    replies = await asyncio.gather(*(plane.corridor.infer(plane.request(row(v, 0))) for v in range(5)))
    assert len(replies) == 5
    assert recorded(plane) == []
    assert len(recorded(plane, "spool/worker-1-disk")) == 5


class BadDisk(Files):
    """Cannot be synced while `is_bad`, and writes nothing while `is_full`."""

    is_bad = is_full = False

    def datasync(self, file: int) -> None:
        if self.is_bad:
            raise OSError(errno.EIO, "lost")

    def writev(self, file: int, parts: list[bytes]) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "full")
        return os.writev(file, parts)


def records(plane: Plane, outcome: str) -> float:
    return plane.totals().value("runoff_records_total", outcome=outcome)


@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_sync_that_fails_follows_on_failure_and_is_counted(tmp_path: Path, on_failure: str) -> None:
    disk = BadDisk()
    plane = Plane(tmp_path, files=disk)
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged}, record={"durability": "disk", "on_failure": on_failure})
    disk.is_bad = True
    asked = [plane.corridor.infer(plane.request(row(v, 0))) for v in range(3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, SpoolClosed) for answer in answers] == [on_failure == "closed"] * 3
    assert (records(plane, "failed"), records(plane, "recorded")) == (3, 0)
    assert plane.data.inflight == 0
    disk.is_bad = False
    answered = 0
    for _ in range(3):  # the segment is left; frames in it are told of once more, then all is well
        with suppress(SpoolClosed):
            await plane.corridor.infer(plane.request(row(1, 2)))
            answered += 1
    assert answered >= 1
    assert records(plane, "recorded") >= 1
    plane.close()


async def test_replies_that_wait_for_the_disk_are_in_flight_and_so_bounded(tmp_path: Path) -> None:
    loop, asked, synced = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    class Slow(Files):
        def datasync(self, file: int) -> None:
            loop.call_soon_threadsafe(asked.set)
            synced.wait(30)

    plane = Plane(tmp_path, files=Slow())
    limits = {"concurrency_max": 2, "timeout_s": 30}
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"durability": "disk"}, limits=limits)
    waiting = [asyncio.create_task(plane.corridor.infer(plane.request(row(v, 0)))) for v in range(2)]
    await asked.wait()
    with pytest.raises(Overloaded):
        await plane.corridor.infer(plane.request(row(1, 2)))
    synced.set()
    assert len(await asyncio.gather(*waiting)) == 2
    assert plane.data.inflight == 0
    plane.close()


async def test_async_durability_replies_before_the_write_which_follows_by_itself(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"durability": "async"})
    reply = await plane.corridor.infer(plane.request(row(1, 2)))
    assert recorded(plane) == []
    assert records(plane, "recorded") == 0
    for _ in range(100):
        await asyncio.sleep(LATE_S / 4)
        if recorded(plane):
            break
    ((_, record),) = recorded(plane)
    assert record.prediction_id.hex() == reply.prediction_id.replace("-", "")
    assert records(plane, "recorded") == 1


async def test_what_a_kill_can_lose_at_async_is_bounded_in_bytes(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"durability": "async"})
    wide = {"x": np.zeros((2000, 2), np.float32)}
    for _ in range(30):
        await plane.corridor.infer(plane.request(wide))
        assert plane.recorder.late_bytes < LATE_BYTES
    assert recorded(plane)


async def test_what_a_kill_loses_at_async_is_counted_as_lost(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"durability": "async"})
    for _ in range(3):
        await plane.corridor.infer(plane.request(row(1, 2)))
    plane.page.close()  # as the kernel does for the dead
    assert fold_dead(plane.folder / "run") == {"worker-1": 3}
    assert recorded(plane) == []
    plane.data._replies._late.cancel()  # type: ignore[union-attr]  # the dead write nothing
    plane.page = CounterPage(plane.folder / "run", "worker-2")


async def test_a_late_write_that_fails_is_counted_and_closes_a_closed_route_until_one_succeeds(tmp_path: Path) -> None:
    disk = BadDisk()
    plane = Plane(tmp_path, files=disk)
    record = {"durability": "async", "on_failure": "closed"}
    plane.serve({"champion": stage_linear(plane.artifacts)}, record=record)
    disk.is_full = True
    await plane.corridor.infer(plane.request(row(1, 2)))
    plane.data.write_late()
    assert records(plane, "failed") == 1
    with pytest.raises(SpoolClosed):
        await plane.corridor.infer(plane.request(row(1, 2)))
    disk.is_full = False
    plane.data.write_late()
    await plane.corridor.infer(plane.request(row(1, 2)))
    plane.data.write_late()
    assert (records(plane, "failed"), records(plane, "recorded")) == (1, 2)
    plane.close()


async def test_a_full_spool_follows_on_failure(tmp_path: Path) -> None:
    plane = Plane(tmp_path, spool_bytes_max=2_000)
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged})
    wide = {"x": np.zeros((200, 2), np.float32)}
    for _ in range(3):
        await plane.corridor.infer(plane.request(wide))  # open: served, counted
    totals = plane.totals()
    failed = totals.value("runoff_records_total", outcome="failed")
    assert failed >= 1
    assert failed + totals.value("runoff_records_total", outcome="recorded") == 3
    plane.serve({"champion": staged}, record={"on_failure": "closed"})
    with pytest.raises(SpoolClosed):
        await plane.corridor.infer(plane.request(wide))
    plane.close()


async def test_rows_drawn_for_a_mirror_are_written_whole_whatever_the_record_keeps(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve(
        {"champion": staged},
        mirrors=[{"name": "candidate", "model": "models:/line/7"}],
        record={"inputs": "none"},
    )
    await plane.corridor.infer(plane.request(row(1, 2)))
    (mirrored,) = (block for block in plane.blocks("mirror/worker-1") if isinstance(block, MirrorBlock))
    assert mirrored.mirror_names == ("candidate",)
    assert mirrored.requests[0].mirrors == 1
    assert np.frombuffer(mirrored.inputs[0].data, np.float32).tolist() == [1, 2]  # type: ignore[arg-type]
    ((block, _),) = recorded(plane)
    assert block.inputs[0].data is None


async def test_urgent_requests_run_before_those_that_did_not_ask(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged})
    model = plane.catalog.get(staged.digest)
    assert model is not None
    model.rows_max = 1
    priorities = [0, 2, 1]
    await asyncio.gather(*(plane.corridor.infer(plane.request(row(p, 0), priority=p)) for p in priorities))
    order = [np.frombuffer(block.inputs[0].data, np.float32)[0] for block, _ in recorded(plane)]  # type: ignore[arg-type]
    assert order == [1, 2, 0]


async def test_an_answered_request_leaves_no_cycle_for_the_collector(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    await plane.corridor.infer(plane.request(row(1, 2)))
    gc.collect()
    gc.disable()
    try:
        await asyncio.gather(*(plane.corridor.infer(plane.request(row(v, 2))) for v in range(5)))
        await asyncio.sleep(0)
        assert sum(type(kept) in (Ticket, Batch) for kept in gc.get_objects()) == 0
    finally:
        gc.enable()


async def test_large_requests_are_bounded_by_their_bytes_and_let_go_of_them(plane: Plane) -> None:
    wide = stage_linear(plane.artifacts, columns=20_000)
    plane.serve({"champion": wide})
    plane.data.admission = plane.data._replies._admission = Admission(100, 200_000)
    requests = [plane.corridor.infer(plane.request({"x": np.ones((1, 20_000), np.float32)})) for _ in range(4)]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert [type(one) for one in answers].count(NotReady) == 2
    assert plane.data.admission._heavy_bytes == 0
    alone = await plane.corridor.infer(plane.request({"x": np.ones((9, 20_000), np.float32)}))
    assert len(alone.outputs[0]) == 9
    assert len(recorded(plane)) == 3
    assert plane.totals().value("runoff_refused_total", endpoint="line", reason="not_ready") == 2


class Door:
    """A door that remembers what it was given, and may be broken."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.completed: list[Ticket] = []
        self.flushes = 0
        self._is_broken = is_broken

    def complete(self, ticket: Ticket) -> None:
        self.completed.append(ticket)
        if self._is_broken:
            raise KeyError("a mistake of ours")

    def flush(self) -> None:
        self.flushes += 1
        if self._is_broken:
            raise KeyError("a mistake of ours")


async def asked_together(plane: Plane, *doors: Door) -> None:
    """One request from each door, in one turn."""
    endpoint = plane.data.table.endpoint("line")
    for door in doors:
        plane.data.submit(Ticket(door, endpoint, [[1.0, 2.0]], 1, 0, plane.data._clock_ns(), is_flat=True))
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_broken_door_costs_no_other_its_reply(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    doors = [Door(), Door(is_broken=True), Door()]
    await asked_together(plane, *doors)
    assert [(len(door.completed), door.flushes) for door in doors] == [(1, 1)] * 3
    assert len(recorded(plane)) == 3


@pytest.mark.parametrize(("on_failure", "is_answered"), [("open", True), ("closed", False)])
async def test_records_that_cannot_be_made_are_counted_and_follow_on_failure(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, on_failure: str, is_answered: bool
) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"on_failure": on_failure})
    monkeypatch.setattr(plane.recorder, "add", lambda *_: 1 / 0)
    doors = [Door(), Door()]
    await asked_together(plane, *doors)
    assert [door.completed[0].error is None for door in doors] == [is_answered] * 2
    assert plane.totals().value("runoff_records_total", outcome="failed") == 2


async def test_a_request_that_nobody_expected_costs_no_other_its_answer(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    doors, seen = [Door(), Door(), Door()], iter((False, True, False))
    monkeypatch.setattr(plane.data.admission, "enter", lambda *_: 1 / 0 if next(seen) else None)
    await asked_together(plane, *doors)
    assert [type(door.completed[0].error) for door in doors] == [type(None), ZeroDivisionError, type(None)]


async def test_a_deadline_beyond_any_number_is_the_routes_and_costs_no_other_its_answer(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    asked = [plane.request(row(1, 2), timeout_s=timeout_s) for timeout_s in (None, 1e305, None)]
    async with asyncio.timeout(30):
        replies = await asyncio.gather(*map(plane.corridor.infer, asked))
    assert [reply.variant for reply in replies] == ["champion"] * 3


async def test_a_request_that_breaks_after_its_draw_leaves_nothing_held(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = plane.serve({"champion": stage_linear(plane.artifacts, columns=20_000)})
    endpoint.mirror_names = ("one",)
    monkeypatch.setattr(type(endpoint), "mirrors_drawn", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await plane.corridor.infer(plane.request({"x": np.ones((1, 20_000), np.float32)}))
    assert (plane.data.inflight, plane.data.admission._heavy_bytes) == (0, 0)


async def test_requests_are_bounded_over_all_endpoints_also_those_that_run(plane: Plane) -> None:
    staged = {name: stage_linear(plane.artifacts, name=name) for name in ("slow", "fast")}
    for name, one in staged.items():
        plane.serve({"champion": one}, endpoint=name)
    plane.data.admission = plane.data._replies._admission = Admission(3)
    model, held = hold(plane, staged["slow"])
    running = [asyncio.create_task(plane.corridor.infer(plane.request(row(1, 2), endpoint="slow"))) for _ in range(3)]
    await held.begun()
    with pytest.raises(NotReady, match="as many requests as it may"):
        await plane.corridor.infer(plane.request(row(1, 2), endpoint="fast"))
    held.let_go()
    await asyncio.gather(*running)
    await settled(plane, model)
    await plane.corridor.infer(plane.request(row(1, 2), endpoint="fast"))
    assert plane.data.inflight == 0


async def test_requests_whose_outputs_have_no_rows_run_alone_whatever_their_door_says(plane: Plane) -> None:
    plane.serve({"champion": stage_made(plane.artifacts, whole(), ModelKey("whole", "1"))})
    doors = [Door(), Door()]
    await asked_together(plane, *doors)
    answers = [[output.tolist() for output in door.completed[0].outputs()] for door in doors]
    assert answers == [[3.0, [3.0] * 4]] * 2


async def test_a_model_whose_queue_never_empties_takes_no_others_turn(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModel, "observe", lambda *_: None)
    for name in ("busy", "rare"):
        plane.serve({"champion": stage_linear(plane.artifacts, name=name)}, endpoint=name)
        model = plane.data.table.endpoints[name].champion.model
        model.rows_max, model._curve_rows, model._curve = 4, [4], [0.6e-3]  # more than half of a turn
    is_over = False

    async def ask_on() -> int:
        answered = 0
        while not is_over:
            await plane.corridor.infer(plane.request(row(1, 2), endpoint="busy"))
            answered += 1
        return answered

    asking = [asyncio.create_task(ask_on()) for _ in range(32)]
    await asyncio.sleep(0.01)
    for _ in range(3):
        await plane.corridor.infer(plane.request(row(1, 2), endpoint="rare", timeout_s=5.0))
    is_over = True
    assert sum(await asyncio.gather(*asking)) > 32


async def test_what_waits_is_counted_in_rows_until_it_runs_is_dropped_or_falls_back(plane: Plane) -> None:
    broken, sound = (stage_linear(plane.artifacts, version=version) for version in ("1", "2"))
    variants = [
        {"name": "sound", "model": sound.uri, "weight": 0.0},
        {"name": "broken", "model": broken.uri, "weight": 1.0, "fallback": True},
    ]
    plane.serve(
        {"sound": sound, "broken": broken}, variants=variants, limits={"timeout_s": 30, "queue_wait_max_s": 2.0}
    )
    model, held = hold(plane, broken, is_broken=True)
    model.rows_max = 4

    def ask(rows: int, **fields: float) -> "asyncio.Task[InferReply]":
        return asyncio.create_task(plane.corridor.infer(plane.request({"x": np.ones((rows, 2), np.float32)}, **fields)))

    asked = [ask(4)]
    await held.begun()
    asked += [ask(2), ask(3, timeout_s=0.05), ask(4)]
    with pytest.raises(DeadlinePassed):
        await asked[2]
    queue = plane.data._queues[model]
    assert (len(queue), queue.rows) == (2, 6)
    with pytest.raises(Overloaded, match=r"the wait would be"):
        await asyncio.gather(*(ask(4) for _ in range(4)))
    held.let_go()
    answers = await asyncio.gather(asked[0], asked[1], asked[3])
    assert [reply.variant for reply in answers] == ["sound"] * 3
    await settled(plane, model)
    assert queue.rows == 0


async def test_callers_of_several_sizes_share_runs_each_with_his_own_and_in_order(plane: Plane) -> None:
    plane.serve({"champion": stage_made(plane.artifacts, echo("FP32"), ModelKey("echo", "1"))})
    widths = [3, 4, 3, 5, 4, 3, 4, 5]
    asked = [plane.request({"x": np.full((1, width), place, np.float32)}) for place, width in enumerate(widths)]
    replies = await asyncio.gather(*map(plane.corridor.infer, asked))
    answers = [reply.outputs[0].tolist() for reply in replies]
    assert answers == [[[float(place)] * width] for place, width in enumerate(widths)]
    sizes = [(block.inputs[0].tail, r.batch_rows) for block, r in recorded(plane)]
    assert sizes == [((3,), 3)] * 3 + [((4,), 3)] * 3 + [((5,), 2)] * 2


async def test_only_so_many_are_passed_over_and_none_of_them_is_lost(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.dataplane._OTHERS_MAX", 2)
    plane.serve({"champion": stage_made(plane.artifacts, echo("FP32"), ModelKey("echo", "1"))})
    asked = [plane.request({"x": np.full((1, width), width, np.float32)}) for width in (3, 4, 5, 3, 4, 5)]
    replies = await asyncio.gather(*map(plane.corridor.infer, asked))
    assert [reply.outputs[0].shape[1] for reply in replies] == [3, 4, 5, 3, 4, 5]
    assert sorted(r.batch_rows for _, r in recorded(plane)) == [1] * 6
