"""The REST listener of a worker: accepts on an inherited socket, hands each connection to the protocol, and ends them in good order.

uvicorn's protocol and ASGI glue without its server: that one cannot stop accepting at a bound (it answers 503 and counts idle
connections, RELIABILITY.md B1), and at its end it resets what is queued in the socket (24 of 40 connections, PERFORMANCE.md 8).
"""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Any, Final

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.settings import Settings
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

_ACCEPTS_A_TURN: Final = 64
_FULL_PAUSE_S: Final = 0.01
_TROUBLE_PAUSE_S: Final = 0.1
_LAST_WORDS_S: Final = 0.3
"""How long a kept connection may take to ask once more and be told that it ends, and a new one to say what it wants."""
_END_PAUSE_S: Final = 0.02


class RestListener:
    """Connections of one worker, at most `limits.connections_max`; more wait in the kernel. Belongs to the event loop."""

    def __init__(
        self, app: ASGIApp, protocol: type[asyncio.Protocol] | None, sock: socket.socket, settings: Settings
    ) -> None:
        """`protocol` None: plain ASGI, by uvicorn's own."""
        certificate, key = settings.tls.pair("rest") or (None, None)
        self._config = Config(
            app,
            http=protocol or "httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="info",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(settings.limits.idle_s),
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._config.load()
        self._state = ServerState()
        self._socket = sock
        self._connections_max = settings.limits.connections_max
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closing = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._state.connections)

    def open(self) -> None:
        """Listens, and accepts from now on."""
        self.tick()
        self._socket.setblocking(False)
        self._socket.listen(self._config.backlog)
        self._resume()

    def tick(self) -> None:
        """About twice a second: the date that replies carry, and the time-outs of connections whose protocol leaves them to us."""
        date = formatdate(time.time(), usegmt=True).encode()
        self._state.default_headers = [(b"date", date), *self._config.encoded_headers]
        now = time.monotonic()
        for connection in self._open():
            sweep: Callable[[float], None] | None = getattr(connection, "sweep", None)
            if sweep is not None:
                sweep(now)

    async def close(self, within_s: float) -> None:
        """Takes what is queued, stops listening, lets every request in flight finish, and cuts what is left after `within_s`."""
        deadline = time.monotonic() + within_s
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().remove_reader(self._socket)
        with suppress(OSError):  # BlockingIOError: nobody is queued any more
            while True:
                self._welcome(self._socket.accept()[0])
        self._socket.close()
        await asyncio.gather(*self._connecting)
        for connection in self._open():
            leave: Callable[[], None] | None = getattr(connection, "leave", None)
            if leave is not None:
                leave()
        await self._ended(min(deadline, time.monotonic() + _LAST_WORDS_S))
        for connection in self._open():
            connection.shutdown()
        await self._ended(deadline)
        late = self._open()
        if late:
            log.warning("connections_cut", count=len(late))
        for connection in late:
            connection.transport.abort()

    def _open(self) -> list[Any]:
        return list(self._state.connections)

    async def _ended(self, deadline: float) -> None:
        """Waits until all connections have ended, or until then."""
        while (self._state.connections or self._state.tasks) and time.monotonic() < deadline:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(_END_PAUSE_S)

    def _resume(self) -> None:
        if not self._is_closing:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _pause(self, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.call_later(pause_s, self._resume)

    def _accept(self) -> None:
        """Some of what is queued. A plain function: a task that awaits `sock_accept` loses a connection when it is cancelled just then."""
        for _ in range(_ACCEPTS_A_TURN):
            if len(self._state.connections) + len(self._connecting) >= self._connections_max:
                self._pause(_FULL_PAUSE_S)
                return
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptors, no memory, or a caller that left while queued
                log.warning("accept_failed", problem=str(error))
                self._pause(_TROUBLE_PAUSE_S)
                return
            self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self._config.ssl)
        except OSError:  # it left, or its TLS handshake failed: nobody to tell
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., Any] = self._config.http_protocol_class
        protocol: asyncio.Protocol = make(config=self._config, server_state=self._state, app_state={}, _loop=None)
        return protocol
