"""A model that another server runs: the client of the Open Inference Protocol's gRPC form. The shadow process opens it for mirrors.

It has the interface of `models.runtime.remote.RemoteModel`, and stands here because this is the one room of grpcio.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import grpc

from gateway.rest.raw_tensors import read_raw, write_raw
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.tensors import read_contents
from models.errors import InputInvalid
from models.runtime.http_server import NO_HEADERS
from models.runtime.target import (
    REPLY_BYTES_MAX,
    Access,
    BodyTooLarge,
    InputRefused,
    Named,
    RemoteAnswer,
    RemoteFailed,
    RemoteTimeout,
    Target,
)
from models.tensors import Array, datatype_of

_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_TOO_LARGE: Final = "larger than max"
"""What servers built on the gRPC library say of a message above their bound, under the status that also means overload."""


class GrpcModel:
    """One model of one server, on one connection. Belongs to one event loop; calls may overlap.

    The connection goes to the very address that was resolved and allowed; no proxies, no retries, none of the caller's metadata.
    https:// in the address means TLS.
    """

    def __init__(self, url: str, model: str, access: Access) -> None:
        """Raises RemoteRefused for a target that is not allowed."""
        self._target = Target(url, allow=access.allow, clock=access.clock)
        self._model = model
        self._timeout_s = access.timeout_s
        self._metadata = [] if access.token is None else [("authorization", f"Bearer {access.token}")]
        self._channel: grpc.aio.Channel | None = None
        self._address = ""

    async def infer(
        self, inputs: Sequence[Named], *, body_bytes_max: int, headers: Mapping[str, str] = NO_HEADERS
    ) -> RemoteAnswer:
        """One call. Raises RemoteTimeout, RemoteRefused, InputRefused, BodyTooLarge or, for all else, RemoteFailed."""
        request = encode(self._model, inputs)
        if request.ByteSize() > body_bytes_max:
            raise BodyTooLarge(f"remote input: wanted at most {body_bytes_max} bytes, got {request.ByteSize()}")
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await (await self._call())(request, metadata=[*self._metadata, *headers.items()])
        except TimeoutError as error:
            raise RemoteTimeout(f"remote {self._target.host}: no answer within {self._timeout_s} s") from error
        except grpc.aio.AioRpcError as error:
            self._target.forget()
            raise _failure(self._target.host, error) from error
        except OSError as error:
            self._target.forget()
            raise RemoteFailed(f"remote {self._target.host}: {type(error).__name__}") from error
        return decode(reply)

    async def close(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            await self._channel.close()

    async def _call(self) -> "grpc.aio.UnaryUnaryMultiCallable[pb.ModelInferRequest, pb.ModelInferResponse]":
        """ModelInfer on a connection to where the name points now."""
        address = await self._target.address()
        if self._channel is None or address != self._address:
            if self._channel is not None:
                await self._channel.close()
            self._channel, self._address = self._open(address), address
        return self._channel.unary_unary(
            _METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )

    def _open(self, address: str) -> grpc.aio.Channel:
        target = self._target
        options = [
            ("grpc.max_receive_message_length", REPLY_BYTES_MAX),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.default_authority", target.authority),
            ("grpc.primary_user_agent", "runoff-shadow"),
        ]
        where = f"ipv6:[{address}]:{target.port}" if ":" in address else f"ipv4:{address}:{target.port}"
        if not target.is_tls:
            return grpc.aio.insecure_channel(where, options)
        options.append(("grpc.ssl_target_name_override", target.host))
        return grpc.aio.secure_channel(where, grpc.ssl_channel_credentials(), options)


def encode(model: str, inputs: Iterable[Named]) -> pb.ModelInferRequest:
    """An inference request with raw contents, which carry every value as it is."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in inputs:
        request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        request.raw_input_contents.append(write_raw(array))
    return request


def decode(reply: pb.ModelInferResponse) -> RemoteAnswer:
    """Reads an inference reply; raises RemoteFailed where it is not one."""
    raw = reply.raw_output_contents
    if raw and len(raw) != len(reply.outputs):
        raise RemoteFailed(f"remote answer: {len(reply.outputs)} outputs and {len(raw)} raw contents")
    try:
        outputs = [
            (tensor.name, _array(tensor, raw[place] if raw else None)) for place, tensor in enumerate(reply.outputs)
        ]
    except (InputInvalid, ValueError) as error:
        raise RemoteFailed("remote answer: an output's contents do not fit its shape") from error
    return RemoteAnswer(reply.model_version, outputs)


def _array(tensor: pb.ModelInferResponse.InferOutputTensor, raw: bytes | None) -> Array:
    shape = list(tensor.shape)
    if any(length < 0 for length in shape):
        raise ValueError("negative length")
    if raw is not None:
        return read_raw(tensor.name, tensor.datatype, shape, raw)
    return read_contents(tensor.name, tensor.datatype, shape, tensor.contents)


def _failure(host: str, error: grpc.aio.AioRpcError) -> RemoteFailed:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RemoteTimeout(f"remote {host}: deadline exceeded")
    if code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE} or (
        code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details and "Received" in details
    ):
        return InputRefused(f"remote {host}: {code.name}")
    return RemoteFailed(f"remote {host}: {code.name}")
