from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.shadow.draw import Draw, Job
from gateway.shadow.meter import Meter
from gateway.shadow.outbox import Outbox
from gateway.shadow.progress import Progress
from gateway.spool.reader import SegmentReader
from gateway.spool.segment import SegmentWriter
from gateway.telemetry.counters import CounterPage
from tests.kit.shadowed import draw_of


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "spool" / "shadow-x"
        self.progress = Progress(folder / "shadow", folder / "spool", "shadow-x")
        self.spool = SegmentWriter(self.folder, bytes_max=16 << 10, segment_bytes=2 << 10)
        self.page = CounterPage(folder / "run", "shadow-x")
        self.outbox = Outbox(self.spool, self.progress, Meter(self.page))

    def draw(self, sequence: int, jobs: int = 1) -> tuple[Draw, list[Job]]:
        draw = draw_of({"x": np.ones((4, 2), np.float32)}, rows=[1] * 4, sequence=sequence)
        self.progress.begin(draw.writer, sequence)
        draw.open_jobs = jobs
        made = [Job(draw, f"m{n}", range(4)) for n in range(jobs)]
        for job in made:
            job.fail(range(4), "expired")
        return draw, made

    def counted(self, mirror: str) -> int:
        slot = self.page.counter("runoff_mirrored_total", {"endpoint": "line", "variant": mirror, "outcome": "expired"})
        return self.page.cells[slot]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.spool.close()
    world.progress.close()
    world.page.close()


def test_a_draw_is_answered_for_once_all_its_jobs_are_in_the_spool(world: World) -> None:
    _, jobs = world.draw(1, jobs=2)

    world.outbox.put(jobs[0])
    world.outbox.flush()
    assert world.progress.low("worker-a") == 0
    world.outbox.put(jobs[1])
    assert world.counted("m1") == 0
    world.outbox.flush()

    assert world.progress.low("worker-a") == 1
    assert world.counted("m1") == 4


def test_a_full_spool_keeps_the_rest_and_goes_on_when_there_is_room(world: World) -> None:
    for sequence in range(1, 101):
        _, jobs = world.draw(sequence)
        world.outbox.put(jobs[0])
        world.outbox.flush()
    assert world.outbox.is_blocked
    written = world.spool.sequence
    assert world.progress.low("worker-a") == written < 100

    reader = SegmentReader(world.folder)
    found = 0
    while world.outbox.is_blocked:
        found += len(reader.read())
        reader.release(reader.sequence)
        world.outbox.flush()
    found += len(reader.read())
    reader.close()

    assert found == world.spool.sequence == 100
    assert world.progress.low("worker-a") == 100
    assert world.counted("m0") == 400


def test_a_draw_of_which_nothing_is_left_is_answered_for_at_once(world: World) -> None:
    draw, _ = world.draw(1, jobs=0)

    world.outbox.skip(draw)

    assert world.progress.low("worker-a") == 1
