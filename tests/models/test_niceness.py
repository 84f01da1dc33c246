import os
import subprocess
import sys
import threading

import pytest

from models.niceness import thread_steps_back

# Told by the process itself: whether a session has a group, of which niceness, and whether it may be changed, differs by machine
# and by session. Where writing what is there already is refused, nothing changes.
TOLD = """
import os, time
from contextlib import suppress
from pathlib import Path
from models.niceness import step_back
group = Path("/proc/self/autogroup")
def niceness_of_group():
    with suppress(OSError):
        return group.read_text().split()[-1:]
    return []
def is_changed_by(niceness):
    for _ in range(50):
        try:
            group.write_text(niceness)
            return True
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            return False
    return False
before = niceness_of_group()
print(is_changed_by(*before) if before else False, os.nice(0), *before)
step_back(7)
print(os.nice(0), *niceness_of_group())
"""


@pytest.mark.parametrize("is_leader", [True, False])
def test_a_process_steps_back_and_takes_along_only_a_session_of_its_own(is_leader):
    done = subprocess.run(
        [sys.executable, "-c", TOLD], start_new_session=is_leader, capture_output=True, text=True, check=True
    )
    (is_changed, own, *group), after = (line.split() for line in done.stdout.splitlines())
    assert after == [str(min(int(own) + 7, 19)), *(["7"] if is_changed == "True" and is_leader else group)]


def test_a_thread_steps_back_alone():
    seen = []

    def work() -> None:
        thread_steps_back(stepped)
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    own = os.nice(0)
    stepped = min(own + 12, 19)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [stepped]
    assert os.nice(0) == own
