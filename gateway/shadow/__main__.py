"""`python -m gateway.shadow`: the shadow process, as the supervisor starts it."""

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.processes.birth import Birth
from gateway.telemetry.log import configure
from models.niceness import step_back

NICENESS: Final = 10
MEMORY_SHARE: Final = 0.25
"""Of the memory that this process may use at all: what candidates may hold together with everything else here."""
_FIRST_TO_GO: Final = "500"
"""For the kernel when memory ends: the shadow before those who serve."""


def main() -> None:
    """Runs until the supervisor says drain, or is gone. Lets everybody else go first: processor time, and memory by the kernel's own order."""
    step_back(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    birth = Birth.of(os.environ)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every call to a remote
    configure(birth.process, birth.settings.telemetry.log_level, folder=birth.settings.state_path / "logs")
    asyncio.run(_run(birth))


def memory_bytes_max(setting: int = 0) -> int:
    """The bound of this process: the setting or, where that is 0, a share of the machine's memory, or of its control group's."""
    if setting:
        return setting
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        available = min(available, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return int(available * MEMORY_SHARE)


async def _run(birth: Birth) -> None:
    from gateway.shadow.process import Shadow  # two thirds of a second, for which the process has stepped back already

    with suppress(OSError, AttributeError):  # not before: where nothing is idle, it would never begin
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    shadow = Shadow(
        birth.settings,
        birth.writer,
        environ=os.environ,
        memory_bytes_max=memory_bytes_max(birth.settings.shadow.memory_bytes_max),
        cores=len(os.sched_getaffinity(0)),
    )
    pipe = birth.pipe()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shadow.drain)
    tasks = [asyncio.create_task(shadow.beat(pipe), name="beat"), asyncio.create_task(shadow.obey(pipe), name="obey")]
    try:
        await shadow.run()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await shadow.close()
        await pipe.flush()
        pipe.close()


if __name__ == "__main__":
    main()
