"""Asks the features process, from a worker for the rows of a request, from control for what a service consists of.

One connection a process, made when it is needed. What is asked within a turn of the loop leaves in one write.
"""

import asyncio
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from gateway.features.frames import (
    SOCKET,
    Answered,
    Ask,
    Asked,
    Cutter,
    Describe,
    Described,
    Failed,
    Found,
    FoundColumn,
    FrameInvalid,
    framed,
    read_answered,
)

PATH_BYTES_MAX: Final = 100
"""A Unix socket's address holds 108 bytes; a longer one is reached by way of its folder."""
_RETRY_S: Final = 0.1


class StoreSilent(Exception):
    """No answer within the time."""


class StoreFailed(Exception):
    """No answer will come; `code` as in `frames.Failed`, or `down` where there is no features process."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class FeatureClient:
    """Belongs to one event loop. `folder` is where the socket of the features process lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        self._open: dict[int, asyncio.Future[Answered]] = {}
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried_at = -_RETRY_S

    async def ask(self, service: str, keys: dict[str, list[Any]], timeout_s: float) -> dict[str, FoundColumn]:
        """The features of each row. Raises StoreSilent, StoreFailed, and ValueError for keys that cannot be sent."""
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        answer = await self._asked(lambda number: Ask(number, service, keys, deadline_ns), timeout_s)
        if not isinstance(answer, Found):
            raise StoreFailed("unavailable", "the features process answered something else")
        return answer.columns

    async def describe(self, service: str, timeout_s: float) -> Described:
        """What a service consists of; it is then ready to be asked. Raises StoreSilent, StoreFailed."""
        answer = await self._asked(lambda number: Describe(number, service), timeout_s)
        if not isinstance(answer, Described):
            raise StoreFailed("unavailable", "the features process answered something else")
        return answer

    async def close(self) -> None:
        """Ends the connection; who still waits gets StoreFailed."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._transport is not None:
            self._transport.abort()
        self._lost()

    async def _asked(self, message: Callable[[int], Asked], timeout_s: float) -> Answered:
        number = next(self._numbers)
        frame = framed(message(number))
        waiting: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._open[number] = waiting
        try:
            async with asyncio.timeout(timeout_s):
                if self._transport is None:
                    await self._connected()
                self._send(frame)
                answer = await waiting
        except TimeoutError:
            raise StoreSilent(f"the feature store did not answer within {timeout_s * 1000:.0f} ms") from None
        finally:
            del self._open[number]
        if isinstance(answer, Failed):
            raise StoreFailed(answer.code, answer.message)
        return answer

    def _send(self, frame: bytes) -> None:
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(frame)

    def _flush(self) -> None:
        frames, self._outbox = self._outbox, []
        if self._transport is not None:
            self._transport.write(b"".join(frames))

    async def _connected(self) -> None:
        """One attempt for all that wait for it; soon after a failed one there is none, so that a store that is down costs little."""
        if self._connecting is None:
            now = time.monotonic()
            if now - self._tried_at < _RETRY_S:
                raise StoreFailed("down", "the features process cannot be reached")
            self._tried_at = now
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(_heard)  # also when all who waited for it have given up
        try:
            await asyncio.shield(self._connecting)
        except OSError as error:
            raise StoreFailed("down", "the features process cannot be reached") from error

    async def _connect(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            with SocketPath(self._folder) as path:
                self._transport, _ = await loop.create_unix_connection(lambda: _Line(self._hear, self._lost), path)
        finally:
            self._connecting = None

    def _hear(self, payload: bytes) -> None:
        answer = read_answered(payload)
        waiting = self._open.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _lost(self) -> None:
        self._transport = None
        self._outbox.clear()
        for number, waiting in self._open.items():
            if not waiting.done():
                waiting.set_result(Failed(number, "down", "the features process has gone"))


def _heard(done: "asyncio.Task[None]") -> None:
    """Takes note of a failure, so that nobody else has to."""
    if not done.cancelled():
        done.exception()


class _Line(asyncio.Protocol):
    """A connection to the features process."""

    def __init__(self, hear: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._hear = hear
        self._told_lost = lost
        self._cutter = Cutter()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._cutter.cut(data):
                self._hear(payload)
        except (FrameInvalid, ValueError):  # another release on the other side, for as long as it takes to replace it
            assert self._transport is not None
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._told_lost()


class SocketPath:
    """The address of the socket in a folder, while the context is open; also for folders whose names are longer than an address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None

    def __enter__(self) -> str:
        path = str(self._folder / SOCKET)
        if len(os.fsencode(path)) <= PATH_BYTES_MAX:
            return path
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._fd}/{SOCKET}"

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
