from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.shadow.draw import Draw
from gateway.shadow.inbox import Inbox
from gateway.shadow.progress import Progress
from gateway.spool.reader import writers
from tests.kit.shadowed import Shadowed


class World:
    def __init__(self, folder: Path) -> None:
        self.state = Shadowed(folder)
        self.folder = folder / "mirror"
        self.progress = Progress(folder / "shadow", folder / "spool", "shadow-x")
        self.inbox = Inbox(self.folder, self.progress)

    def read(self, bytes_max: int = 1 << 20) -> list[Draw]:
        self.inbox.look()
        return self.inbox.read(bytes_max)

    def finish(self, *draws: Draw) -> None:
        for draw in draws:
            self.progress.finish(draw.writer, draw.sequence)
        self.inbox.release()

    def segments(self) -> int:
        return len([path for path in self.folder.glob("*/*.seg") if path.stat().st_size])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "state")
    world.state.route(world.state.candidates(1))
    yield world
    world.inbox.close()
    world.progress.close()
    world.state.close()


def test_frames_of_all_workers_are_read_once_and_in_their_order(world: World) -> None:
    for turn in range(6):
        world.state.serve(1 + turn, worker=f"worker-{turn % 2}")

    draws = world.read()

    assert [draw.sequence for draw in draws if draw.writer == "worker-0"] == [1, 2, 3]
    assert [len(draw.block.requests) for draw in draws if draw.writer == "worker-1"] == [2, 4, 6]
    assert world.read() == []


def test_a_read_takes_about_as_much_as_it_is_allowed_from_each_worker_its_share(world: World) -> None:
    for worker in ("worker-0", "worker-1"):
        for _ in range(50):
            world.state.serve(1, worker=worker)

    first = world.read(bytes_max=2000)

    assert {draw.writer for draw in first} == {"worker-0", "worker-1"}
    assert len(first) < 30


def test_nothing_is_deleted_before_it_is_answered_for(world: World) -> None:
    world.state.serve(1)
    world.state.die()
    (draw,) = world.read()
    world.read()

    world.inbox.release()
    assert world.segments() == 1
    world.finish(draw)
    assert writers(world.folder) == []
    assert list(world.folder.iterdir()) == []


def test_the_folder_of_a_living_worker_stays(world: World) -> None:
    world.state.serve(1)

    world.finish(*world.read())

    assert writers(world.folder) == ["worker-a"]


def test_a_frame_that_no_one_can_read_counts_as_answered_for(world: World) -> None:
    world.state.append(b"nonsense")
    world.state.die()

    assert world.read() == []
    world.read()
    world.inbox.release()
    assert writers(world.folder) == []
