"""A request is refused when its predicted wait is too long, and only then."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.admission import Admission, Holding
from gateway.errors import NotReady, Overloaded
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    yield made
    made.close()


async def test_the_wait_is_predicted_from_the_models_own_curve(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    endpoint = plane.serve({"champion": staged}, limits={"queue_wait_max_s": 0.05})
    model = plane.catalog.load(staged.digest)
    model.rows_max, model._curve_rows, model._curve = 8, [8], [0.02]
    admission = Admission(100)
    admission.enter(endpoint, model, 8)  # two batches ahead: 40 ms
    with pytest.raises(Overloaded, match=r"the wait would be 0\.060 s, at most 0\.05 s"):
        admission.enter(endpoint, model, 16)


async def test_a_fast_model_is_bounded_by_number_alone(plane: Plane) -> None:
    staged = stage_linear(plane.artifacts)
    endpoint = plane.serve({"champion": staged})
    model = plane.catalog.load(staged.digest)
    admission = Admission(100)
    admission.inflight = 99
    admission.enter(endpoint, model, 99)
    admission.inflight = 100
    with pytest.raises(NotReady, match="as many requests as it may"):
        admission.enter(endpoint, model, 0)


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
