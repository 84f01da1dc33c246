"""A second features process that stands by: it has Feast imported already (some seconds), and answers when the first is killed until the
supervisor's next one is there.

It is forked before there is a thread or a loop, so it costs the pages that are written since. Nobody supervises it: it ends by itself,
when the first one ends in order, when a successor has the socket, with the supervisor, or after a minute.
"""

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.features.frames import SOCKET
from gateway.features.lane import Services
from gateway.features.process import Features
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

_STANDS_IN_S: Final = 60.0
_LOOK_S: Final = 0.1
_IN_ORDER: Final = b"."


class Lifeline:
    """The first process's end of what tells the spare whether it was killed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def let_go(self) -> None:
        """This process ends in order: nobody is to stand in."""
        with suppress(OSError):
            os.write(self._fd, _IN_ORDER)


def stand_by(supervisor: int, inherited: Sequence[int], stand_in: Callable[[Callable[[], bool]], None]) -> Lifeline:
    """Forks the spare; before any thread is started. `inherited` are descriptors that it must not hold open.

    When this process is killed, `stand_in` is called there, with what tells whether the supervisor is gone. Raises OSError.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for it
    with_supervisor = os.pidfd_open(supervisor)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    if os.fork() != 0:
        os.close(reading)
        os.close(with_supervisor)
        return Lifeline(writing)
    status = 1
    try:
        os.setsid()  # who ends the first one ends its group
        for fd in (*inherited, writing):
            os.close(fd)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        told, _, _ = select.select([reading, with_supervisor], [], [])
        if reading in told and with_supervisor not in told and os.read(reading, 1) != _IN_ORDER:
            stand_in(lambda: bool(select.select([with_supervisor], [], [], 0)[0]))
        status = 0
    finally:
        os._exit(status)  # never back into the caller's code: that is the first one's


def answer_until_replaced(folder: Path, open_store: Callable[[], Services], is_alone: Callable[[], bool]) -> None:
    """Answers at `folder`'s socket until a successor has made its own there, `is_alone` says that the supervisor is gone, or a minute has passed."""
    asyncio.run(_answer(folder, open_store, is_alone))


async def _answer(folder: Path, open_store: Callable[[], Services], is_alone: Callable[[], bool]) -> None:
    features = Features(folder, open_store)
    await features.start()
    log.warning("features_stood_in", socket=SOCKET)
    until = time.monotonic() + _STANDS_IN_S
    while not features.is_replaced and not is_alone() and time.monotonic() < until:  # noqa: ASYNC110  # a file system has no event for it
        await asyncio.sleep(_LOOK_S)
    await features.close()
