import os
import socket
import sys

import pytest

from gateway.pipe import Pipe
from gateway.processes.birth import Birth
from gateway.processes.child import Child
from gateway.settings import Settings
from tests.kit.processes import is_running
from tests.kit.supervised import eventually

SAY = "import os; fd = int(os.environ['RUNOFF_PIPE_FD']); say = lambda text: os.write(fd, text.encode() + b'\\n')\n"
FORK = "import subprocess, sys; other = subprocess.Popen([sys.executable, '-IS', '-c', 'import time; time.sleep(60)'], pass_fds=[fd])\n"


@pytest.fixture
def ends():
    """Our end of a pipe as a descriptor, the birth of the child that gets the other, and the other."""
    near, far = socket.socketpair()
    birth = Birth(process="worker-0", writer="worker-1", settings=Settings(workers=1), pipe_fd=far.fileno())
    with far:
        yield near.detach(), birth, far


@pytest.fixture
def spawn(ends):
    async def start(code, program=sys.executable):
        fd, birth, far = ends
        child = await Child.spawn([program, "-IS", "-c", SAY + code], birth, Pipe(fd), now=5.0)
        far.close()
        return child

    return start


async def test_what_it_says_is_heard_in_order_to_its_last_word(spawn):
    child = await spawn("""for n in range(300): say('{"event": "beat", "n": %d}' % n)
raise SystemExit(3)""")
    heard = []
    assert await child.live(heard.append) == "status 3"
    assert [line["n"] for line in heard] == list(range(300))
    assert (child.name, child.writer, child.started_at) == ("worker-0", "worker-1", 5.0)


async def test_what_is_sent_arrives_and_a_signal_is_told_by_its_name(spawn):
    child = await spawn("""import signal
assert os.read(fd, 100) == b'{"command":"drain"}\\n'
os.kill(os.getpid(), signal.SIGTERM)""")
    child.send({"command": "drain"})
    assert await child.live(lambda line: None) == "signal SIGTERM"


async def test_a_killed_child_takes_along_what_it_started(spawn):
    child = await spawn(FORK + """say('{"event": "ready", "pid": %d}' % other.pid); other.wait()""")
    others = []

    def hear(line):
        others.append(line["pid"])
        child.kill()

    assert await child.live(hear) == "signal SIGKILL"
    eventually(lambda: not is_running(others[0]))


async def test_what_a_child_leaves_behind_is_ended_and_holds_nobody_up(spawn):
    child = await spawn(FORK + """say('{"event": "ready", "pid": %d}' % other.pid); os._exit(0)""")
    others = []
    assert await child.live(lambda line: others.append(line["pid"])) == "status 0"
    eventually(lambda: not is_running(others[0]))


async def test_a_child_that_talks_nonsense_is_killed(spawn):
    child = await spawn("say('no line'); import time; time.sleep(60)")
    assert await child.live(lambda line: None) == "signal SIGKILL"


async def test_it_lives_in_a_process_group_of_its_own(spawn):
    child = await spawn("""say('{"event": "ready", "group": %d}' % os.getpgrp())""")
    groups = []
    await child.live(lambda line: groups.append(line["group"]))
    assert groups == [child.pid]
    assert groups != [os.getpgrp()]


async def test_its_standard_output_is_our_standard_error(spawn, capfd):
    child = await spawn("os.write(1, b'hello')")
    await child.live(lambda line: None)
    out, err = capfd.readouterr()
    assert out == ""
    assert "hello" in err


async def test_after_its_end_nobody_else_is_killed(spawn):
    child = await spawn("")
    await child.live(lambda line: None)
    child.kill()
    assert not is_running(child.pid)


async def test_a_program_that_is_not_there_leaves_no_open_pipe(spawn, ends, tmp_path):
    with pytest.raises(OSError, match="nix"):
        await spawn("", program=str(tmp_path / "nix"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ends[0])


async def test_a_signal_without_a_name_is_told_by_its_number(spawn):
    child = await spawn("os.kill(os.getpid(), 35)")
    assert await child.live(lambda line: None) == "signal 35"


async def test_a_line_that_its_hearer_cannot_take_costs_no_other_line_and_no_life(spawn, caplog):
    child = await spawn("""for n in range(3): say('{"event": "beat", "n": %d}' % n)""")
    heard = []

    def hear(line):
        heard.append(1 / (1 - line["n"]))

    assert await child.live(hear) == "status 0"
    assert heard == [1, -1]
    assert "line_refused" in caplog.text
