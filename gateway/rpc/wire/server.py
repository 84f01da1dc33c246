"""The gRPC listener of a worker, on the wire door: the same methods on one port as grpcio's server answers, and the same handle."""

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from typing import Final

from gateway.acceptor import Acceptor
from gateway.dataplane import Dataplane
from gateway.keys.doorkeeper import Doorkeeper, OpenDoor
from gateway.repository import Repository
from gateway.request import Corridor
from gateway.rpc.handlers import handlers
from gateway.rpc.wire.protocol import GrpcProtocol
from gateway.rpc.wire.shared import Shared
from gateway.settings import Settings, Tls
from gateway.statistics import Statistics
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

_SWEEP_S: Final = 0.5
_END_PAUSE_S: Final = 0.02
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""With TLS 1.2 most suites are forbidden for HTTP/2 (RFC 9113, section 9.2.2); these are not. TLS 1.3 has its own."""
_OPEN_DOOR: Final = OpenDoor()


class WireServer:
    """A server that listens. `port` is the one it got, also where 0 was asked for."""

    def __init__(self, sock: socket.socket, shared: Shared, tls: ssl.SSLContext | None) -> None:
        self.port: int = sock.getsockname()[1]
        self._shared = shared
        loop = asyncio.get_running_loop()
        self._acceptor = Acceptor(
            sock,
            lambda: GrpcProtocol(shared, loop, is_secure=tls is not None),
            lambda: len(shared.connections),
            connections_max=shared.limits.connections_max,
            handshake_s=shared.limits.header_s,
            tls=tls,
        )
        self._acceptor.open()
        self._sweeping = loop.create_task(self._sweep(), name="grpc-sweep")

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._shared.connections)

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, lets those in flight finish within `grace_s`, then cuts what is left."""
        deadline_s = time.monotonic() + grace_s
        await self._acceptor.close(grace_s)
        for connection in list(self._shared.connections):
            connection.shutdown()
        while self._shared.connections and time.monotonic() < deadline_s:  # noqa: ASYNC110  # as in the REST listener
            await asyncio.sleep(_END_PAUSE_S)
        late = list(self._shared.connections)
        if late:
            log.warning("connections_cut", count=len(late))
        for connection in late:
            connection.abort()
        await _cancelled(self._sweeping)
        for task in list(self._shared.tasks):
            await _cancelled(task)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = time.monotonic()
            for connection in list(self._shared.connections):
                try:
                    connection.sweep(now_s)
                except Exception as error:  # noqa: BLE001  # a mistake of ours must not leave all others without time-outs
                    log.error("sweep_failed", error=error)
                    connection.abort()


async def serve(
    plane: Dataplane,
    corridor: Corridor,
    sock: socket.socket,
    settings: Settings,
    *,
    doorkeeper: Doorkeeper = _OPEN_DOOR,
    statistics: Statistics | None = None,
    repository: Repository | None = None,
) -> WireServer:
    """Listens on `sock`, which is bound already and belongs to the server from now on."""
    shared = Shared(plane, handlers(corridor, doorkeeper, statistics, repository), settings.limits, doorkeeper)
    return WireServer(sock, shared, tls_context(settings.tls))


def tls_context(tls: Tls) -> ssl.SSLContext | None:
    """What RFC 9113, section 9.2 asks of TLS; None for plain text. Raises OSError where the files cannot be read."""
    pair = tls.pair("grpc")
    if pair is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(*pair)
    ca = tls.client_ca("grpc")
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
