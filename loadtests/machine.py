"""The machine under a benchmark: its name, its cores, and what processes use of it."""

import contextlib
import os
import platform
import socket
import time
from pathlib import Path

import httpx
import psutil


def machine() -> str:
    """The processor, as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} processors"
    return platform.machine()


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes; of one that has ended, none."""
    used = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            used += sum(psutil.Process(pid).cpu_times()[:2])
    return used


def memory_mb(pids: list[int]) -> float:
    """Proportional memory of processes: what they share is counted once."""
    held = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            held += psutil.Process(pid).memory_full_info().pss
    return held / 1e6


def pin(pid: int, core: int) -> None:
    """Keeps all threads of a process on one core."""
    for thread in psutil.Process(pid).threads():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread.id, {core})


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(is_true: object, timeout_s: float = 60.0, pause_s: float = 0.1) -> None:
    """Calls `is_true` until it is, taking connection errors for not yet."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, httpx.HTTPError, Exception):
            if is_true():  # type: ignore[operator]
                return
        time.sleep(pause_s)
    raise TimeoutError("a contender did not come up")
