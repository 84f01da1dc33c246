import asyncio

import pytest

from gateway.control.guards import Guards, counted
from gateway.control.ramp import Ramps
from gateway.control.unit_counts import UnitCounts
from gateway.settings import Ramps as RampSettings
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.retained import read_pages
from routing.validate import validate
from tests.kit.control import ANN, ControlPlane, route

BOTH = {"champion": ("models:/phishing/1", 90), "challenger": ("models:/phishing/2", 0)}
STEPS = [{"weights": {"challenger": 10}, "for": "1h"}, {"weights": {"challenger": 50}, "for": "1h"}]
ROUTE = validate(route(**BOTH))


class Worker:
    """What a worker counts, by hand."""

    def __init__(self, folder, name="w"):
        self.page = CounterPage(folder, name)

    def answer(self, variant, count, code="200", took_s=0.001, endpoint="phishing"):
        labels = {"endpoint": endpoint, "variant": variant, "model": "phishing", "version": "1", "protocol": "v2"}
        self.page.cells[self.page.counter("runoff_requests_total", labels | {"code": code})] += count
        histogram = self.page.histogram("runoff_request_duration_seconds", labels)
        for _ in range(count):
            histogram.observe(int(took_s * 1e6))

    def fall_back(self, variant, count):
        slot = self.page.counter("runoff_fallbacks_total", {"endpoint": "phishing", "variant": variant})
        self.page.cells[slot] += count
        self.answer("champion", count)


@pytest.fixture
def worker(tmp_path):
    made = Worker(tmp_path / "run")
    yield made
    made.page.close()


@pytest.fixture
async def plane(tmp_path):
    """A ramp at its first step, 10 of 100, whose guards have a first count."""
    async with ControlPlane(tmp_path / "var") as made:
        made.now = made.clock = 1_790_000_000.0
        made.wall = lambda: made.now
        guards = guards_of(made, tmp_path)
        made.ramps = Ramps(made.store, made.changes, made.reconciler, alarms=(guards.alarm,))
        await made.put(route(**BOTH) | {"steps": STEPS})
        made.ramps.step()
        look(made)
        look(made)
        yield made


def guards_of(plane, folder, **settings):
    """Those of a plane; the lake holds the units that `plane.units` says."""
    plane.units = {}
    units = UnitCounts(lambda *_: plane.units, clock=lambda: plane.now)
    return Guards(plane.store, folder / "run", RampSettings(**settings), units=units, clock=lambda: plane.now)


def look(plane, seconds=5):
    plane.now += seconds
    plane.ramps.step()
    return plane.store.standings.ramp("phishing")


def test_what_the_champion_answered_for_a_variant_that_failed_is_that_variants(worker, tmp_path):
    worker.answer("champion", 90)
    worker.answer("challenger", 5)
    worker.answer("challenger", 2, code="500", took_s=0.5)
    worker.answer("challenger", 3, code="400")
    worker.fall_back("challenger", 4)
    worker.answer("challenger", 50, endpoint="other")
    found = counted(read_pages(tmp_path / "run"), ROUTE)
    assert (found["champion"].requests, found["champion"].errors) == (90, 0)
    assert (found["challenger"].requests, found["challenger"].errors) == (14, 6)
    assert sum(found["challenger"].slow) == 10


async def test_a_variant_that_fails_pauses_its_ramp_and_a_resumed_one_is_judged_anew(plane, worker):
    worker.answer("champion", 900)
    worker.answer("challenger", 100)
    assert look(plane).state == "running"
    worker.answer("champion", 90)
    worker.answer("challenger", 10, code="500")
    ramp = look(plane)
    assert (ramp.state, ramp.step) == ("paused", 0)
    assert ramp.reason == "alarm: challenger fails more often than champion: 10 of 110 (9.09%) against 0 of 990 (0.00%)"
    assert plane.ramps.resume("phishing", author=ANN)
    look(plane)
    worker.answer("champion", 900)
    worker.answer("challenger", 100)
    assert look(plane).state == "running"
    worker.answer("champion", 90)
    worker.answer("challenger", 10, code="503")
    assert look(plane).state == "paused"


async def test_a_slow_variant_pauses(plane, worker):
    worker.answer("champion", 900, took_s=0.001)
    worker.answer("challenger", 100, took_s=0.1)
    assert "challenger is slower than champion: 100 of 100" in look(plane).reason


async def test_requests_that_do_not_fall_as_the_split_says_pause(plane, worker):
    worker.answer("champion", 1000)
    assert "requests do not fall as the split says: champion 1000 (wanted 90.1%)" in look(plane).reason


async def test_a_fault_late_in_a_long_step_is_not_drowned_by_the_hours_before_it(plane, worker):
    worker.answer("champion", 900_00, took_s=0.001)
    worker.answer("challenger", 100_00, took_s=0.001)
    look(plane, 400)
    worker.answer("champion", 900, took_s=0.001)
    worker.answer("challenger", 100, took_s=0.5)  # 1% of the whole step's
    assert "slower" in look(plane).reason


@pytest.fixture
async def dealt(plane):
    """The same ramp, dealt by units: 20 of 110 are the challenger's."""
    document = route(**BOTH) | {"steps": [{"weights": {"challenger": 20}, "for": "1h"}], "unit": "header"}
    await plane.put(document, expected=plane.store.current("phishing").number)
    for _ in range(3):
        look(plane)
    return plane


async def test_units_that_come_again_are_no_mismatch(dealt, worker):
    """A request is no unit: one busy caller may send everything."""
    dealt.units = {"champion": 818, "challenger": 182}
    worker.answer("champion", 1000)
    assert look(dealt).state == "running"
    look(dealt, 60)
    await asyncio.sleep(0.1)
    assert look(dealt).state == "running"


async def test_units_that_do_not_fall_as_the_split_says_pause(dealt):
    dealt.units = {"champion": 950, "challenger": 50}
    look(dealt, 60)
    for _ in range(100):
        await asyncio.sleep(0.01)
        if look(dealt, 0).state == "paused":
            break
    assert (
        "units do not fall as the split says: champion 950 (wanted 81.9%)"
        in dealt.store.standings.ramp("phishing").reason
    )


async def test_what_was_counted_before_the_step_and_while_it_settled_does_not_count(tmp_path, worker):
    async with ControlPlane(tmp_path / "var") as plane:
        plane.now = 1_790_000_000.0
        plane.wall = lambda: plane.now
        guards = guards_of(plane, tmp_path)
        plane.ramps = Ramps(plane.store, plane.changes, plane.reconciler, alarms=(guards.alarm,))
        worker.answer("champion", 5000)
        await plane.put(route(**BOTH) | {"steps": STEPS})
        look(plane, 0)
        worker.answer("champion", 50)
        look(plane, 1)
        assert look(plane, 3).state == "running"
        worker.answer("champion", 900)
        worker.answer("challenger", 100)
        assert look(plane).state == "running"


async def test_alarms_can_be_switched_off(plane, worker, tmp_path):
    guards = guards_of(plane, tmp_path, alarms=False)
    plane.ramps = Ramps(plane.store, plane.changes, plane.reconciler, alarms=(guards.alarm,))
    look(plane)
    worker.answer("champion", 90)
    worker.answer("challenger", 10, code="500")
    assert look(plane).state == "running"


async def test_a_clock_set_back_does_not_blind_the_guards(plane, worker, tmp_path):
    for _ in range(2):
        plane.wall = lambda at=plane.now: at - 5 * 3600
        look(plane)
        worker.answer("champion", 4500)
        worker.answer("challenger", 500, code="500")
    assert look(plane).state == "paused"
