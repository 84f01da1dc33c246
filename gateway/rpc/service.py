"""The methods of inference.GRPCInferenceService over the corridor."""
# ruff: noqa: ARG002  # gRPC calls every method with a request and a context

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from math import prod
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf.json_format import ParseDict

from gateway.errors import BodyTooLarge, GatewayError, NotReady
from gateway.keys.doorkeeper import Doorkeeper, Visitor, credential_of
from gateway.keys.scopes import Scope
from gateway.repository import Repository, pins_in
from gateway.request import Corridor, InferReply, ModelView
from gateway.rest.bodies import OFF_LOOP_BYTES
from gateway.rest.headers import Caller, earliest, read_headers, reply_headers
from gateway.rest.json_tensors import RANK_MAX
from gateway.rest.metadata import model_config, model_metadata, repository_index, server_metadata, warm_versions
from gateway.rest.open_inference import Decoded
from gateway.rest.stats import gathered, stats_document
from gateway.rest.v2 import request_of
from gateway.rpc import messages
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.refusals import Context, refuse, wire_of
from gateway.statistics import Statistics
from models.errors import ModelsError
from models.signature import Signature
from routing.records import PROTOCOLS

_V2_GRPC: Final = PROTOCOLS.index("v2-grpc")
STREAM_INFLIGHT_MAX: Final = 16
"""Requests of one stream that run at once; more wait unread, which is back-pressure on the caller."""
_NAMES_MAX: Final = 4096
"""Inputs, outputs and parameters that are looked at on the loop; each costs some microseconds."""
_OFF_LOOP_ELEMENTS: Final = 32_768
"""Typed contents above this are read on a thread: they cost some 50 ns an element, where raw ones cost nothing."""


class InferenceService:
    """Each method raises what `gateway.errors.translate` knows; the server turns that into a status."""

    def __init__(
        self,
        corridor: Corridor,
        doorkeeper: Doorkeeper,
        statistics: Statistics | None,
        repository: Repository | None = None,
    ) -> None:
        self._repository = repository
        self._corridor = corridor
        self._doorkeeper = doorkeeper
        self._statistics = statistics

    async def model_infer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        received_ns = time.monotonic_ns()
        caller = read_headers(_metadata(context))
        reply, decoded = await self._infer(request, context, caller, received_ns)
        await context.send_initial_metadata(reply_headers(reply))
        return messages.encode(reply, decoded)

    async def model_stream_infer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """One reply for each request, in their order; an error is a message of its own and the stream goes on.

        But for whoever may predict nothing: that call ends before a message is read. And behind what is no request nothing more is read:
        the call ends with that, once what stands before it is answered.
        """
        try:
            self._doorkeeper.recognise(visitor_of(context), "predict")
        except GatewayError as error:
            await refuse(context, error)
        caller = read_headers(_metadata(context))
        running: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue(STREAM_INFLIGHT_MAX)
        is_broken = False

        async def read() -> None:
            nonlocal is_broken
            try:
                async for request in requests:
                    await running.put(asyncio.create_task(self._stream_one(request, context, caller)))
            except Exception:  # noqa: BLE001  # a message that is none, or a call that is over: then nobody hears of it
                is_broken = True
            await running.put(None)

        reader = asyncio.create_task(read())
        task: asyncio.Task[pb.ModelStreamInferResponse] | None = None
        try:
            while (task := await running.get()) is not None:
                yield await task
            if is_broken:
                await context.abort(grpc.StatusCode.INTERNAL, "a message that does not parse")
        finally:  # the caller may have gone in the middle
            left: list[asyncio.Task[Any]] = [reader, *([task] if task is not None else [])]
            while not running.empty():
                left += [one for one in (running.get_nowait(),) if one is not None]
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def server_live(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._corridor.is_ready)

    async def model_ready(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        self._admit(context, "predict", request.name)
        try:
            return pb.ModelReadyResponse(ready=self._corridor.state(request.name, request.version or None).is_ready)
        except GatewayError as error:
            self._corridor.refused("", error)
            raise

    async def server_metadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        self._admit(context, "predict", None)
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    async def model_metadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        view = self._view(request.name, request.version, context)
        return ParseDict(model_metadata(view), pb.ModelMetadataResponse())

    async def model_config(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        view = self._view(request.name, request.version, context)
        return ParseDict({"config": model_config(view)}, pb.ModelConfigResponse())

    async def model_statistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        if request.name:
            views = [self._view(request.name, request.version, context)]
        else:
            views = self._views(context)
        entries = await gathered(self._statistics, views, request.version or None)
        return ParseDict(stats_document(entries), pb.ModelStatisticsResponse())

    async def repository_index(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        visitor = visitor_of(context)
        self._doorkeeper.admit(visitor, "predict", None)
        states = self._repository.index() if self._repository else warm_versions(self._corridor.views())
        seen = [one for one in states if self._doorkeeper.may(visitor, "predict", one.endpoint)]
        models = repository_index(seen, ready_only=request.ready)
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    async def repository_model_load(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        author = self._writer(request.model_name, context)
        parameters = {name: _value(parameter) for name, parameter in request.parameters.items()}
        await self._loader().load(request.model_name, pins_in(parameters), author)
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        self._writer(request.model_name, context)
        await self._loader().unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def _infer(
        self, request: pb.ModelInferRequest, context: Context, caller: Caller, received_ns: int
    ) -> tuple[InferReply, Decoded]:
        view = self._view(
            request.model_name, "", context
        )  # whether the version may be asked for is the corridor's question
        try:
            if view.body_bytes_max is not None and request.ByteSize() > view.body_bytes_max:
                raise BodyTooLarge(f"the message is larger than {view.body_bytes_max} bytes")
            if _is_light(request, view.signature):
                decoded = messages.decode(request, view.signature)
            else:
                decoded = await asyncio.to_thread(messages.decode, request, view.signature)
            asked = request_of(
                view.endpoint,
                decoded,
                caller,
                protocol=_V2_GRPC,
                received_ns=received_ns,
                version=request.model_version or None,
                may_explain=caller.explain and self._doorkeeper.may(visitor_of(context), "read", view.endpoint),
            )
        except (GatewayError, ModelsError) as error:
            self._corridor.refused(view.endpoint, error)
            raise
        asked.timeout_s = earliest(asked.timeout_s, context.time_remaining())
        return await self._corridor.infer(asked), decoded

    async def _stream_one(
        self, request: pb.ModelInferRequest, context: Context, caller: Caller
    ) -> pb.ModelStreamInferResponse:
        try:
            reply, decoded = await self._infer(request, context, caller, time.monotonic_ns())
            response = pb.ModelStreamInferResponse(infer_response=messages.encode(reply, decoded))
        except Exception as error:  # noqa: BLE001  # an error answers its own request, not the stream
            response = pb.ModelStreamInferResponse(error_message=wire_of(error).message)
            response.infer_response.id = request.id
            response.infer_response.model_name = request.model_name
        response.infer_response.parameters["triton_final_response"].bool_param = True
        return response

    def _view(self, endpoint: str, version: str, context: Context) -> ModelView:
        """The view of the model that a request names, for a caller who may see it."""
        self._admit(context, "predict", endpoint)
        try:
            return self._corridor.view(endpoint, version or None)
        except (GatewayError, ModelsError) as error:
            self._corridor.refused("", error)
            raise

    def _views(self, context: Context) -> list[ModelView]:
        """The endpoints that this caller may know of. Raises Unauthenticated, NotAllowed or Overloaded."""
        visitor = visitor_of(context)
        self._doorkeeper.admit(visitor, "predict", None)
        return [view for view in self._corridor.views() if self._doorkeeper.may(visitor, "predict", view.endpoint)]

    def _admit(self, context: Context, scope: Scope, endpoint: str | None) -> None:
        self._doorkeeper.admit(visitor_of(context), scope, endpoint)

    def _writer(self, endpoint: str, context: Context) -> str:
        """The name of the key that may change what is loaded for the endpoint."""
        self._admit(context, "model:write", endpoint)
        return self._doorkeeper.name(visitor_of(context))

    def _loader(self) -> Repository:
        if self._repository is None:
            raise NotReady("nobody loads models for this listener", "repository")
        return self._repository


def _is_light(request: pb.ModelInferRequest, signature: Signature) -> bool:
    """Whether a message may be read on the loop: raw numbers of any size, but not many strings, typed values, or names.

    Four million empty strings took seconds there, and a worker that hangs for five is killed.
    """
    inputs, raws = request.inputs, request.raw_input_contents
    if len(inputs) + len(request.outputs) + len(request.parameters) > _NAMES_MAX:
        return False
    if not raws:
        return not any(_is_large(one.shape) for one in inputs)
    if len(raws) != len(inputs) or all(spec.datatype != "BYTES" for spec in signature.inputs):
        return True  # the first is refused at a look
    return sum(map(len, raws)) <= OFF_LOOP_BYTES


def _is_large(shape: Sequence[int]) -> bool:
    """Shapes beyond the allowed rank are refused unread: the product of 20,000 dimensions takes a second."""
    return len(shape) <= RANK_MAX and prod(shape) > _OFF_LOOP_ELEMENTS


def _value(parameter: pb.ModelRepositoryParameter) -> object:
    """Whichever of its kinds a parameter has."""
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def visitor_of(context: Context) -> Visitor:
    """Who calls, with the key in the metadata."""
    shown = dict(_metadata(context))
    return Visitor(
        credential=credential_of(shown.get("authorization"), shown.get("x-api-key")), peer=_address(context.peer())
    )


def _metadata(context: Context) -> list[tuple[str, str]]:
    """Text metadata; gRPC hands out binary keys (`…-bin`) as bytes, and none of ours is one."""
    pairs: Any = context.invocation_metadata() or ()
    return [(name, value) for name, value in pairs if isinstance(value, str)]


def _address(peer: str) -> str | None:
    """The address in gRPC's name of a peer (`ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`); None for a Unix socket."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    return unquote(rest).rpartition(":")[0].strip("[]")
