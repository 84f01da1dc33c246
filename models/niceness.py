"""Stepping back for processes that answer requests. Linux may group processes by session (`sched_autogroup`), and niceness then holds
only inside a session: a process with a session of its own has to give the niceness of the group as well (sched(7), autogroup).
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_GROUP: Final = Path("/proc/self/autogroup")
_TRIES: Final = 10
_BETWEEN_S: Final = 0.12


def step_back(niceness: int) -> None:
    """Raises the niceness (0 to 19) of this process, and of its session where it leads one."""
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        for _ in range(_TRIES):
            try:
                _GROUP.write_text(str(niceness), encoding="ascii")
            except BlockingIOError:  # the kernel takes one such write every 100 ms from all who are not root
                time.sleep(_BETWEEN_S)
                continue
            except OSError:  # no such file: no such groups
                pass
            return


def thread_steps_back(niceness: int) -> None:
    """Raises the niceness of the calling thread alone, which on Linux is its own."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
