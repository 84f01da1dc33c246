"""Accepts the connections of a door: within a bound, held up by nobody's TLS handshake, and forgetting nobody at the end."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.telemetry.log import EventLog

log = EventLog(__name__)

_BACKLOG: Final = 2048
_ACCEPTS_A_TURN: Final = 64
_FULL_PAUSE_S: Final = 0.01
_TROUBLE_PAUSE_S: Final = 0.1
_LATE_HANDSHAKE_S: Final = 1.0
"""What a handshake gets that is under way when the door closes."""


class Acceptor:
    """At most `connections_max` at once, those in their handshake included; more wait in the kernel. Belongs to the event loop.

    `protocol` makes what answers a connection, `connected` counts those that are open.
    """

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connected: Callable[[], int],
        *,
        connections_max: int,
        handshake_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`handshake_s` is what a TLS handshake may last; `tls` None: plain text."""
        self._socket = sock
        self._protocol = protocol
        self._connected = connected
        self._connections_max = connections_max
        self._handshake_s = handshake_s
        self._tls = tls
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def open(self) -> None:
        """Listens, and accepts from now on."""
        self._socket.setblocking(False)
        self._socket.listen(_BACKLOG)
        self._resume()

    async def close(self, within_s: float) -> None:
        """Takes what is queued and listens no more. On return every connection that was to come is open, or let go."""
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().remove_reader(self._socket)
        with suppress(OSError):  # BlockingIOError: nobody is queued any more
            while True:
                self._welcome(self._socket.accept()[0])
        self._socket.close()
        if self._connecting:
            _, late = await asyncio.wait(self._connecting, timeout=min(within_s, _LATE_HANDSHAKE_S))
            for task in late:
                task.cancel()
            await asyncio.gather(*late)

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
            if self._connected() + len(self._connecting) >= self._connections_max:
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
        task = asyncio.get_running_loop().create_task(self._connect(connection), name="connecting")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        """May last as long as a handshake may: each has a task of its own."""
        connection.setblocking(False)
        with suppress(OSError):  # a Unix socket has no such option
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_s if self._tls is not None else None,
            )
        except (OSError, asyncio.CancelledError):  # it left, its handshake failed, or the door closes: nobody to tell
            connection.close()
