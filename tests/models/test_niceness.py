import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from models.niceness import thread_steps_back

TOLD = """
import os
from pathlib import Path
from models.niceness import step_back
step_back(7)
group = Path("/proc/self/autogroup")
print(os.nice(0), *(group.read_text().split()[-1:] if group.exists() else []))
"""


@pytest.mark.parametrize("is_leader", [True, False])
def test_a_process_steps_back_and_takes_along_only_a_session_of_its_own(is_leader):
    before = Path("/proc/self/autogroup")
    # The file is empty where the system groups nothing.
    group = before.read_text().split()[-1:] if before.exists() else []
    done = subprocess.run(
        [sys.executable, "-c", TOLD], start_new_session=is_leader, capture_output=True, text=True, check=True
    )
    own = os.nice(0)
    expected = ["7"] if group and is_leader else group
    assert done.stdout.split() == [str(min(own + 7, 19)), *expected]


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
