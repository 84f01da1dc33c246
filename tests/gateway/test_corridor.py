"""The awaitable corridor: what doors that wait see of the data plane."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.errors import EndpointUnknown, RequestMalformed, VersionUnknown
from gateway.request import ModelState
from models.errors import InputInvalid, NotWarm
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

ROW = {"x": np.array([[1, 2]], np.float32)}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


async def test_a_reply_says_who_answered(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    plane.serve({"champion": staged})
    reply = await plane.corridor.infer(plane.request(ROW))
    assert (reply.endpoint, reply.variant, reply.assigned, reply.revision) == ("line", "champion", "champion", 1)
    assert reply.model == staged
    assert reply.explain is None


async def test_a_request_is_answered_by_the_table_it_was_submitted_to(plane: Plane) -> None:
    first, second = stage_linear(plane.artifacts), stage_linear(plane.artifacts, version="2", slope=-1)
    plane.serve({"champion": first})
    asked = asyncio.create_task(plane.corridor.infer(plane.request(ROW)))
    await asyncio.sleep(0)  # the request is submitted now, and its turn has not come
    assert plane.data.inflight == 1
    plane.serve({"champion": second})
    reply = await asked
    assert (reply.model.key.version, reply.revision) == ("1", 1)
    after = await plane.corridor.infer(plane.request(ROW))
    assert (after.model.key.version, after.revision) == ("2", 2)


async def test_an_explanation_is_given_where_it_is_asked_for_and_allowed(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, explain=True)
    reply = await plane.corridor.infer(plane.request(ROW, explain=True))
    assert reply.explain is not None
    assert (reply.explain["assigned_by"], reply.explain["share"], reply.explain["batch_rows"]) == ("split", 1.0, 1)


async def test_bad_input_is_refused_before_it_is_submitted(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    with pytest.raises(InputInvalid, match=r"input 'x': wanted FP32 \[-1, 2\], got FP32 \[1, 3\]"):
        await plane.corridor.infer(plane.request({"x": np.zeros((1, 3), np.float32)}))
    assert plane.blocks() == []


async def test_a_route_may_refuse_what_is_not_finite(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, nonfinite="reject")
    with pytest.raises(InputInvalid, match="wanted finite values"):
        await plane.corridor.infer(plane.request({"x": np.array([[np.nan, 2]], np.float32)}))


async def test_an_alias_in_the_path_means_the_variant_that_follows_it(plane: Plane) -> None:
    first, second = stage_linear(plane.artifacts), stage_linear(plane.artifacts, version="2")
    plane.serve(
        {"champion": first, "challenger": second},
        allow_pin=True,
        variants=[
            {"name": "champion", "model": "models:/line@champion", "weight": 1},
            {"name": "challenger", "model": "models:/line@next", "weight": 0},
        ],
    )
    reply = await plane.corridor.infer(plane.request(ROW, alias="next"))
    assert reply.model.key.version == "2"
    for alias in ("other", "hampion", "2"):
        with pytest.raises(VersionUnknown):
            await plane.corridor.infer(plane.request(ROW, alias=alias))


async def test_metadata_shows_the_champion_and_every_warm_version(plane: Plane) -> None:
    first, second = stage_linear(plane.artifacts), stage_linear(plane.artifacts, version="2")
    plane.serve({"champion": first, "challenger": second})
    view = plane.corridor.view("line")
    assert (view.champion, view.versions, view.default) == (first, ("1", "2"), True)
    assert plane.corridor.default_endpoint() == "line"
    with pytest.raises(EndpointUnknown):
        plane.corridor.view("other")
    with pytest.raises(VersionUnknown):
        plane.corridor.view("line", "7")
    assert plane.corridor.state("line", "2") == ModelState(True, ("1", "2"))
    plane.corridor.leave()
    assert plane.corridor.state("line") == ModelState(False, ("1", "2"))


async def test_an_endpoint_that_is_live_and_not_loaded_here_is_not_warm_and_an_unknown_one_stays_unknown(
    plane: Plane,
) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    plane.data.table = msgspec.structs.replace(plane.data.table, default="late", cold={"late": ("3",)})
    for ask in (plane.corridor.view, plane.data.endpoint, lambda name: plane.corridor.version_of(name, "champion")):
        with pytest.raises(NotWarm, match="'late' is not warm here"):
            ask("late")
        with pytest.raises(EndpointUnknown):
            ask("other")
    with pytest.raises(NotWarm):
        plane.corridor.default_endpoint()
    with pytest.raises(NotWarm):
        await plane.corridor.infer(plane.request(ROW, endpoint="late"))
    assert [plane.corridor.state("late"), plane.corridor.state("late", "3")] == [ModelState(False, ("3",))] * 2
    with pytest.raises(VersionUnknown):
        plane.corridor.state("late", "4")
    assert [view.endpoint for view in plane.corridor.views()] == ["line"]


async def test_a_key_that_may_read_the_endpoint_is_told_why_where_the_route_does_not_say(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)})
    assert (await plane.corridor.infer(plane.request(ROW, explain=True))).explain is None
    assert (await plane.corridor.infer(plane.request(ROW, may_explain=True))).explain is None
    assert (await plane.corridor.infer(plane.request(ROW, explain=True, may_explain=True))).explain is not None


async def test_what_doors_refuse_is_counted_with_what_the_corridor_refuses(plane: Plane) -> None:
    plane.serve({"champion": stage_linear(plane.artifacts)}, limits={"body_bytes_max": 1234})
    assert plane.corridor.view("line").body_bytes_max == 1234
    plane.corridor.refused("line", RequestMalformed("no"))
    with pytest.raises(VersionUnknown):
        await plane.corridor.infer(plane.request(ROW, alias="nowhere"))
    slot = plane.page.counter("runoff_refused_total", {"endpoint": "line", "reason": "request_malformed"})
    assert plane.page.cells[slot] == 1
