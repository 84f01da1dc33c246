"""One life of one child process: born with its sockets, heard through its pipe, buried with everything that it started."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence

from gateway.pipe import Line, Pipe, PipeBroken
from gateway.processes.birth import Birth
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

_STDERR = 2


class Child:
    """A running process. `beat_at` is when it last said anything (monotonic); None before its first word."""

    def __init__(self, birth: Birth, process: asyncio.subprocess.Process, pipe: Pipe, started_at: float) -> None:
        self.writer = birth.writer
        self.name = birth.process
        self.started_at = started_at
        self.beat_at: float | None = None
        self.ready_at: float | None = None
        self._process = process
        self._pipe = pipe

    @classmethod
    async def spawn(cls, command: Sequence[str], birth: Birth, pipe: Pipe, now: float) -> "Child":
        """Starts `command` with the birth's environment and descriptors; `pipe` is our end. Raises OSError, with the pipe closed.

        It gets a process group of its own: a Ctrl-C in the terminal reaches the supervisor alone, and what the child starts can be
        ended with it. Its standard output is our standard error, so that ours holds nothing but what a person or script reads.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=os.environ | birth.environment(),
                pass_fds=birth.fds,
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
            )
        except OSError:
            pipe.close()
            raise
        log.info("process_started", child=birth.process, writer=birth.writer, pid=process.pid)
        return cls(birth, process, pipe, now)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, line: Line) -> None:
        self._pipe.send(line)

    async def live(self, hear: Callable[[Line], None]) -> str:
        """Hands every line to `hear` until the process has ended; answers how it ended: `status 1`, `signal SIGKILL`."""
        reading = asyncio.create_task(self._read(hear))
        try:
            code = await self._process.wait()
        finally:
            # What it said before it ended is still in the pipe; a grandchild that holds the other end must not hold us up.
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reading, 0.5)
            finally:
                self._pipe.close()
                self._sweep()
        return f"status {code}" if code >= 0 else f"signal {_signal_name(-code)}"

    def kill(self) -> None:
        """Ends it and all that it started, at once."""
        if self._process.returncode is None:
            self._sweep()

    async def _read(self, hear: Callable[[Line], None]) -> None:
        try:
            async for line in self._pipe:
                try:
                    hear(line)
                except Exception as error:  # noqa: BLE001  # one line of another build, say, must not end the life that it is of
                    log.error("line_refused", child=self.name, line=line.get("event"), error=error)
        except PipeBroken as error:
            log.error("pipe_broken", child=self.name, problem=str(error))
            self.kill()

    def _sweep(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    """Most real-time signals have none but their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
