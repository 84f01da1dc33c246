"""Every method that this gateway answers over gRPC, in grpcio's form of a handler: both listeners are given these."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.errors import NotAllowed
from gateway.keys.doorkeeper import Doorkeeper
from gateway.keys.policy import METHODS
from gateway.repository import Repository
from gateway.request import Corridor
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.refusals import Context, guarded
from gateway.rpc.service import InferenceService
from gateway.rpc.standard import health_handler, reflection_handlers
from gateway.statistics import Statistics

SERVICE: Final = "inference.GRPCInferenceService"
_UNOFFERED: Final = {
    **dict.fromkeys(
        (f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")),
        "shared memory is not offered by this server: send the data with the request",
    ),
    "TraceSetting": "trace settings are not offered by this server",
    "LogSettings": "log settings are not offered by this server",
}
"""Methods of the published service that are answered UNIMPLEMENTED, in words."""


def handlers(
    corridor: Corridor,
    doorkeeper: Doorkeeper,
    statistics: Statistics | None = None,
    repository: Repository | None = None,
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Inference, health and reflection."""
    return (
        _inference(InferenceService(corridor, doorkeeper, statistics, repository)),
        _Unoffered(),
        health_handler(corridor, [SERVICE], doorkeeper),
        *reflection_handlers([SERVICE], _described()),
    )


def _inference(service: InferenceService) -> grpc.GenericRpcHandler:
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


def _described() -> DescriptorPool:
    """A pool for one server's reflection, holding our file; the module's own pool stays as it is."""
    pool = DescriptorPool()
    pool.AddSerializedFile(pb.DESCRIPTOR.serialized_pb)
    return pool
