"""The gRPC client of mirrors against our own server, and against servers that refuse, hang and answer wrongly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.remote import GrpcModel, decode
from models.runtime.target import (
    REPLY_BYTES_MAX,
    Access,
    BodyTooLarge,
    InputRefused,
    RemoteFailed,
    RemoteRefused,
    RemoteTimeout,
)

LOOPBACK = ("127.0.0.1", "localhost", "169.254.169.254")
ROW = [("x", np.array([[1.0, 2.0, 0.5, 0.25]], np.float32))]
Behave = Callable[[pb.ModelInferRequest, Any], Awaitable[pb.ModelInferResponse]]


@asynccontextmanager
async def client(url: str, model: str = "phishing", **fields: Any) -> AsyncIterator[GrpcModel]:
    remote = GrpcModel(url, model, Access(**({"allow": LOOPBACK} | fields)))
    try:
        yield remote
    finally:
        await remote.close()


@asynccontextmanager
async def serving(behave: Behave) -> AsyncIterator[str]:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        behave,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)


def aborting(code: grpc.StatusCode, details: str = "no") -> Behave:
    async def behave(request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        await context.abort(code, details)

    return behave


def saying(reply: pb.ModelInferResponse) -> Behave:
    async def behave(request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        return reply

    return behave


async def infer(url: str, **fields: Any) -> Any:
    async with client(url, **fields) as remote:
        return await remote.infer(ROW, body_bytes_max=1 << 20)


async def test_our_own_server_answers_its_outputs_by_name_with_the_version(server, corridor) -> None:
    answer = await infer(f"http://127.0.0.1:{server.port}")
    assert answer.version == "3"
    label, probabilities = dict(answer.outputs)["label"], dict(answer.outputs)["probabilities"]
    assert (label.dtype, label.tolist()) == (np.int64, [1])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.1, np.nan, np.inf]], np.float32),
        np.array([[2**63 - 1, -(2**63)]], np.int64),
        np.array([[True, False]]),
        np.array([[1.5]], np.float16),
        np.array([["naïve", ""], ["日本", "x" * 300]], dtype=object),
    ],
)
async def test_every_value_arrives_and_returns_as_it_is(server, array: np.ndarray) -> None:
    names = {"float32": "fp32", "int64": "int64", "bool": "bool", "float16": "fp16", "object": "bytes"}
    async with client(f"http://127.0.0.1:{server.port}", f"echo-{names[array.dtype.name]}") as remote:
        ((name, got),) = (await remote.infer([("x", array)], body_bytes_max=1 << 20)).outputs
    assert (name, got.dtype) == ("y", array.dtype)
    np.testing.assert_array_equal(got, array)


async def test_an_input_that_the_server_refuses_is_told_apart_from_a_failing_server(server) -> None:
    url = f"http://127.0.0.1:{server.port}"
    async with client(url) as remote:
        with pytest.raises(InputRefused):
            await remote.infer([("x", np.zeros((1, 7), np.float32))], body_bytes_max=1 << 20)
        with pytest.raises(InputRefused):  # above the server's own bound of a message
            await remote.infer([("x", np.zeros((20_000, 4), np.float32))], body_bytes_max=1 << 20)
    async with client(url, "unknown") as remote:
        with pytest.raises(RemoteFailed, match="NOT_FOUND") as caught:
            await remote.infer(ROW, body_bytes_max=1 << 20)
    assert type(caught.value) is RemoteFailed


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InputRefused),
        (grpc.StatusCode.DEADLINE_EXCEEDED, RemoteTimeout),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, RemoteFailed),
        (grpc.StatusCode.UNAVAILABLE, RemoteFailed),
        (grpc.StatusCode.INTERNAL, RemoteFailed),
        (grpc.StatusCode.UNAUTHENTICATED, RemoteFailed),
    ],
)
async def test_a_status_becomes_the_trouble_that_it_tells_of(code: grpc.StatusCode, error: type[Exception]) -> None:
    async with serving(aborting(code)) as url:
        with pytest.raises(error) as caught:
            await infer(url)
    assert type(caught.value) is error


async def test_a_server_that_hangs_costs_the_time_out_and_no_more() -> None:
    async def hang(request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(hang) as url:
        with pytest.raises(RemoteTimeout):
            await infer(url, timeout_s=0.2)


async def test_a_call_carries_its_headers_and_the_token_and_asks_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen: list[dict[str, str]] = []

    async def note(request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        seen.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        return pb.ModelInferResponse()

    async with serving(note) as url, client(url, token="secret") as remote:
        await remote.infer(ROW, body_bytes_max=1 << 20, headers={"x-of-this-call": "1"})
    assert (seen[0]["x-of-this-call"], seen[0]["authorization"]) == ("1", "Bearer secret")
    assert seen[0]["user-agent"].startswith("runoff-shadow")


def _output(shape: list[int], datatype: str = "FP32", **contents: list[float]) -> pb.ModelInferResponse:
    reply = pb.ModelInferResponse(model_version="1")
    reply.outputs.add(name="y", datatype=datatype, shape=shape, contents=pb.InferTensorContents(**contents))
    return reply


def test_typed_contents_are_read_too() -> None:
    ((_, array),) = decode(_output([2, 1], fp32_contents=[1.5, 2.5])).outputs
    assert array.tolist() == [[1.5], [2.5]]


@pytest.mark.parametrize(
    "reply",
    [
        _output([3], fp32_contents=[1.0]),
        _output([-1], fp32_contents=[1.0]),
        _output([1], "BF99", fp32_contents=[1.0]),
        pb.ModelInferResponse(raw_output_contents=[b"1234"]),
        pb.ModelInferResponse(
            outputs=[pb.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[2])],
            raw_output_contents=[b"1234"],
        ),
        pb.ModelInferResponse(
            outputs=[pb.ModelInferResponse.InferOutputTensor(name="y", datatype="BYTES", shape=[1])],
            raw_output_contents=[b"\xff\xff\xff\xff"],
        ),
    ],
)
def test_garbage_is_a_failure_and_never_another_exception(reply: pb.ModelInferResponse) -> None:
    with pytest.raises(RemoteFailed):
        decode(reply)


async def test_an_answer_without_end_is_cut_off() -> None:
    huge = pb.ModelInferResponse(raw_output_contents=[b" " * (REPLY_BYTES_MAX + 1)])
    async with serving(saying(huge)) as url:
        with pytest.raises(RemoteFailed):
            await infer(url)


async def test_a_body_above_the_bound_is_not_sent() -> None:
    async with client("http://127.0.0.1:1") as remote:
        with pytest.raises(BodyTooLarge):
            await remote.infer([("x", np.zeros((100, 4), np.float32))], body_bytes_max=200)


async def test_a_server_that_is_not_there_is_a_failure_and_one_that_comes_back_is_found() -> None:
    async with serving(saying(pb.ModelInferResponse())) as url:
        pass
    async with client(url, timeout_s=2.0) as remote:
        with pytest.raises(RemoteFailed):
            await remote.infer(ROW, body_bytes_max=1 << 20)


def test_a_host_that_is_not_allowed_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(RemoteRefused):
        GrpcModel("http://example.org:8081", "m", Access(allow=LOOPBACK))


async def test_link_local_is_refused_after_resolution_even_where_it_is_allowed_by_name() -> None:
    with pytest.raises(RemoteRefused):
        await infer("http://169.254.169.254:8081")


async def test_a_name_is_connected_to_as_it_was_resolved(server) -> None:
    async with client(f"http://localhost:{server.port}") as remote:
        with suppress(RemoteFailed):  # where the name means ::1 first
            await remote.infer(ROW, body_bytes_max=1 << 20)
        assert (await remote.infer(ROW, body_bytes_max=1 << 20)).version == "3"
