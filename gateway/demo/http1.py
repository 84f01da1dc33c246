"""A lean HTTP/1.1 client for many small JSON calls: kept connections, one call at a time on each, parsed by httptools.

The applications share the machine with the gateway. httpx took 1.6 ms of processor time a call (measured here, on a busy machine), several times what the gateway
takes to answer it, so that July would have measured httpx; this takes 0.04 ms.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools

_LOST: Final = "the connection was closed before the answer was whole"


class CallFailed(Exception):
    """No answer: refused, closed, not HTTP, or not in time. The message says which."""


@dataclass(slots=True)
class Reply:
    """A whole answer; header names in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class HttpClient:
    """At most `connections` calls at a time to the listener at `url`; more wait their turn. For one event loop."""

    def __init__(self, url: str, *, connections: int, timeout_s: float) -> None:
        address = urlsplit(url)
        assert address.hostname is not None, "the gateway prints host and port"
        self._host, self._port = address.hostname, address.port or 80
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(connections)
        self._idle: deque[_Connection] = deque()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Posts JSON. Raises CallFailed."""
        lines = [f"POST {path} HTTP/1.1", f"host: {self._host}:{self._port}", "content-type: application/json"]
        lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        request = "\r\n".join((*lines, "", "")).encode("latin-1") + body
        async with self._places:
            connection = await self._connection()
            try:
                reply = await asyncio.wait_for(connection.call(request), self._timeout_s)
            except TimeoutError:
                connection.close()
                raise CallFailed(f"no answer within {self._timeout_s:g} s") from None
            except asyncio.CancelledError:
                connection.close()
                raise
            if connection.is_open:
                self._idle.append(connection)
            return reply

    def close(self) -> None:
        while self._idle:
            self._idle.popleft().close()

    async def _connection(self) -> "_Connection":
        while self._idle:
            kept = self._idle.pop()
            if kept.is_open:
                return kept
        try:
            _, made = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        except OSError as error:
            raise CallFailed(f"no connection: {error}") from error
        return made


class _Connection(asyncio.Protocol):
    """One connection; also httptools' listener, whose callbacks are the `on_…` methods."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Reply] | None = None
        self._parser: Any = None
        self._reply = Reply()
        self.is_open = False

    async def call(self, request: bytes) -> Reply:
        """Raises CallFailed."""
        assert self._transport is not None, "handed out once it is connected"
        if not self.is_open:
            raise CallFailed(_LOST)
        self._answered = asyncio.get_running_loop().create_future()
        self._reply = Reply()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._fail(_LOST if exc is None else f"{_LOST}: {exc}")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._reply.body += body

    def on_message_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()
        self.is_open = self.is_open and self._parser.should_keep_alive()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(self._reply)

    def _fail(self, problem: str) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(CallFailed(problem))
