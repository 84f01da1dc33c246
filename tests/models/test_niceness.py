import os
import subprocess
import sys
import threading

import pytest

from models.niceness import thread_steps_back

# Told by the process itself: whether a session has a group, and of which niceness, differs by machine and by session.
TOLD = """
import os
from pathlib import Path
from models.niceness import step_back
group = Path("/proc/self/autogroup")
told = lambda: [os.nice(0), *(group.read_text().split()[-1:] if group.exists() else [])]
print(*told())
step_back(7)
print(*told())
"""


@pytest.mark.parametrize("is_leader", [True, False])
def test_a_process_steps_back_and_takes_along_only_a_session_of_its_own(is_leader):
    done = subprocess.run(
        [sys.executable, "-c", TOLD], start_new_session=is_leader, capture_output=True, text=True, check=True
    )
    (own, *group), after = (line.split() for line in done.stdout.splitlines())
    assert after == [str(min(int(own) + 7, 19)), *(["7"] if group and is_leader else group)]


def test_a_thread_steps_back_alone():
    seen = []

    def work() -> None:
        thread_steps_back(12)
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    own = os.nice(0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [12]
    assert os.nice(0) == own
