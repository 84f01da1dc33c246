"""The gRPC listener of a worker, on grpcio's asyncio server."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.errors import NotAllowed
from gateway.keys.doorkeeper import Doorkeeper, OpenDoor
from gateway.keys.policy import METHODS
from gateway.repository import Repository
from gateway.request import Corridor
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.refusals import Context, guarded
from gateway.rpc.service import InferenceService
from gateway.rpc.standard import health_handler, reflection_handlers
from gateway.settings import Settings
from gateway.statistics import Statistics

SERVICE: Final = "inference.GRPCInferenceService"
_OPEN_DOOR: Final = OpenDoor()
_UNOFFERED: Final = {
    **dict.fromkeys(
        (f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")),
        "shared memory is not offered by this server: send the data with the request",
    ),
    "TraceSetting": "trace settings are not offered by this server",
    "LogSettings": "log settings are not offered by this server",
}
"""Methods of the published service that are answered UNIMPLEMENTED, in words."""


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
    server.add_generic_rpc_handlers(
        (
            inference_handler(InferenceService(corridor, doorkeeper, statistics, repository)),
            _Unoffered(),
            health_handler(corridor, [SERVICE], doorkeeper),
            *reflection_handlers([SERVICE], _own_pool()),
        )
    )
    port = (
        server.add_secure_port(address, credentials)
        if (credentials := _tls(settings))
        else server.add_insecure_port(address)
    )
    await server.start()
    return RpcServer(server, port)


def inference_handler(service: InferenceService) -> grpc.GenericRpcHandler:
    """Every method of the proto file, wired by its name."""
    unary: dict[str, Callable[[Any, Context], Awaitable[Any]]] = {
        "ServerLive": service.server_live,
        "ServerReady": service.server_ready,
        "ModelReady": service.model_ready,
        "ServerMetadata": service.server_metadata,
        "ModelMetadata": service.model_metadata,
        "ModelInfer": service.model_infer,
        "ModelConfig": service.model_config,
        "ModelStatistics": service.model_statistics,
        "RepositoryIndex": service.repository_index,
        "RepositoryModelLoad": service.repository_model_load,
        "RepositoryModelUnload": service.repository_model_unload,
    }
    handlers = {}
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        read = getattr(pb, method.input_type.name).FromString
        write = getattr(pb, method.output_type.name).SerializeToString
        if f"/{SERVICE}/{method.name}" not in METHODS:
            unary[method.name] = _undeclared
        if method.name == "ModelStreamInfer":
            handlers[method.name] = grpc.stream_stream_rpc_method_handler(
                service.model_stream_infer, request_deserializer=read, response_serializer=write
            )
        else:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                guarded(unary[method.name]), request_deserializer=read, response_serializer=write
            )
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


async def _undeclared(request: Any, context: Context) -> NoReturn:  # noqa: ARG001  # gRPC calls every method with both
    """A method that nobody has said who may call: nobody may."""
    raise NotAllowed("this method is open to nobody: it has no scope")


class _Unoffered(grpc.GenericRpcHandler):
    """Refuses in words what the published service has and this one does not."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        service, _, method = handler_call_details.method.strip("/").partition("/")
        if service != SERVICE or method not in _UNOFFERED:
            return None

        async def refuse(_: bytes, context: Context) -> bytes:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method}: {_UNOFFERED[method]}")
            raise AssertionError("abort returns never")

        return grpc.unary_unary_rpc_method_handler(refuse)


def _own_pool() -> DescriptorPool:
    """A pool for one server's reflection, holding our file; the module's own pool stays as it is."""
    pool = DescriptorPool()
    pool.AddSerializedFile(pb.DESCRIPTOR.serialized_pb)
    return pool


def _tls(settings: Settings) -> grpc.ServerCredentials | None:
    pair = settings.tls.pair("grpc")
    if pair is None:
        return None
    certificate, key = (Path(name).read_bytes() for name in pair)
    return grpc.ssl_server_credentials([(key, certificate)])
