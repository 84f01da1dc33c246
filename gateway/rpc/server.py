"""The gRPC listener of a worker, on grpcio's asyncio server."""

from pathlib import Path
from typing import Final

import grpc

from gateway.keys.doorkeeper import Doorkeeper, OpenDoor
from gateway.repository import Repository
from gateway.request import Corridor
from gateway.rpc.handlers import handlers
from gateway.settings import Settings
from gateway.statistics import Statistics

_OPEN_DOOR: Final = OpenDoor()


class RpcServer:
    """A server that listens. `port` is the one it got, also where 0 was asked for."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, lets those in flight finish within `grace_s`, then cancels them."""
        await self._server.stop(grace_s)


async def serve(
    corridor: Corridor,
    address: str,
    settings: Settings,
    *,
    doorkeeper: Doorkeeper = _OPEN_DOOR,
    statistics: Statistics | None = None,
    repository: Repository | None = None,
) -> RpcServer:
    """Listens on `address` (`host:port`, port 0 picks one) with SO_REUSEPORT, so that several workers share a port.

    Raises RuntimeError where the address cannot be bound.
    """
    limits = settings.limits
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.body_bytes_binary_max),
            ("grpc.max_send_message_length", -1),  # what a model answers is bounded by what it was asked
            ("grpc.max_metadata_size", limits.header_bytes_max),
            ("grpc.max_concurrent_streams", min(limits.inflight_max, 1024)),
            ("grpc.max_connection_idle_ms", int(limits.idle_s * 1000)),
            ("grpc.so_reuseport", 1),
        ],
        maximum_concurrent_rpcs=limits.inflight_max,
    )
    server.add_generic_rpc_handlers(handlers(corridor, doorkeeper, statistics, repository))
    port = (
        server.add_secure_port(address, credentials)
        if (credentials := _tls(settings))
        else server.add_insecure_port(address)
    )
    await server.start()
    return RpcServer(server, port)


def _tls(settings: Settings) -> grpc.ServerCredentials | None:
    pair = settings.tls.pair("grpc")
    if pair is None:
        return None
    certificate, key = (Path(name).read_bytes() for name in pair)
    ca = settings.tls.client_ca("grpc")
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=None if ca is None else Path(ca).read_bytes(),
        require_client_auth=ca is not None,
    )
