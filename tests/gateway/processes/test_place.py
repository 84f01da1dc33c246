import asyncio
import contextlib
import gc
import os
import sys
from pathlib import Path

import pytest

from gateway.processes.backoff import FAILURES_MAX
from gateway.processes.place import Place, resident_bytes
from gateway.processes.ports import PortGroup
from gateway.settings import Settings
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.retained import read_pages
from tests.kit.processes import is_running
from tests.kit.supervised import eventually

SAYS_AND_ENDS = """
import os, sys
os.write(int(os.environ["RUNOFF_PIPE_FD"]), b'{"event":"ready"}\\n{"event":"beat","loop_lag_s":0.25}\\n')
sys.exit(3)
"""
LEAVES_A_GRANDCHILD = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
os.write(int(os.environ["RUNOFF_PIPE_FD"]), b'{"event":"born","pid":%d}\\n' % child.pid)
"""


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=str(tmp_path), workers=1)


@pytest.fixture
def page(tmp_path):
    with contextlib.closing(CounterPage(tmp_path / "run", "supervisor-a")) as page:
        yield page


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def life(place: Place, settings: Settings) -> tuple[list[dict], str]:
    lines: list[dict] = []

    def hear(line: dict) -> None:
        lines.append(line)
        place.heard(line, 0.0)

    child = await place.start(settings, 0.0)
    end = await child.live(hear)
    return lines, end


async def test_a_life_is_heard_to_its_end_and_shown_on_the_scrape(tmp_path, settings, page):
    place = Place("control", "control", (sys.executable, "-c", SAYS_AND_ENDS), {}, page)
    lines, end = await life(place, settings)
    assert [line["event"] for line in lines] == ["ready", "beat"]
    assert end == "status 3"
    totals = read_pages(tmp_path / "run")
    assert totals.value("runoff_process_up", process="control") == 1
    assert totals.value("runoff_eventloop_lag_seconds", process="control") == 0.25
    assert place.ended(1.0) == 0.1
    totals = read_pages(tmp_path / "run")
    assert totals.value("runoff_process_up", process="control") == 0
    assert totals.value("runoff_process_restarts_total", process="control") == 1
    assert ("runoff_eventloop_lag_seconds", (("process", "control"),)) not in totals.series


async def test_what_a_child_started_ends_with_it(settings, page):
    place = Place("control", "control", (sys.executable, "-c", LEAVES_A_GRANDCHILD), {}, page)
    (line,), end = await life(place, settings)
    assert end == "status 0"
    await asyncio.to_thread(eventually, lambda: not is_running(line["pid"]))


async def test_a_killed_child_is_told_by_its_signal(settings, page):
    place = Place("control", "control", (sys.executable, "-c", "import time; time.sleep(600)"), {}, page)
    child = await place.start(settings, 0.0)
    child.kill()
    assert await child.live(lambda line: None) == "signal SIGKILL"


async def test_sockets_stay_from_life_to_life_until_the_place_is_hopeless(settings, page):
    with contextlib.closing(PortGroup("127.0.0.1", 0, "rest_port")) as group:
        place = Place("worker", "worker-0", (sys.executable, "-c", ""), {"rest": group}, page)
        await life(place, settings)
        (before,) = place._sockets.values()
        for _ in range(FAILURES_MAX - 1):
            place.ended(0.0)
            await life(place, settings)
            assert list(place._sockets.values()) == [before]
        place.ended(0.0)
        assert before.fileno() == -1
        await life(place, settings)  # it is still tried, on a socket that takes no connection before it listens
        assert place._sockets
        place.close_sockets()


async def test_a_program_that_cannot_be_started_is_an_error_and_leaves_nothing_open(settings, page):
    place = Place("control", "control", ("/no/such/program",), {}, page)
    gc.collect()  # what other tests left open is not this one's
    before = open_files()
    with pytest.raises(OSError, match="no/such/program"):
        await place.start(settings, 0.0)
    assert open_files() <= before


def test_resident_memory_of_a_process_that_is_gone_is_unknown():
    assert resident_bytes(os.getpid()) > 1e6
    assert str(resident_bytes(2**22 + 1)) == "nan"
