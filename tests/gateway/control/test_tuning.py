import asyncio

import pytest

from gateway.control.tuning import WAITING_MAX, NothingRecorded, Tuning, TuningBusy, is_reshaped
from models import profiles
from models.staged import Ask, Profile, Traffic
from models.tuning.job import TuningFailed
from tests.kit.control import ControlPlane, route


class Bench:
    """The other real side of `Measure`: writes a profile of this machine at once, and remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.fails = False

    def __call__(self, artifact, staged, *, ask=None, threads_max=1, traffic=None, recorded=None):
        self.asked.append((staged.digest, ask, traffic, recorded))
        if self.fails:
            raise TuningFailed("the model failed on this input")
        made = Profile(
            processor=profiles.processor(),
            onnxruntime=profiles.VERSION,
            threads_max=threads_max,
            seconds_by_rows={1: 1e-5},
            ask=ask or Ask(),
            traffic=traffic,
        )
        profiles.write(artifact, made)
        return made


class Lake:
    """What the evidence knows of an endpoint's traffic."""

    def __init__(self, *endpoints):
        self._endpoints = endpoints

    def traffic(self, endpoint):
        known = Traffic(endpoint=endpoint, requests=9, rows_p50=3, rows_p95=5, rows_max=7)
        return known if endpoint in self._endpoints else None

    def recorded(self, endpoint, signature):
        return {spec.name: [endpoint] for spec in signature.inputs}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        await made.put(route())
        yield made


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def tuning(plane, bench):
    made = Tuning(
        plane.store, plane.settings.artifacts_path, lambda: Lake("phishing"), workers=1, look_s=0.01, measure=bench
    )
    yield made
    made.close()


@pytest.fixture
def digest(plane):
    return plane.store.live("phishing").resolutions["champion"].digest


async def test_what_is_served_without_a_profile_of_this_machine_is_measured_once(tuning, bench, digest):
    await tuning.step()
    await tuning.step()
    assert [asked[0] for asked in bench.asked] == [digest]


async def test_another_number_of_workers_is_measured_again_as_it_was_asked_for(plane, tuning, bench, digest):
    ask = Ask(target_s=0.002)
    await tuning.tune(digest, ask=ask, endpoint="phishing")
    other = Tuning(plane.store, plane.settings.artifacts_path, lambda: Lake("phishing"), workers=9999, measure=bench)
    changed = profiles.threads_share(1) != profiles.threads_share(9999)
    await other.step()
    other.close()
    assert len(bench.asked) == 1 + changed
    assert bench.asked[-1][1] == ask
    assert bench.asked[-1][2].endpoint == "phishing"


async def test_what_cannot_be_measured_is_tried_once_and_served_all_the_same(tuning, bench, plane):
    bench.fails = True
    await tuning.step()
    await tuning.step()
    assert len(bench.asked) == 1
    assert plane.live() == {"champion": "1"}


async def test_recorded_rows_are_taken_where_they_are_asked_for(tuning, bench, digest):
    await tuning.tune(digest)
    assert bench.asked[-1][2:] == (None, None)
    profile = await tuning.tune(digest, endpoint="phishing")
    assert profile.traffic.rows_p50 == 3
    assert bench.asked[-1][3] == {"x": ["phishing"]}
    with pytest.raises(NothingRecorded, match="'spam'"):
        await tuning.tune(digest, endpoint="spam")


async def test_what_was_asked_for_holds_until_something_else_is(tuning, digest):
    await tuning.tune(digest, ask=Ask(int8=True))
    assert (await tuning.tune(digest)).ask == Ask(int8=True)
    assert tuning.asked(digest) == Ask(int8=True)


async def test_more_questions_than_may_wait_are_refused(tuning, digest):
    waiting = [asyncio.create_task(tuning.tune(digest)) for _ in range(WAITING_MAX + 1)]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in ended].count(TuningBusy) == 1


class Hours:
    """A lake whose requests change, and a clock that moves by hours."""

    def __init__(self, requests=5000):
        self.rows = 1
        self.hour = 0
        self.requests = requests

    def traffic(self, endpoint):
        return Traffic(
            endpoint=endpoint, requests=self.requests, rows_p50=self.rows, rows_p95=self.rows, rows_max=self.rows
        )

    def recorded(self, endpoint, signature):
        return {spec.name: [endpoint] for spec in signature.inputs}

    def clock(self):
        return 3600.0 * self.hour


@pytest.mark.parametrize("requests", [5000, 3])
async def test_models_are_measured_again_when_requests_come_to_be_of_another_size(plane, bench, digest, requests):
    hours = Hours(requests)
    tuning = Tuning(
        plane.store, plane.settings.artifacts_path, lambda: hours, workers=1, clock=hours.clock, measure=bench
    )
    try:
        await tuning.tune(digest, ask=Ask(target_s=0.002))
        measured = []
        for hours.hour, hours.rows in ((0, 64), (1, 1), (2, 64), (3, 65), (4, 130), (4, 9)):
            await tuning.step()
            measured.append(len(bench.asked) - 1)
        assert measured == ([0, 0, 1, 1, 2, 2] if requests == 5000 else [0] * 6)
        if requests == 5000:
            assert bench.asked[-1][:2] == (digest, Ask(target_s=0.002))
            assert bench.asked[-1][2].rows_p50 == 130
    finally:
        tuning.close()


@pytest.mark.parametrize(
    ("then", "now", "is_other"),
    [
        (None, (1, 1), False),
        (None, (1, 2), True),
        ((4, 8), (7, 15), False),
        ((4, 8), (4, 16), True),
        ((4, 8), (2, 8), True),
    ],
)
def test_another_size_is_twice_or_half(then, now, is_other):
    def traffic(rows):
        return rows and Traffic(endpoint="a", requests=1, rows_p50=rows[0], rows_p95=rows[1], rows_max=99)

    assert is_reshaped(traffic(then), traffic(now)) == is_other
    assert not is_reshaped(Traffic(endpoint="b", requests=1, rows_p50=50, rows_p95=50, rows_max=99), traffic(now))
