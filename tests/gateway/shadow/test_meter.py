from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.shadow.draw import Answered, Job
from gateway.shadow.meter import Meter
from gateway.telemetry.counters import CounterPage, Totals, read_page
from models.catalog import Catalog
from tests.kit.shadowed import draw_of
from tests.kit.staged import stage_linear

ARM = {"endpoint": "line", "variant": "m"}


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = CounterPage(folder, "shadow-x")
        self.meter = Meter(self.page, wall_us=lambda: 12_000_000)

    def job(self, labels: list[str | None], live: list[str | None], *, leads_run: bool = True) -> Job:
        job = Job(draw_of({"x": np.ones((2, 2), np.float32)}, rows=[1, 1, 1], received_unix_s=10.0), "m", range(3))
        job.draw.live_labels = [*live, "z"]
        job.answer(
            Answered(
                indexes=[0, 1], names=[], outputs=[], labels=labels, scores=[None] * 2, compute_us=500, batch_rows=2, done_unix_us=0,
                leads_run=leads_run,
            )
        )  # fmt: skip
        job.fail([2], "model_failed")
        return job

    @property
    def totals(self) -> Totals:
        totals = Totals()
        for name, _, labels, values in read_page(self.folder / "counters-shadow-x.bin"):
            totals.add(name, labels, values)
        return totals


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.page.close()


def test_each_request_is_counted_under_its_outcome(world: World) -> None:
    for _ in range(3):
        world.meter.count(world.job(["a", "b"], ["a", "b"]))

    assert world.totals.value("runoff_mirrored_total", **ARM, outcome="recorded") == 6
    assert world.totals.value("runoff_mirrored_total", **ARM, outcome="model_failed") == 3
    assert world.totals.value("runoff_mirror_dropped_total", **ARM, reason="model_failed", size="1KiB") == 3


def test_agreement_is_the_share_of_rows_where_both_decided_the_same(world: World) -> None:
    world.meter.count(world.job(["a", "b"], ["a", "c"]))
    world.meter.count(world.job(["a", None], ["a", "c"]))

    assert world.totals.value("runoff_mirror_agreement_ratio", **ARM) == pytest.approx(2 / 3)


def test_agreement_forgets_the_distant_past(world: World) -> None:
    for _ in range(10_000):
        world.meter._count_agreement(world.job(["a", "b"], ["x", "y"]), ARM)
    for _ in range(40_000):
        world.meter._count_agreement(world.job(["a", "b"], ["a", "b"]), ARM)

    assert world.totals.value("runoff_mirror_agreement_ratio", **ARM) > 0.95


def test_lag_is_the_age_of_the_newest_answered_row_and_nought_when_nothing_waits(world: World) -> None:
    world.meter.count(world.job(["a", "b"], ["a", "b"]))
    assert world.totals.value("runoff_mirror_lag_seconds", **ARM) == pytest.approx(2.0)

    world.meter.idle()
    assert world.totals.value("runoff_mirror_lag_seconds", **ARM) == 0.0


def test_a_run_that_answered_for_several_jobs_is_one_run(world: World) -> None:
    world.meter.count(world.job(["a", "b"], ["a", "b"]))
    world.meter.count(world.job(["a", "b"], ["a", "b"], leads_run=False))

    histogram = world.page.histogram("runoff_batch_rows", ARM | {"role": "mirror"})
    assert sum(world.page.cells[histogram.base : histogram.sum]) == 1


def test_what_is_in_memory_is_shown_and_leaves_the_scrape_when_it_is_let_go(world: World, tmp_path: Path) -> None:
    staged = stage_linear(tmp_path / "artifacts")
    key = {"model": "line", "version": "1"}

    world.meter.show([Catalog(tmp_path / "artifacts").load(staged.digest)], 7)
    assert world.totals.value("runoff_model_state", **key, state="warm") == 1.0
    assert world.totals.value("runoff_model_memory_bytes", **key) == staged.size_bytes
    assert world.totals.value("runoff_spool_bytes", spool="shadow") == 7

    world.meter.show([], 0)
    assert world.totals.value("runoff_model_state", **key, state="warm") == 0.0
