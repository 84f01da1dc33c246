"""The one pipe between the supervisor and a child: JSON lines, both ways, over a socket pair."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

Line = dict[str, Any]
"""One message: `{"event": …}` from a child, `{"command": …}` from the supervisor, and what belongs to it."""

_LINE_BYTES_MAX: Final = 1 << 20
_WAITING_BYTES_MAX: Final = 4 << 20
_READ_BYTES: Final = 65_536


class PipeBroken(Exception):
    """The other side sent what is no line: not JSON, not an object, or without end."""


class Pipe:
    """One end. Belongs to one event loop; made inside it, or before it runs.

    `send` never blocks and never waits: what the socket does not take is kept, up to a bound, beyond which lines are dropped and counted
    (the other side then hangs, and is about to be killed for it). A peer that is gone is seen by the reader, not by the sender.
    """

    def __init__(self, fd: int) -> None:
        """Takes over the descriptor of one end of a `socket.socketpair()`."""
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._waiting = bytearray()
        self._gone = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0

    def send(self, line: Line) -> None:
        """Sends one line, soon."""
        data = msgspec.json.encode(line) + b"\n"
        if self._gone:
            return
        if len(self._waiting) + len(data) > _WAITING_BYTES_MAX:
            self.dropped += 1
            return
        was_idle = not self._waiting
        self._waiting += data
        if was_idle:
            self._write()
            if self._waiting:
                self._idle.clear()
                asyncio.get_running_loop().add_writer(self._socket.fileno(), self._write_later)

    async def __aiter__(self) -> AsyncIterator[Line]:
        """The peer's lines until it closes or dies. One reader. Raises PipeBroken."""
        loop = asyncio.get_running_loop()
        buffer = bytearray()
        while not self._gone or buffer:
            try:
                data = await loop.sock_recv(self._socket, _READ_BYTES)
            except (ConnectionError, OSError):
                return
            if not data:
                return
            buffer += data
            *lines, rest = bytes(buffer).split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                yield _decode(line)
            if len(buffer) > _LINE_BYTES_MAX:
                raise PipeBroken(f"a line of more than {_LINE_BYTES_MAX} bytes")

    async def flush(self, timeout_s: float = 1.0) -> None:
        """Waits until what was sent has left, at most `timeout_s`; for the last words of a process."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()

    def close(self) -> None:
        """Closes this end; the peer's reader ends. Call it when no reader is active here."""
        self._forget_writer()
        self._gone = True
        self._socket.close()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._waiting)
            del self._waiting[:sent]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._gone = True
            self._waiting.clear()

    def _write_later(self) -> None:
        self._write()
        if not self._waiting:
            self._idle.set()
            self._forget_writer()

    def _forget_writer(self) -> None:
        if self._socket.fileno() >= 0:
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                asyncio.get_running_loop().remove_writer(self._socket.fileno())


def _decode(line: bytes) -> Line:
    try:
        return msgspec.json.decode(line, type=Line)
    except msgspec.DecodeError as error:
        raise PipeBroken(f"wanted a JSON object a line: {error}") from error
