"""The REST listener of a worker: accepts on an inherited socket, hands each connection to the protocol, and ends them in good order.

uvicorn's protocol and ASGI glue without its server: that one cannot stop accepting at a bound (it answers 503 and counts idle
connections, RELIABILITY.md B1), and at its end it resets what is queued in the socket (24 of 40 connections, PERFORMANCE.md 8).
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.acceptor import Acceptor
from gateway.settings import Settings
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

_LAST_WORDS_S: Final = 0.3
"""How long a kept connection may take to ask once more and be told that it ends, and a new one to say what it wants."""
_END_PAUSE_S: Final = 0.02


class Plain(HttpToolsProtocol):
    """uvicorn's own protocol, but that trailers are no headers: a proxy before us would have looked for those in the head."""

    _is_head = True

    def on_message_begin(self) -> None:
        self._is_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_head = False
        super().on_headers_complete()


class RestListener:
    """Connections of one worker, at most `limits.connections_max`; more wait in the kernel. Belongs to the event loop."""

    def __init__(
        self, app: ASGIApp, protocol: type[asyncio.Protocol] | None, sock: socket.socket, settings: Settings
    ) -> None:
        """`protocol` None: plain ASGI, by uvicorn's own."""
        certificate, key = settings.tls.pair("rest") or (None, None)
        ca = settings.tls.client_ca("rest")
        self._config = Config(
            app,
            http=protocol or Plain,
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
            ssl_ca_certs=ca,
            ssl_cert_reqs=ssl.CERT_NONE if ca is None else ssl.CERT_REQUIRED,
        )
        self._config.load()
        self._state = ServerState()
        self._acceptor = Acceptor(
            sock,
            self._protocol,
            lambda: len(self._state.connections),
            connections_max=settings.limits.connections_max,
            handshake_s=settings.limits.header_s,
            tls=self._config.ssl,
        )

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._state.connections)

    def open(self) -> None:
        """Listens, and accepts from now on."""
        self.tick()
        self._acceptor.open()

    def tick(self) -> None:
        """About twice a second: the date that replies carry, and the time-outs of connections whose protocol leaves them to us."""
        date = formatdate(time.time(), usegmt=True).encode()
        self._state.default_headers = [(b"date", date), *self._config.encoded_headers]
        now = time.monotonic()
        for connection in self._open():
            sweep: Callable[[float], None] | None = getattr(connection, "sweep", None)
            if sweep is not None:
                try:
                    sweep(now)
                except Exception as error:  # noqa: BLE001  # a mistake of ours must not end the worker, nor leave all others without time-outs
                    log.error("sweep_failed", error=error)
                    connection.transport.abort()

    async def close(self, within_s: float) -> None:
        """Takes what is queued, stops listening, lets every request in flight finish, and cuts what is left after `within_s`."""
        deadline = time.monotonic() + within_s
        await self._acceptor.close(within_s)
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

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., Any] = self._config.http_protocol_class
        protocol: asyncio.Protocol = make(config=self._config, server_state=self._state, app_state={}, _loop=None)
        return protocol
