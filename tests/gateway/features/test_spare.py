"""Each case is a small program of its own: a process is forked, and killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gateway.features.client import FeatureClient
from gateway.features.process import Features, is_answered, listen
from tests.kit.features import SmallStore
from tests.kit.processes import children, is_running

FIRST = """
import os, sys, time
from pathlib import Path
from gateway.features.spare import answer_until_replaced, stand_by
from tests.kit.features import SmallStore
folder, how, supervisor = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def stand_in(is_alone):
    (folder / "stood_in").write_text(str(os.getpid()))
    answer_until_replaced(folder, SmallStore, is_alone)
lifeline = stand_by(supervisor, (), stand_in)
print("ready", flush=True)
sys.stdin.readline()
if how == "in order":
    lifeline.let_go()
elif how == "killed":
    os.kill(os.getpid(), 9)
"""


class First:
    """The first process and its spare; `end` says how the first goes."""

    def __init__(self, folder, how, supervisor=None):
        command = [sys.executable, "-c", FIRST, str(folder), how, str(supervisor or os.getpid())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        (self.spare,) = children(self.process.pid)

    def end(self):
        self.process.stdin.write("go\n")
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()  # not read to its end: the spare has it open too


def until(claim, within_s=30.0):
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def made(folder):
    folder.mkdir()


async def test_a_spare_answers_for_who_was_killed_until_a_successor_listens(folder):
    first = First(folder, "killed")
    first.end()
    until(lambda: is_answered(folder))
    assert is_running(first.spare)
    successor = Features(folder, SmallStore)
    await successor.start()
    assert not successor.is_replaced
    until(lambda: not is_running(first.spare))
    assert is_answered(folder), "the one that ends leaves the socket of the other alone"
    await successor.close()
    assert not is_answered(folder)


def test_who_ends_in_order_needs_nobody_to_stand_in(folder):
    first = First(folder, "in order")
    first.end()
    until(lambda: not is_running(first.spare))
    assert not (folder / "stood_in").exists()


@pytest.mark.parametrize("stands_in", [False, True])
def test_a_spare_ends_with_the_supervisor(folder, stands_in):
    with subprocess.Popen(["sleep", "600"]) as supervisor:
        first = First(folder, "killed", supervisor.pid)
        if stands_in:
            first.end()
            until(lambda: is_answered(folder))
        supervisor.kill()
    until(lambda: not is_running(first.spare))
    assert (folder / "stood_in").exists() == stands_in
    if not stands_in:
        first.end()


def test_it_is_in_no_group_that_ends_with_the_first(folder):
    first = First(folder, "killed")
    until(lambda: os.getpgid(first.spare) != os.getpgid(first.process.pid))
    first.end()
    until(lambda: is_answered(folder))
    os.kill(first.spare, signal.SIGTERM)
    until(lambda: not is_running(first.spare))


async def test_callers_queue_up_at_a_socket_before_anybody_answers(folder):
    listening = listen(folder)
    assert is_answered(folder)
    features = Features(folder, SmallStore)
    await features.warm(["credit", "unknown"])
    await features.start(listening)
    client = FeatureClient(folder)
    assert (await client.ask("credit", {"customer_id": [2]}, 5))["stats__income"].values == [20.0]
    await client.close()
    await features.close()
