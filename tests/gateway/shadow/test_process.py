"""The whole process in the test's own loop: real routes, real models, real segments, real HTTP servers."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.processes.place import resident_bytes
from gateway.rest.app import build
from gateway.rpc.server import serve
from gateway.settings import Settings
from gateway.shadow.draw import column_of
from gateway.shadow.process import Shadow
from gateway.spool.reader import writers
from routing.records import MirrorBlock, ShadowBlock
from tests.kit.asgi_server import listening
from tests.kit.plane import Plane
from tests.kit.remote_server import failing, hanging, linear, saying, serving, slow
from tests.kit.shadowed import Shadowed, outcomes, pairs
from tests.kit.staged import stage_linear


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Shadowed]:
    world = Shadowed(tmp_path / "state")
    yield world
    world.close()


@asynccontextmanager
async def running(world: Shadowed, **fields: Any) -> AsyncIterator[Shadow]:
    shadow = world.shadow(**fields)
    turns = asyncio.create_task(shadow.run())
    try:
        yield shadow
    finally:
        shadow.drain()
        await turns
        await shadow.close()


async def until(met: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Lets the loop turn until `met`."""
    async with asyncio.timeout(timeout_s):
        while not met():  # noqa: ASYNC110  # what it looks at is on disk
            await asyncio.sleep(0.005)


async def all_written(world: Shadowed, timeout_s: float = 30.0) -> list[ShadowBlock]:
    """The shadow's blocks, once there are as many outcomes as were drawn."""
    blocks: list[ShadowBlock] = []

    def met() -> bool:
        blocks.extend(world.read())
        return sum(len(block.requests) for block in blocks) >= len(world.drawn)

    await until(met, timeout_s)
    return blocks


def answers(blocks: list[ShadowBlock]) -> dict[tuple[str, bytes], tuple[list[Any], list[Any], list[Any], list[Any]]]:
    """By mirror and prediction: labels, scores, live labels, live scores of its rows."""
    found = {}
    for block in blocks:
        at = 0
        for row in block.requests:
            part = slice(at, at + row.rows)
            found[block.mirror, row.prediction_id] = (
                block.labels[part],
                block.scores[part],
                block.live_labels[part],
                block.live_scores[part],
            )
            at += row.rows
    return found


async def test_eight_candidates_at_sample_one_answer_as_each_does_alone_and_the_sums_close(world: Shadowed) -> None:
    world.route(world.candidates(8))
    for turn in range(40):
        world.serve(5, rows=1 + turn % 3, worker=f"worker-{turn % 2}")

    async with running(world):
        blocks = await all_written(world)

    assert outcomes(blocks) == {(name, "recorded"): 200 for name in world.names}
    assert set(pairs(blocks).values()) == {1}
    assert pairs(blocks).keys() == world.drawn.keys()
    found = answers(blocks)
    champion = world.catalog.load(world.champion.digest)
    for (mirror, prediction), inputs in world.drawn.items():
        labels, scores, live_labels, live_scores = found[mirror, prediction]
        alone, live = world.offline(mirror, inputs), champion.run([inputs])
        assert labels == [str(value) for value in alone[0].tolist()]
        np.testing.assert_allclose(scores, alone[1][:, 1], rtol=1e-6)
        assert live_labels == [str(value) for value in live[0].tolist()]
        np.testing.assert_allclose(live_scores, live[1][:, 1], rtol=1e-6)
    for block in blocks:
        rows = sum(row.rows for row in block.requests)
        assert [(column.name, len(column.data or b"")) for column in block.outputs] == [
            ("label", 8 * rows),
            ("probabilities", 8 * rows),
        ]
        assert (block.model, block.live_model, block.revision) == ("candidate", "champion", world.revision)


async def test_the_counters_close_the_same_sum(world: Shadowed) -> None:
    world.route(world.candidates(2), candidate_1={"sample": 0.3})
    for _ in range(20):
        world.serve(10)

    async with running(world):
        await all_written(world)
        totals = world.totals()

    for name in world.names:
        drawn = sum(mirror == name for mirror, _ in world.drawn)
        assert totals.value("runoff_mirrored_total", endpoint="line", variant=name, outcome="recorded") == drawn
        assert 0 <= totals.value("runoff_mirror_agreement_ratio", endpoint="line", variant=name) <= 1
        assert totals.value("runoff_mirror_lag_seconds", endpoint="line", variant=name) < 60


async def test_production_answers_that_cannot_be_read_cost_their_own_labels_alone(
    world: Shadowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.route(world.candidates(1))
    append = world.append

    def spoiled(payload: bytes, worker: str) -> int:
        block = msgspec.msgpack.decode(payload, type=MirrorBlock)
        odd = [column_of("label", "INT64", np.zeros(2, "<i8")), column_of("probabilities", "FP32", np.zeros(5, "<f4"))]
        return append(msgspec.msgpack.encode(msgspec.structs.replace(block, live_outputs=odd)), worker)

    with monkeypatch.context() as spoiling:
        spoiling.setattr(world, "append", spoiled)
        world.serve(1)
    world.serve(1)

    async with running(world):
        blocks = await all_written(world)

    assert outcomes(blocks) == {("candidate-0", "recorded"): 2}
    labels = [label for block in blocks for label in block.live_labels]
    assert [label is None for label in labels] == [True, False]


async def test_rows_of_many_requests_share_a_run(world: Shadowed) -> None:
    world.route(world.candidates(1))
    for _ in range(50):
        world.serve(1)

    async with running(world):
        blocks = await all_written(world)

    assert max(row.batch_rows for block in blocks for row in block.requests) > 8


async def test_rows_older_than_a_minute_are_counted_as_expired_and_not_run(world: Shadowed) -> None:
    world.route(world.candidates(1))
    world.serve(3, age_s=61)
    world.serve(2)

    async with running(world):
        blocks = await all_written(world)

    assert outcomes(blocks) == {("candidate-0", "expired"): 3, ("candidate-0", "recorded"): 2}
    (expired,) = (block for block in blocks if block.requests[0].outcome == "expired")
    assert expired.outputs == []
    assert expired.labels == [None] * 3
    assert None not in expired.live_labels


async def test_a_poisoned_row_fails_alone(world: Shadowed) -> None:
    world.route({"candidate-0": stage_linear(world.artifacts, name="picky", check_row=True)})
    inputs = np.ones((9, 2), np.float32)
    inputs[4, 0] = 666
    ids = world.serve(9, inputs=inputs)

    async with running(world):
        blocks = await all_written(world)

    assert outcomes(blocks) == {("candidate-0", "recorded"): 8, ("candidate-0", "model_failed"): 1}
    assert [row.prediction_id for block in blocks for row in block.requests if row.outcome == "model_failed"] == [
        ids[4]
    ]


async def test_a_candidate_that_does_not_load_is_not_warm_and_the_others_go_on(world: Shadowed) -> None:
    broken = stage_linear(world.artifacts, name="broken", slope=7.0)
    (world.artifacts / broken.digest / "model.onnx").write_bytes(b"no model")
    world.route({"broken": broken} | world.candidates(1))
    world.serve(4)

    async with running(world):
        blocks = await all_written(world)

    assert outcomes(blocks) == {("broken", "not_warm"): 4, ("candidate-0", "recorded"): 4}


async def test_a_candidate_that_needs_more_than_the_endpoint_has_is_incompatible(world: Shadowed) -> None:
    world.route({"wide": stage_linear(world.artifacts, name="wide", columns=3)})
    world.serve(4)

    async with running(world):
        assert outcomes(await all_written(world)) == {("wide", "incompatible"): 4}


async def test_a_mirror_that_is_gone_or_past_its_end_or_too_small_for_the_row_says_so(world: Shadowed) -> None:
    world.route(world.candidates(3), candidate_1={"until": "2020-01-01T00:00:00Z"}, candidate_2={"body_bytes_max": 15})
    world.serve(2)
    world.serve(1, rows=2)
    names = world.names
    world.route(
        {name: staged for name, staged in world.mirrors.items() if name != "candidate-0"},
        candidate_1={"until": "2020-01-01T00:00:00Z"},
        candidate_2={"body_bytes_max": 15},
    )

    async with running(world):
        blocks = await all_written(world)

    assert outcomes(blocks) == {
        (names[0], "mirror_removed"): 3,
        (names[1], "until_passed"): 3,
        (names[2], "recorded"): 2,
        (names[2], "too_large"): 1,
    }


async def test_a_change_of_routes_is_followed_without_losing_a_row(world: Shadowed) -> None:
    world.route(world.candidates(1))
    async with running(world):
        world.serve(5)
        await until(lambda: bool(world.read()))
        world.route(world.candidates(3))
        world.serve(5)
        await until(lambda: sum(outcomes(world.read()).values()) >= 0 and not _left(world))

    totals = world.totals()
    assert totals.value("runoff_mirrored_total", endpoint="line", variant="candidate-0", outcome="recorded") == 10
    assert totals.value("runoff_mirrored_total", endpoint="line", variant="candidate-2", outcome="recorded") == 5


async def test_remotes_of_every_protocol_answer_as_the_same_model_does_here(world: Shadowed, tmp_path: Path) -> None:
    """Another gateway, reached over the doors that applications use."""
    there = Plane(tmp_path / "there")
    served = there.serve({"champion": stage_linear(there.artifacts, version="7", slope=-0.5)})
    settings = Settings(state_dir=str(tmp_path / "there"))
    rpc = await serve(there.corridor, "127.0.0.1:0", settings)
    try:
        async with listening(build(there.corridor, there.labels, settings)) as url:
            kinds = {"v2": url, "v2-grpc": f"http://127.0.0.1:{rpc.port}", "mlflow": f"{url}/endpoints/line"}
            remotes = {kind: {"url": at, "model": "line", "protocol": kind} for kind, at in kinds.items()}
            world.route(remotes)
            for turn in range(10):
                world.serve(4, rows=1 + turn % 3)
            async with running(world):
                blocks = await all_written(world)
    finally:
        await rpc.stop(0)
        there.close()

    assert outcomes(blocks) == {(kind, "recorded"): 40 for kind in kinds}
    assert set(pairs(blocks).values()) == {1}
    assert {block.version for block in blocks} == {"7"}
    found = answers(blocks)
    alone = there.catalog.load(served.champion.model.staged.digest)
    for (kind, prediction), inputs in world.drawn.items():
        labels, scores, live_labels, _ = found[kind, prediction]
        label, probabilities = alone.run([inputs])
        assert labels == [str(value) for value in label.tolist()]
        assert None not in live_labels
        if kind == "mlflow":  # `predict` of a classifier gives its labels alone
            assert scores == [None] * len(inputs)
        else:
            np.testing.assert_allclose(scores, probabilities[:, 1], rtol=1e-6)


async def test_every_remote_fault_has_its_reason_and_a_hanging_one_holds_up_nobody(world: Shadowed) -> None:
    with (
        serving(linear(2.0)) as good,
        serving(slow(linear(2.0), 0.02)) as late,
        serving(failing(500)) as failed,
        serving(hanging) as hung,
        serving(saying(b"garbage")) as garbled,
        serving(linear(2.0)) as small,
    ):
        remotes = {
            name: {"url": server.url, "model": "m"}
            for name, server in {
                "good": good,
                "late": late,
                "failed": failed,
                "hung": hung,
                "garbled": garbled,
                "small": small,
            }.items()
        }
        remotes["gone"] = {"url": "http://127.0.0.1:1", "model": "m"}
        remotes["keyless"] = {"url": good.url, "model": "m", "auth": "env:NOT_THERE"}
        world.route(world.candidates(2) | remotes, small={"body_bytes_max": 7})
        for _ in range(4):
            world.serve(3)

        async with running(world):
            early: list[ShadowBlock] = []

            def are_local_done() -> bool:
                early.extend(world.read())
                return sum(outcomes(early)[f"candidate-{n}", "recorded"] for n in range(2)) == 24

            await until(are_local_done, 4.0)  # below the remote time-out: nobody waited for the one that hangs
            blocks = early
            await until(lambda: blocks.extend(world.read()) or sum(outcomes(blocks).values()) == len(world.drawn))  # type: ignore[func-returns-value]

    assert outcomes(blocks) == {
        ("candidate-0", "recorded"): 12,
        ("candidate-1", "recorded"): 12,
        ("good", "recorded"): 12,
        ("late", "recorded"): 12,
        ("failed", "remote_error"): 12,
        ("hung", "remote_timeout"): 12,
        ("garbled", "remote_error"): 12,
        ("small", "too_large"): 12,
        ("gone", "remote_error"): 12,
        ("keyless", "remote_error"): 12,
    }
    assert set(pairs(blocks).values()) == {1}
    assert not small.calls
    found = answers(blocks)
    for (mirror, prediction), inputs in world.drawn.items():
        if mirror == "good":
            np.testing.assert_allclose(
                found[mirror, prediction][1], 1 / (1 + np.exp(-2 * inputs.sum(axis=1))), rtol=1e-5
            )
    versions = {block.version for block in blocks if block.mirror == "good"}
    assert versions == {"9"}


async def test_a_drain_ends_what_was_read_and_leaves_the_rest_for_the_next_process(world: Shadowed) -> None:
    world.route(world.candidates(1))
    world.serve(3)
    async with running(world):
        blocks = await all_written(world)
    world.serve(4)
    blocks += world.read()
    assert sum(outcomes(blocks).values()) == 3

    async with running(world):
        await until(lambda: blocks.extend(world.read()) or sum(outcomes(blocks).values()) >= 7)  # type: ignore[func-returns-value]

    assert set(pairs(blocks).values()) == {1}


async def test_what_was_answered_for_is_deleted_and_so_is_the_folder_of_a_dead_worker(world: Shadowed) -> None:
    world.route(world.candidates(1))
    world.serve(3, worker="worker-dead")
    world.serve(3, worker="worker-alive")
    world.die("worker-dead")

    async with running(world):
        await all_written(world)
        await until(lambda: writers(world.settings.state_path / "mirror") == ["worker-alive"])


async def test_a_process_above_its_memory_gives_up_the_least_important_candidates_first(world: Shadowed) -> None:
    world.route(
        world.candidates(3), candidate_0={"priority": 1}, candidate_1={"priority": 3}, candidate_2={"priority": 2}
    )
    async with running(world) as shadow:
        world.serve(2)
        blocks = await all_written(world)
        assert shadow._loader.shrink()
        world.serve(2)
        blocks += await _more(world, blocks)
        assert shadow._loader.shrink()
        world.serve(2)
        blocks += await _more(world, blocks)

    assert outcomes(blocks) == {
        ("candidate-0", "recorded"): 6,
        ("candidate-1", "recorded"): 2,
        ("candidate-1", "governor"): 4,
        ("candidate-2", "recorded"): 4,
        ("candidate-2", "governor"): 2,
    }


async def test_memory_stays_bounded_while_ten_times_its_window_passes_through(world: Shadowed) -> None:
    world.route(world.candidates(2))
    inputs = np.ones((20_000, 2), np.float32)
    async with running(world):
        world.serve(20, rows=1000, inputs=inputs)
        await all_written(world)
        before = resident_bytes(os.getpid())
        for _ in range(80):  # some 13 MB of frames
            world.serve(20, rows=1000, inputs=inputs)
            await asyncio.sleep(0)
        await until(lambda: not _left(world))

    assert resident_bytes(os.getpid()) - before < 100 << 20


async def test_frames_that_no_one_can_read_do_not_stop_the_rest(world: Shadowed) -> None:
    world.route(world.candidates(1))
    world.serve(1)
    world.append(b"nonsense")
    world.serve(1)

    async with running(world):
        blocks = await all_written(world)

    assert outcomes(blocks) == {("candidate-0", "recorded"): 2}


def _left(world: Shadowed) -> int:
    """Drawn requests that no counter shows yet."""
    written = sum(values[0] for (name, _), values in world.totals().series.items() if name == "runoff_mirrored_total")
    return len(world.drawn) - int(written)


async def _more(world: Shadowed, before: list[ShadowBlock]) -> list[ShadowBlock]:
    found: list[ShadowBlock] = []
    wanted = len(world.drawn) - sum(outcomes(before).values())
    await until(lambda: found.extend(world.read()) or sum(outcomes(found).values()) >= wanted)  # type: ignore[func-returns-value]
    return found
