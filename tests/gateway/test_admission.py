"""A request is refused when its predicted wait is too long, and only then."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from gateway.admission import Admission, Holding
from gateway.errors import NotReady, Overloaded
from gateway.runs import Queue
from gateway.ticket import Ticket
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


def waiting(*rows: int) -> Queue:
    """Requests of so many rows each; nobody looks at more of them than their number."""
    queue = Queue()
    queue.extend(cast("list[Ticket]", [None] * len(rows)))
    queue.rows = sum(rows)
    return queue


async def test_the_wait_is_predicted_from_the_models_own_curve(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    endpoint = plane.serve({"champion": staged}, limits={"queue_wait_max_s": 0.05})
    model = plane.catalog.load(staged.digest)
    model.rows_max, model._curve_rows, model._curve = 8, [8], [0.02]
    admission = Admission(100)
    admission.enter(endpoint, model, waiting(*[1] * 8))  # two batches ahead: 40 ms
    for queue in (waiting(*[1] * 16), waiting(10, 6)):
        with pytest.raises(Overloaded, match=r"the wait would be 0\.060 s, at most 0\.05 s"):
            admission.enter(endpoint, model, queue)


async def test_where_no_run_is_shared_each_request_is_waited_for(plane: Plane) -> None:
    staged = msgspec.structs.replace(stage_linear(plane.artifacts), keeps_rows_apart=False)
    staged.write(plane.artifacts / staged.digest)
    endpoint = plane.serve({"champion": staged}, limits={"queue_wait_max_s": 0.05})
    model = plane.catalog.load(staged.digest)
    model._curve_rows, model._curve = [1, 100], [0.01, 0.02]
    admission = Admission(100)
    admission.enter(endpoint, model, waiting(100))  # 40 ms
    with pytest.raises(Overloaded, match=r"the wait would be 0\.060 s, at most 0\.05 s"):
        admission.enter(endpoint, model, waiting(100, 100))


async def test_a_fast_model_is_bounded_by_number_alone(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    endpoint = plane.serve({"champion": staged})
    model = plane.catalog.load(staged.digest)
    admission = Admission(100)
    admission.inflight = 99
    admission.enter(endpoint, model, waiting(*[1] * 99))
    admission.inflight = 100
    with pytest.raises(NotReady, match="as many requests as it may"):
        admission.enter(endpoint, model, None)


async def test_a_request_without_a_ticket_is_in_flight_and_holds_its_models_within_the_same_bounds(
    plane: Plane,
) -> None:
    staged = stage_linear(plane.artifacts)
    endpoint = plane.serve({"champion": staged}, limits={"concurrency_max": 2})
    model = plane.catalog.load(staged.digest)
    admission = Admission(1)
    leases = model.leases
    with admission.held_open(endpoint):
        assert (endpoint.inflight, admission.inflight, model.leases) == (1, 1, leases + 1)
        with pytest.raises(NotReady, match="as many requests as it may"), admission.held_open(endpoint):
            pass
        endpoint.inflight = 2
        with pytest.raises(Overloaded, match="2 requests in flight, at most 2"), admission.held_open(endpoint):
            pass
        endpoint.inflight = 1
    assert (endpoint.inflight, admission.inflight, model.leases) == (0, 0, leases)


def test_one_body_is_always_taken_alone_and_given_back_once() -> None:
    admission = Admission(1, 100_000)
    with Holding(admission) as alone:
        for size in (10_000, 80_000, 200_000, 150_000):
            alone.grow_to(size)
        with pytest.raises(NotReady), Holding(admission) as other:
            other.grow_to(70_000)
        with pytest.raises(NotReady), Holding(admission) as other:
            other.expect(70_000)
        alone.release()
        assert admission.has_room(100_000)
    assert admission.has_room(100_000)
