"""One place for a process: what stays the same over its lives (name, sockets, failures), and the one that lives now."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.pipe import Line, Pipe
from gateway.processes.backoff import Backoff
from gateway.processes.birth import Birth, Role, new_writer
from gateway.processes.child import Child
from gateway.processes.ports import PortGroup
from gateway.settings import Settings
from gateway.telemetry.counters import CounterPage

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Place:
    """`groups` names the ports that its process listens on: `rest`, `grpc`, `admin`, `webhook`.

    The sockets stay open here from one life to the next, so that connections queued in them wait for the next life instead of
    being reset.
    """

    def __init__(
        self, role: Role, name: str, command: Sequence[str], groups: Mapping[str, PortGroup], page: CounterPage
    ) -> None:
        self.role = role
        self.name = name
        self.child: Child | None = None
        self.backoff = Backoff()
        self.was_ready = False
        self._command = command
        self._groups = groups
        self._sockets: dict[str, socket.socket] = {}
        self._page = page
        labels = {"process": name}
        self._up = page.gauge("runoff_process_up", labels)
        self._restarts = page.counter("runoff_process_restarts_total", labels)
        self._resident = page.gauge("runoff_process_resident_bytes", labels)
        self._lag = page.gauge("runoff_eventloop_lag_seconds", labels)

    async def start(self, settings: Settings, now: float) -> Child:
        """Begins a life: new writer id, new pipe, the same sockets. Raises OSError when the machine has no room for it."""
        for name, group in self._groups.items():
            if name not in self._sockets:
                self._sockets[name] = group.socket()
        near, far = socket.socketpair()
        birth = Birth(
            process=self.name,
            writer=new_writer(self.role),
            settings=settings,
            pipe_fd=far.fileno(),
            **{f"{name}_fd": sock.fileno() for name, sock in self._sockets.items()},
        )
        try:
            self.child = await Child.spawn(self._command, birth, Pipe(near.detach()), now)
        finally:
            far.close()
        return self.child

    def ended(self, now: float) -> float:
        """Ends a life, or an attempt at one; answers the pause before the next. Who failed too often loses its sockets."""
        child, self.child = self.child, None
        self._page.floats[self._up] = 0.0
        self._page.floats[self._lag] = self._page.floats[self._resident] = float("nan")
        self._page.cells[self._restarts] += 1
        was_up_s = now - child.ready_at if child is not None and child.ready_at is not None else 0.0
        pause_s = self.backoff.failed(was_up_s)
        if self.backoff.is_hopeless:
            self.close_sockets()
        return pause_s

    def heard(self, line: Line, now: float) -> None:
        """Notes a sign of life."""
        child = self.child
        if child is None:
            return
        child.beat_at = now
        if line.get("event") == "ready":
            child.ready_at, self.was_ready = now, True
        self._page.floats[self._up] = 1.0
        if line.get("event") == "beat":
            self._page.floats[self._lag] = float(line.get("loop_lag_s", 0.0))
            self._page.floats[self._resident] = resident_bytes(child.pid)

    def send(self, line: Line) -> None:
        """Sends a line to whoever lives here now; to nobody if nobody does."""
        if self.child is not None:
            self.child.send(line)

    def close_sockets(self) -> None:
        """Closes this process's hold on the sockets; a child that has them too goes on listening."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def resident_bytes(pid: int) -> float:
    """Resident memory of a process, NaN when it cannot be read (it has just ended, or this is no Linux)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123  # once a second a process; a Path is only slower
            return float(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return float("nan")
