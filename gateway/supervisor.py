"""The supervisor: owns the listening sockets and the state directory, starts, watches, restarts and drains the other processes, and
answers probes and scrapes, whatever happens to them. It knows nothing of models, routes or requests.
"""

import asyncio
import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Final

import msgspec

from gateway.pipe import Line
from gateway.processes.birth import new_writer
from gateway.processes.board import Board
from gateway.processes.child import Child
from gateway.processes.health import Watch, is_hung
from gateway.processes.lock import StateLock, StateTaken
from gateway.processes.place import Place, resident_bytes
from gateway.processes.ports import PortGroup, PortTaken, bind
from gateway.settings import Settings
from gateway.telemetry.counters import CounterPage
from gateway.telemetry.exposition import Exposition
from gateway.telemetry.log import EventLog, configure
from gateway.telemetry.responder import Answer, Responder
from gateway.telemetry.retained import fold_dead, read_pages

log = EventLog(__name__)

_LOOK_S: Final = 0.5
_WORKERS_SHARE: Final = 0.75
"""Share of `grace_s` in which workers finish what they hold; the rest is for shadow and control, which drain after them."""


class Commands(msgspec.Struct, frozen=True):
    """How each role is started. Tests put small programs here."""

    worker: tuple[str, ...] = (sys.executable, "-m", "gateway.worker")
    shadow: tuple[str, ...] = (sys.executable, "-m", "gateway.shadow")
    control: tuple[str, ...] = (sys.executable, "-m", "gateway.control")


def serve(settings: Settings, *, commands: Commands | None = None, say: Callable[[str], None] = print) -> int:
    """Runs a gateway until it is told to stop; answers the exit status. What prevents a start is one line on standard error."""
    try:
        supervisor = Supervisor(settings, commands=commands or Commands(), say=say)
    except (StateTaken, PortTaken, OSError) as error:
        sys.stderr.write(f"runoff: {error}\n")
        return 1
    with contextlib.closing(supervisor):
        return asyncio.run(supervisor.run())


class Supervisor:
    """One gateway. Everything happens on one event loop, and nothing that happens takes longer than a scrape (a few milliseconds)."""

    def __init__(
        self,
        settings: Settings,
        *,
        commands: Commands,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the state directory and the ports. Raises StateTaken, PortTaken or OSError; nothing is held then."""
        self._settings = settings
        self._say = say
        self._clock = clock
        with contextlib.ExitStack() as held:
            held.callback(self._let_go)
            self._held = held
            lock = held.enter_context(contextlib.closing(StateLock(settings.state_path)))
            del lock
            groups = {
                name: held.enter_context(contextlib.closing(PortGroup(host, port, f"{name}_port")))
                for name, host, port in (
                    ("rest", settings.host, settings.rest_port),
                    ("grpc", settings.host, settings.grpc_port),
                    ("admin", settings.admin_host, settings.admin_port),
                )
            }
