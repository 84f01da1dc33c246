import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.shadow.draw import Draw, Job
from gateway.shadow.pairs import blocks
from gateway.shadow.progress import Progress, ShadowRuns
from gateway.spool.segment import SegmentWriter
from tests.kit.shadowed import draw_of

X = np.ones((4, 2), np.float32)
ALIVE = ["worker-a"]


class Life:
    """One process: its progress and its spool writer. `kill` ends it as the kernel would, without a last word."""

    count = 0

    def __init__(self, state: Path, **writer: int) -> None:
        Life.count += 1
        name = f"shadow-{Life.count:032x}"
        self.progress = Progress(state / "shadow", state / "spool", name)
        self.spool = SegmentWriter(state / "spool" / name, **({"bytes_max": 1 << 20} | writer))
        self.progress.link()

    def write(self, draw: Draw, mirrors: tuple[str, ...] = ("candidate-0",), *, is_last: bool = True) -> None:
        payloads = []
        for mirror in mirrors:
            job = Job(draw, mirror, range(len(draw.block.requests)))
            job.fail(job.indexes, "expired")
            payloads += [msgspec.msgpack.encode(block) for block in blocks(job, 0)]
        self.progress.link()
        self.spool.append(payloads)
        self.progress.appended([draw])
        if is_last:
            self.progress.finish(draw.writer, draw.sequence)

    def begin(self, sequence: int) -> Draw:
        draw = draw_of({"x": X}, rows=[1, 3], sequence=sequence)
        self.progress.begin(draw.writer, sequence)
        return draw

    def kill(self) -> None:
        os.close(self.progress._lock)
        self.spool.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    lives: list[Life] = []

    def begin(**writer: int) -> Life:
        for life in lives[-1:]:
            life.kill()
        lives.append(Life(tmp_path, **writer))
        return lives[-1]

    yield begin
    lives[-1].kill()


def ids(draw: Draw) -> set[bytes]:
    return {request.prediction_id for request in draw.block.requests}


def test_offsets_go_up_only_as_far_as_every_frame_is_answered_for(live: Callable[..., Life]) -> None:
    life = live()
    draws = [life.begin(sequence) for sequence in (1, 2, 3)]

    life.write(draws[1])
    life.write(draws[2])
    assert life.progress.low("worker-a") == 0
    life.write(draws[0])
    assert life.progress.low("worker-a") == 3


def test_a_successor_goes_on_behind_what_was_answered_for(live: Callable[..., Life]) -> None:
    life = live()
    for sequence in (1, 2):
        life.write(life.begin(sequence))
    life.progress.checkpoint(ALIVE)

    assert live().progress.low("worker-a") == 2


def test_what_came_after_the_last_offsets_is_known_from_the_pairs_themselves(live: Callable[..., Life]) -> None:
    life = live()
    draw = life.begin(1)
    life.write(draw, ("a", "b"), is_last=False)

    progress = live().progress

    assert progress.low("worker-a") == 0
    assert progress.answered(draw, "a") == ids(draw)
    assert progress.answered(draw, "b") == ids(draw)
    assert progress.answered(draw, "c") == set()


def test_the_proof_outlives_streams_that_unlink_the_segments_of_the_dead(
    live: Callable[..., Life], tmp_path: Path
) -> None:
    life = live()
    draw = life.begin(1)
    life.write(draw)
    shutil.rmtree(tmp_path / "spool")

    assert live().progress.answered(draw, "candidate-0") == ids(draw)


def test_without_the_links_the_same_death_would_be_forgotten(live: Callable[..., Life], tmp_path: Path) -> None:
    life = live()
    draw = life.begin(1)
    life.write(draw)
    shutil.rmtree(tmp_path / "spool")
    for link in (tmp_path / "shadow").glob("*/*.seg"):
        link.unlink()

    assert live().progress.answered(draw, "candidate-0") == set()


def test_the_proof_survives_several_deaths_in_a_row(live: Callable[..., Life]) -> None:
    life = live()
    draw = life.begin(1)
    life.write(draw, is_last=False)
    for _ in range(3):
        life = live()
        life.progress.checkpoint(ALIVE)

    assert life.progress.answered(draw, "candidate-0") == ids(draw)


def test_a_torn_tail_proves_nothing(live: Callable[..., Life], tmp_path: Path) -> None:
    life = live()
    first, second = life.begin(1), life.begin(2)
    life.write(first)
    (segment,) = (path for path in (tmp_path / "spool").glob("*/*.seg") if path.stat().st_size)
    whole = segment.stat().st_size
    life.write(second)
    os.truncate(segment, whole + 40)

    progress = live().progress

    assert progress.answered(first, "candidate-0") == ids(first)
    assert progress.answered(second, "candidate-0") == set()


def test_links_go_once_the_offsets_cover_them_and_stay_while_a_frame_is_open(
    live: Callable[..., Life], tmp_path: Path
) -> None:
    def linked() -> int:
        return len([path for path in (tmp_path / "shadow").glob("*/*.seg") if path.stat().st_size])

    life = live(segment_bytes=1)
    waiting = life.begin(1)
    last = 1
    while linked() <= 2 and last < 5_000:  # a segment ends once the helper thread has opened the next
        last += 1
        life.write(life.begin(last))
        life.progress.checkpoint(ALIVE)
    assert linked() > 2
    life.write(waiting)
    life.progress.checkpoint(ALIVE)

    assert linked() <= 1
    life = live()
    assert life.progress.low("worker-a") == last
    life.progress.checkpoint(ALIVE)
    assert {path.parent.name for path in (tmp_path / "shadow").glob("*/*.seg")} == {life.progress._own.name}


def test_offsets_of_workers_that_are_gone_are_forgotten(live: Callable[..., Life]) -> None:
    life = live()
    life.write(life.begin(1))
    life.progress.checkpoint(ALIVE)
    life.progress.checkpoint([])

    assert live().progress.low("worker-a") == 0


def test_two_processes_never_hold_one_state(live: Callable[..., Life], tmp_path: Path) -> None:
    live()

    with pytest.raises(ShadowRuns):
        Progress(tmp_path / "shadow", tmp_path / "spool", "shadow-other")


@pytest.mark.parametrize("left", [b"", bytes(8), b'{"worker-a":'])
def test_offsets_that_a_power_loss_spoilt_leave_what_the_links_prove(
    live: Callable[..., Life], tmp_path: Path, left: bytes
) -> None:
    life = live()
    draw = life.begin(1)
    life.write(draw)
    (tmp_path / "shadow" / "offsets.json").write_bytes(left)
    after = live()
    assert after.progress.low("worker-a") == 0
    assert after.progress.answered(draw, "candidate-0") == ids(draw)


def test_the_spool_is_not_listed_for_each_append(live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch) -> None:
    life = live(segment_bytes=600)

    def listed(*_: object) -> None:
        raise AssertionError("a lake that is down leaves thousands of segments there")

    for name in ("glob", "iterdir"):
        monkeypatch.setattr(Path, name, listed)
    for sequence in range(1, 30):
        life.write(life.begin(sequence))
        life.spool._helper.submit(lambda: None).result()
    life.progress.link()
    monkeypatch.undo()
    own = life.progress._own
    assert {path.name for path in life.progress._spool.glob("*.seg")} == {path.name for path in own.glob("*.seg")}
    assert life.progress._current >= 5
