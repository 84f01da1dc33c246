"""The whole way of mirrored rows, with nothing in between made up: data plane, mirror segment, shadow, spool, lake."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from gateway.streams.tail import LakeStream
from routing.records import PredictionBlock
from tests.kit.plane import Plane
from tests.kit.shadowed import Shadowed
from tests.kit.staged import stage_linear


async def test_what_a_worker_drew_and_what_the_lake_holds_is_the_same_for_each_mirror(tmp_path: Path) -> None:
    state = tmp_path / "state"
    world, plane = Shadowed(state), Plane(state)
    broken = stage_linear(world.artifacts, name="picky", check_row=True)
    mirrors = world.candidates(2) | {"picky": broken}
    samples = {"candidate-0": 1.0, "candidate-1": 0.4, "picky": 1.0}
    world.route(mirrors, candidate_1={"sample": 0.4})
    plane.serve(
        {"champion": world.champion},
        mirrors=[{"name": name, "model": staged.uri, "sample": samples[name]} for name, staged in mirrors.items()],
    )
    shadow = world.shadow()
    turns = asyncio.create_task(shadow.run())

    rng = np.random.default_rng(0)
    for _ in range(20):
        inputs = rng.normal(size=(10, 2)).astype(np.float32)
        inputs[0, 0] = 666.0
        await asyncio.gather(*(plane.corridor.infer(plane.request({"x": row[np.newaxis]})) for row in inputs))
    drawn: Counter[str] = Counter()
    for block in plane.blocks():
        if isinstance(block, PredictionBlock):
            for request in block.requests:
                drawn.update(name for bit, name in enumerate(mirrors) if request.mirrors & 1 << bit)

    deadline = time.monotonic() + 10
    while sum(_counted(world).values()) < sum(drawn.values()) and time.monotonic() < deadline:  # noqa: ASYNC110  # on disk
        await asyncio.sleep(0.01)
    shadow.drain()
    await turns
    await shadow.close()
    plane.close()
    uri = str(tmp_path / "lake")
    stream = LakeStream(
        uri,
        state / "spool",
        answers=lambda _: world.champion.answer,
        letters=tmp_path / "letters",
        forgets=tmp_path / "forgets.json",
    )
    await stream.step(flush=True)
    await stream.close()

    rows = DeltaTable(f"{uri}/shadows").to_pyarrow_table().to_pylist()
    assert Counter((row["mirror"], row["outcome"]) for row in rows) == {
        ("candidate-0", "recorded"): 200,
        ("candidate-1", "recorded"): drawn["candidate-1"],
        ("picky", "recorded"): 180,
        ("picky", "model_failed"): 20,
    }
    assert drawn["candidate-0"] == drawn["picky"] == 200
    assert len({(row["mirror"], row["prediction_id"]) for row in rows}) == len(rows)
    assert stream.figures.dead_letters == 0
    assert _counted(world) == Counter((row["mirror"], row["outcome"]) for row in rows)
    for row in rows:
        assert (row["answer_label"] is None) == (row["outcome"] != "recorded")
        assert row["live_label"] in {"0", "1"}
    world.close()


def _counted(world: Shadowed) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for (name, labels), values in world.totals().series.items():
        if name == "runoff_mirrored_total":
            pairs = dict(labels)
            counted[pairs["variant"], pairs["outcome"]] += int(values[0])
    return counted
