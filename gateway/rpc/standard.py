"""The two standard services beside inference: grpc.health.v1.Health and server reflection (v1 and v1alpha)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.errors import EndpointUnknown, GatewayError
from gateway.keys.doorkeeper import Doorkeeper
from gateway.request import Corridor
from gateway.rpc.refusals import Context, refuse
from gateway.rpc.service import visitor_of

HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
WATCH_S: Final = 0.5
"""How often a watched status is looked at; a change is seen within this time."""


class HealthService:
    """Says what the corridor says, at the moment of the question. Services are the empty name, the served names, and endpoints."""

    def __init__(self, corridor: Corridor, services: Sequence[str], doorkeeper: Doorkeeper) -> None:
        self._corridor = corridor
        self._doorkeeper = doorkeeper
        self._services = frozenset(("", *services))

    async def check(self, request: Any, context: Context) -> Any:
        await self._admit(request.service, context)
        status = self._status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service or endpoint of this name")
        return health_pb2.HealthCheckResponse(status=status)

    async def watch(self, request: Any, context: Context) -> AsyncIterator[Any]:
        """A message now and at each change, until the caller goes, or this process does: who watches must not hold its end up."""
        await self._admit(request.service, context)
        told: int | None = None
        while not context.cancelled():
            is_ready, status = self._corridor.is_ready, self._status(request.service)
            if status is None:
                status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            if not is_ready:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "this process is draining")
            await asyncio.sleep(WATCH_S)

    async def _admit(self, service: str, context: Context) -> None:
        """Anybody may ask for the server; for an endpoint, whoever may predict with it."""
        if service not in self._services:
            try:
                self._doorkeeper.admit(visitor_of(context), "predict", service)
            except GatewayError as error:
                await refuse(context, error)

    def _status(self, service: str) -> int | None:
        """None where there is nothing of this name."""
        if service in self._services:
            is_ready = self._corridor.is_ready
        else:
            try:
                is_ready = self._corridor.state(service).is_ready
            except EndpointUnknown:
                return None
        response = health_pb2.HealthCheckResponse
        return int(response.SERVING if is_ready else response.NOT_SERVING)


def health_handler(corridor: Corridor, services: Sequence[str], doorkeeper: Doorkeeper) -> grpc.GenericRpcHandler:
    """The handler to add to a server."""
    service = HealthService(corridor, services, doorkeeper)
    read = health_pb2.HealthCheckRequest.FromString
    write = health_pb2.HealthCheckResponse.SerializeToString
    return grpc.method_handlers_generic_handler(
        HEALTH,
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                service.check, request_deserializer=read, response_serializer=write
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                service.watch, request_deserializer=read, response_serializer=write
            ),
        },
    )


def reflection_handlers(services: Sequence[str], pool: DescriptorPool) -> list[grpc.GenericRpcHandler]:
    """Reflection under both of its names: the messages are the same on the wire, and clients ask for v1 first.

    `pool` is completed with the files of the standard services, so that they can be described too.
    """
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    servicer = reflection.aio.ReflectionServicer([*services, HEALTH, REFLECTION[-1]], pool=pool)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in REFLECTION]
