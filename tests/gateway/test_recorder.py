"""Records hold what the route allows, decode to the agreed types, and cost the live path nothing it does not owe."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.tensors import Array
from routing.records import MirrorBlock, PredictionBlock, RequestRow
from tests.kit.plane import UNIT_KEY, Plane
from tests.kit.staged import stage_linear


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


def rows(*values: tuple[float, float]) -> dict[str, Array]:
    return {"x": np.array(values, np.float32)}


def block_of(plane: Plane) -> PredictionBlock:
    (block,) = plane.blocks()
    assert isinstance(block, PredictionBlock)
    return block


async def test_a_row_is_written_as_the_type_that_readers_decode(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, unit="header")
    await plane.corridor.infer(
        plane.request(rows((1, 2)), request_id="r-1", headers={"x-runoff-unit": "alice"}, protocol=2)
    )
    (row,) = block_of(plane).requests
    # The recorder writes tuples, field by field: a Struct made of the same values must encode to the same bytes.
    encoded = msgspec.msgpack.encode(row)
    assert msgspec.msgpack.decode(encoded, type=RequestRow) == row
    assert (row.request_id, row.protocol, row.assigned_by, row.rule, row.code) == ("r-1", 2, 0, None, None)
    assert row.unit == hmac.digest(UNIT_KEY, b"alice", "sha256")[:16].hex()
    assert row.experiment
    assert 0 <= row.queue_us <= row.total_us
    assert 0 <= row.compute_us <= row.total_us


async def test_the_unit_is_kept_as_text_only_where_the_route_says_so(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, unit="header", record={"unit": "raw"})
    await plane.corridor.infer(plane.request(rows((1, 2)), headers={"x-runoff-unit": "alice"}))
    assert block_of(plane).requests[0].unit == "alice"


async def test_a_missing_unit_is_recorded_as_missing_and_outside_experiments(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, unit="header")
    await plane.corridor.infer(plane.request(rows((1, 2))))
    (row,) = block_of(plane).requests
    assert (row.unit, row.unit_missing, row.experiment) == (None, True, False)


@pytest.mark.parametrize("record", [{"inputs": "hash"}, {"inputs_bytes_max": 4}])
async def test_inputs_that_are_not_kept_leave_a_digest_of_their_values(plane: Plane, record: dict[str, object]) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record=record)
    for value in (1, 1, 2):
        await plane.corridor.infer(plane.request(rows((value, 2))))
    blocks = [block for block in plane.blocks() if isinstance(block, PredictionBlock)]
    assert all(block.inputs[0].data is None for block in blocks)
    same, again, other = [block.inputs_digest[0] for block in blocks if block.inputs_digest]
    assert same == again != other


async def test_masked_inputs_never_reach_the_spool_in_clear(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"mask": {"x": "hmac"}})
    await plane.corridor.infer(plane.request(rows((123.25, 2))))
    (column,) = block_of(plane).inputs
    assert column.datatype == "BYTES"
    assert column.data is not None
    assert column.data[0] == hmac.digest(UNIT_KEY, b"123.25", "sha256")[:16].hex()
    assert np.float32(123.25).tobytes() not in b"".join(path.read_bytes() for path in plane.folder.rglob("*.seg"))


async def test_a_sample_below_one_records_its_share_and_answers_everyone(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, record={"sample": 0.3})
    for _ in range(300):
        await plane.corridor.infer(plane.request(rows((1, 2))))
    kept = sum(len(block.requests) for block in plane.blocks() if isinstance(block, PredictionBlock))
    assert 50 < kept < 130  # 0.3 of 300; seven standard deviations wide
    totals = plane.totals()
    assert totals.value("runoff_records_total", outcome="assigned") == 300
    assert totals.value("runoff_records_total", outcome="recorded") == kept
    assert totals.value("runoff_records_total", outcome="sampled_out") == 300 - kept


async def test_mirrored_rows_keep_the_gateways_that_they_came_through_and_callers_own_have_none(plane: Plane) -> None:
    mirrors = [{"name": "far", "remote": {"url": "http://127.0.0.1:9", "model": "m"}}]
    plane.serve({"champion": stage_linear(plane.artifacts)}, mirrors=mirrors)
    requests = [plane.request(rows((1, 2))), plane.request(rows((1, 2)), headers={"x-runoff-mirrored": "a" * 16})]
    for request in requests:
        await plane.corridor.infer(request)
    await asyncio.gather(*map(plane.corridor.infer, requests))
    found = [block.chains for block in plane.blocks("mirror/worker-1") if isinstance(block, MirrorBlock)]
    assert found == [[], ["a" * 16], [None, "a" * 16]]


async def test_rows_that_the_mirror_spool_cannot_take_are_counted_for_each_mirror_that_drew_them(
    tmp_path: Path,
) -> None:
    plane = Plane(tmp_path, mirror_bytes_max=4_000)
    mirrors = [{"name": name, "model": f"models:/line/{name[-1]}"} for name in ("m7", "m8")]
    plane.serve({"champion": stage_linear(plane.artifacts)}, mirrors=mirrors)
    for _ in range(40):
        await plane.corridor.infer(plane.request(rows((1, 2))))
    written = len(plane.blocks("mirror/worker-1"))
    totals = plane.totals()
    for name in ("m7", "m8"):
        lost = totals.value("runoff_mirrored_total", endpoint="line", variant=name, outcome="overflow")
        assert written + lost == 40
        assert lost > 0
        sized = totals.value(
            "runoff_mirror_dropped_total", endpoint="line", variant=name, reason="overflow", size="1KiB"
        )
        assert sized == lost
    plane.close()
