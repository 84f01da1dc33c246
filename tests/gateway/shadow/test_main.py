"""The process as the supervisor starts it: its pipe, its priority, and what `kill -9` at any moment leaves behind."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.pipe import Line, Pipe
from gateway.processes.birth import Birth, new_writer
from gateway.shadow.__main__ import NICENESS, memory_bytes_max
from gateway.shadow.suspects import STRIKES_MAX
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey, StagedModel
from tests.kit.remote_server import linear, serving, slow
from tests.kit.shadowed import Shadowed, outcomes, pairs
from tests.kit.staged import write

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


IMPATIENT = "from gateway.shadow import __main__, process; process.RUN_MAX_S = 0.5; __main__.main()"
"""The same program, but a run hangs after half a second."""


@asynccontextmanager
async def living(world: Shadowed, *command: str) -> AsyncIterator[Life]:
    near, far = socket.socketpair()
    birth = Birth(process="shadow", writer=new_writer("shadow"), settings=world.settings, pipe_fd=far.fileno())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(command or ("-m", "gateway.shadow")),
        env=os.environ | birth.environment(),
        pass_fds=birth.fds,
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
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, life.process.pid) == min(own + NICENESS, 19)
        assert os.sched_getscheduler(life.process.pid) == (os.SCHED_IDLE if may_idle() else os.SCHED_OTHER)
        life.pipe.send({"command": "drain"})
        assert await life.process.wait() == 0


def may_idle() -> bool:
    """Whether a process of this machine may take the lowest of all priorities, as most kernels and containers let it."""
    asked = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"
    return subprocess.run([sys.executable, "-c", asked], capture_output=True, check=False).returncode == 0


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


@pytest.mark.faults
async def test_a_candidate_that_hangs_ends_its_process_a_few_times_and_is_then_left_out(world: Shadowed) -> None:
    endless = stage_endless(world.artifacts)
    world.route({"endless": endless} | world.candidates(1), endless={"priority": 2})
    ids = world.serve(3, inputs=np.ones((3, 2), np.float32))

    for _ in range(STRIKES_MAX):
        async with living(world, "-c", IMPATIENT) as life:
            assert await life.process.wait() == -signal.SIGKILL
    blocks = []
    async with living(world, "-c", IMPATIENT):
        await until(lambda: bool(blocks.extend(world.read()) or len(pairs(blocks)) == 6))  # type: ignore[func-returns-value]

    assert outcomes(blocks) == {("candidate-0", "recorded"): 3, ("endless", "model_failed"): 3}
    assert pairs(blocks) == {(mirror, prediction): 1 for mirror in ("candidate-0", "endless") for prediction in ids}


def stage_endless(artifacts: Path) -> StagedModel:
    """Answers at once for rows of zeros (its warm-up), and never where a row holds a one."""
    scalar = helper.make_tensor_value_info("carried", TensorProto.FLOAT, [])
    condition = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["carried"], ["kept"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), condition, scalar],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, []),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Mul", ["most", "huge"], ["many"]),
            helper.make_node("Cast", ["many"], ["trips"], to=TensorProto.INT64),
            helper.make_node("Loop", ["trips", "yes", "nought"], ["end"], body=body),
            helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=1),
            helper.make_node("Add", ["sum", "end"], ["y"]),
        ],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(np.array(1e15, np.float32), "huge"),
            numpy_helper.from_array(np.array(1, np.bool_), "yes"),
            numpy_helper.from_array(np.array(0, np.float32), "nought"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
    )
    return write(artifacts, graph, signature, Answer(kind="regression", score_output="y"), ModelKey("endless", "1"))


def test_the_memory_bound_is_a_share_of_what_there_is() -> None:
    assert memory_bytes_max(12345) == 12345
    assert 0 < memory_bytes_max() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
