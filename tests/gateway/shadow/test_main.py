"""The process as the supervisor starts it: its pipe, its priority, and what `kill -9` at any moment leaves behind."""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.pipe import Line, Pipe
from gateway.processes.birth import Birth, new_writer
from gateway.shadow.__main__ import NICENESS, memory_bytes_max
from tests.kit.remote_server import linear, serving, slow
from tests.kit.shadowed import Shadowed, outcomes, pairs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities and parents are read from /proc")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Shadowed]:
    world = Shadowed(
        tmp_path / "state", spool_bytes_max=1 << 20
    )  # so that segments end at 256 kB, and roll in this test
    yield world
    world.close()


class Life:
    """One life of the process, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: Pipe) -> None:
        self.process = process
        self.pipe = pipe
        self.heard: list[Line] = []

    async def listen(self) -> None:
        async for line in self.pipe:
            self.heard.append(line)

    def said(self, event: str) -> bool:
        return any(line["event"] == event for line in self.heard)


@asynccontextmanager
async def living(world: Shadowed) -> AsyncIterator[Life]:
    near, far = socket.socketpair()
    birth = Birth(process="shadow", writer=new_writer("shadow"), settings=world.settings, pipe_fd=far.fileno())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.shadow", env=os.environ | birth.environment(), pass_fds=birth.fds
    )
    far.close()
    life = Life(process, Pipe(near.detach()))
    listening = asyncio.create_task(life.listen())
    try:
        yield life
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening
        life.pipe.close()


async def until(met: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Lets the other processes run until `met()`."""
    async with asyncio.timeout(timeout_s):
        while not met():  # noqa: ASYNC110  # another process sets it
            await asyncio.sleep(0.002)


async def test_it_says_ready_beats_and_ends_with_status_zero_when_told_to_drain(world: Shadowed) -> None:
    world.route(world.candidates(1))
    async with living(world) as life:
        await until(lambda: life.said("ready") and life.said("beat"))
        assert os.getpriority(os.PRIO_PROCESS, life.process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
        life.pipe.send({"command": "drain"})
        assert await life.process.wait() == 0


async def test_it_drains_when_its_supervisor_is_gone(world: Shadowed) -> None:
    async with living(world) as life:
        await until(lambda: life.said("ready"))
        life.process.send_signal(signal.SIGTERM)
        assert await life.process.wait() == 0


async def test_a_second_process_on_the_same_state_refuses_to_run(world: Shadowed) -> None:
    async with living(world) as first:
        await until(lambda: first.said("ready"))
        async with living(world) as second:
            assert await second.process.wait() != 0
        assert first.process.returncode is None


@pytest.mark.faults
@pytest.mark.parametrize("seed", [1, 2])
async def test_kill_9_at_any_moment_loses_no_pair_and_makes_none_twice(world: Shadowed, seed: int) -> None:
    chance = random.Random(seed)
    blocks = []

    def stream() -> int:
        """The streams: take all there is and unlink it, the last segment of the dead included."""
        blocks.extend(world.read(consume=True))
        return sum(outcomes(blocks).values())

    with serving(slow(linear(2.0), 0.005)) as server:
        world.route(world.candidates(3) | {"far": {"url": server.url, "model": "m"}}, candidate_2={"sample": 0.5})
        for _ in range(8):
            goal = stream() + chance.randint(1, 400)
            async with living(world) as life:

                def work(goal: int = goal) -> bool:
                    written = stream()
                    if len(world.drawn) - written < 600:
                        for worker in range(2):
                            world.serve(chance.randint(1, 12), rows=chance.randint(1, 3), worker=f"worker-{worker}")
                    return written >= goal

                await until(work)
                life.process.kill()
                await life.process.wait()
                world.serve(3, worker="worker-0")
        world.die("worker-1")
        async with living(world) as life:
            await until(lambda: stream() >= len(world.drawn))
            life.pipe.send({"command": "drain"})
            assert await life.process.wait() == 0
        stream()

    assert set(pairs(blocks).values()) == {1}
    assert pairs(blocks).keys() == world.drawn.keys()
    # A candidate that was running at three of the kills is left out for a while: nobody can tell that it was not its fault.
    assert {outcome for _, outcome in outcomes(blocks)} <= {"recorded", "model_failed"}


def test_the_memory_bound_is_a_share_of_what_there_is() -> None:
    assert 0 < memory_bytes_max() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
