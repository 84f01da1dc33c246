"""The whole listener with real clients: what grpcio's own server answers, ours answers too; TLS, bounds and ends."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.server import RpcServer
from gateway.rpc.wire.server import WireServer, serve
from gateway.settings import Limits, Settings, Tls
from gateway.threaded import LOOK_S
from tests.gateway.rpc.wire.conftest import LIMITS
from tests.kit import http2
from tests.kit.certificates import Certificate
from tests.kit.held import hold, settled
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

SERVICE = "/inference.GRPCInferenceService/"


def request(rows: int = 1, value: float = 1.0, columns: int = 2, **fields: Any) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(**{"model_name": "line", **fields})
    made.inputs.add(name="x", datatype="FP32", shape=[rows, columns])
    made.raw_input_contents.append(np.full((rows, columns), value, np.float32).tobytes())
    return made


def typed(*values: float, **fields: Any) -> pb.ModelInferRequest:
    made = request(len(values) // 2, **fields)
    del made.raw_input_contents[:]
    made.inputs[0].contents.fp32_contents.extend(values)
    return made


def with_outputs(*names: str, **parameters: int) -> pb.ModelInferRequest:
    made = request()
    for name in names:
        output = made.outputs.add(name=name)
        for key, value in parameters.items():
            output.parameters[key].int64_param = value
    return made


def with_parameters(**parameters: Any) -> pb.ModelInferRequest:
    made = request()
    for key, value in parameters.items():
        setattr(made.parameters[key], {bool: "bool_param", int: "int64_param"}[type(value)], value)
    return made


Said = tuple[str, bytes, dict[str, Any]]

CASES: dict[str, Said] = {
    "hot": ("ModelInfer", request().SerializeToString(), {}),
    "rows": ("ModelInfer", request(7).SerializeToString(), {}),
    "id": ("ModelInfer", request(id="one").SerializeToString(), {}),
    "wanted output": ("ModelInfer", with_outputs("probabilities").SerializeToString(), {}),
    "wanted outputs in the caller's order": (
        "ModelInfer",
        with_outputs("probabilities", "label").SerializeToString(),
        {},
    ),
    "classification": ("ModelInfer", with_outputs("probabilities", classification=2).SerializeToString(), {}),
    "unknown output": ("ModelInfer", with_outputs("nope").SerializeToString(), {}),
    "typed contents": ("ModelInfer", typed(1, 2, 3, 4).SerializeToString(), {}),
    "typed reply": ("ModelInfer", with_parameters(binary_data_output=False).SerializeToString(), {}),
    "both contents": ("ModelInfer", (typed(1, 2).SerializeToString() + b"\x3a\x00"), {}),
    "priority": ("ModelInfer", with_parameters(priority=1).SerializeToString(), {}),
    "poisoned row": ("ModelInfer", request(value=666.0).SerializeToString(), {}),
    "wrong shape": ("ModelInfer", request(columns=3).SerializeToString(), {}),
    "unknown model": ("ModelInfer", request(model_name="nope").SerializeToString(), {}),
    "version in the request": ("ModelInfer", request(model_version="1").SerializeToString(), {}),
    "unknown version": ("ModelInfer", request(model_version="9").SerializeToString(), {}),
    "pin that is not allowed": (
        "ModelInfer",
        request().SerializeToString(),
        {"metadata": (("x-runoff-variant", "champion"),)},
    ),
    "bad timeout in metadata": (
        "ModelInfer",
        request().SerializeToString(),
        {"metadata": (("x-runoff-timeout-ms", "soon"),)},
    ),
    "explain": ("ModelInfer", request().SerializeToString(), {"metadata": (("x-runoff-explain", "1"),)}),
    "empty message": ("ModelInfer", b"", {}),
    "gzip": ("ModelInfer", request(50).SerializeToString(), {"compression": grpc.Compression.Gzip}),
    "deflate": ("ModelInfer", request(50).SerializeToString(), {"compression": grpc.Compression.Deflate}),
    "large": ("ModelInfer", request(20, columns=50_000, model_name="wide").SerializeToString(), {}),
    "large with id": ("ModelInfer", request(20, columns=50_000, model_name="wide", id="x").SerializeToString(), {}),
    "ServerLive": ("ServerLive", b"", {}),
    "ServerReady": ("ServerReady", b"", {}),
    "ModelReady": ("ModelReady", pb.ModelReadyRequest(name="line").SerializeToString(), {}),
    "ModelReady of nothing": ("ModelReady", pb.ModelReadyRequest(name="nope").SerializeToString(), {}),
    "ServerMetadata": ("ServerMetadata", b"", {}),
    "ModelMetadata": ("ModelMetadata", pb.ModelMetadataRequest(name="line").SerializeToString(), {}),
    "ModelConfig": ("ModelConfig", pb.ModelConfigRequest(name="line").SerializeToString(), {}),
    "ModelStatistics": ("ModelStatistics", b"", {}),
    "RepositoryIndex": ("RepositoryIndex", b"", {}),
    "RepositoryModelLoad": (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(model_name="line").SerializeToString(),
        {},
    ),
    "unoffered": ("TraceSetting", b"", {}),
    "unknown method": ("Nope", b"", {}),
}


def comparable(message: bytes, method: str) -> Any:
    """A reply without what differs from call to call; raw bytes where there is no message of this name."""
    if method == "ModelInfer":
        reply = pb.ModelInferResponse.FromString(message)
        if "prediction_id" in reply.parameters:
            assert len(reply.parameters["prediction_id"].string_param) == 36
            reply.parameters["prediction_id"].string_param = "…"
        return reply
    return message


async def said(port: int, method: str, message: bytes, options: dict[str, Any]) -> dict[str, Any]:
    """All that a caller sees of one call."""
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        call = channel.unary_unary(SERVICE + method)(message, timeout=20, **options)
        try:
            reply = comparable(await call, method)
        except grpc.aio.AioRpcError:
            reply = None
        hidden = {"x-prediction-id": "…", "grpc-accept-encoding": None}
        return {
            "code": await call.code(),
            "details": await call.details() if method != "Nope" else None,
            "initial": {k: hidden.get(k, v) for k, v in await call.initial_metadata() if hidden.get(k, v)},
            "trailing": {k: hidden.get(k, v) for k, v in await call.trailing_metadata() if hidden.get(k, v)},
            "reply": reply,
        }


@pytest.mark.conformance
@pytest.mark.parametrize("case", CASES)
async def test_every_answer_is_the_one_of_grpcios_server(server: WireServer, grpcio: RpcServer, case: str) -> None:
    method, message, options = CASES[case]
    ours, theirs = await said(server.port, method, message, options), await said(grpcio.port, method, message, options)
    assert ours == theirs


async def test_what_does_not_parse_is_internal_and_says_nothing_of_our_inside(server: WireServer) -> None:
    """Where grpcio's server answers UNKNOWN with the text of a Python exception; gRPC's own table says INTERNAL."""
    found = await said(server.port, "ModelInfer", b"\xff\xff", {})
    assert (found["code"], found["details"]) == (grpc.StatusCode.INTERNAL, "a message that does not parse")


@pytest.mark.conformance
async def test_a_stream_ends_with_what_is_no_request_behind_what_it_has_answered(
    server: WireServer, grpcio: RpcServer
) -> None:
    good = request().SerializeToString()

    async def asked() -> AsyncIterator[bytes]:
        for message in (good, b"\xff\xff", good):
            yield message

    for port in (server.port, grpcio.port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(SERVICE + "ModelStreamInfer")(asked(), timeout=20)
            assert await call.read() is not grpc.aio.EOF
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call.read()
        assert (ended.value.code(), ended.value.details()) == (
            grpc.StatusCode.INTERNAL,
            "a message that does not parse",
        )


async def test_many_callers_at_once_each_get_their_own_answer(server: WireServer) -> None:
    async def ask(number: int) -> None:
        reply = await infer(request(1 + number % 3, number / 100 - 1, id=str(number) if number % 2 else ""))
        (wanted,) = {round(float(1 / (1 + np.exp(-np.float32(number / 100 - 1) * 2))), 5)}
        got = np.frombuffer(reply.raw_output_contents[1], np.float32).reshape(-1, 2)[:, 1]
        assert got.shape == (1 + number % 3,)
        assert np.allclose(got, wanted, atol=1e-4)
        assert reply.id == (str(number) if number % 2 else "")

    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        infer = channel.unary_unary(
            SERVICE + "ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        await asyncio.gather(*(ask(number) for number in range(300)))


@pytest.mark.conformance
async def test_grpcios_blocking_client_works_unchanged(server: WireServer) -> None:
    def ask() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            infer = channel.unary_unary(SERVICE + "ModelInfer", response_deserializer=pb.ModelInferResponse.FromString)
            for rows in (1, 5, 1):
                reply, call = infer.with_call(request(rows).SerializeToString(), timeout=10)
                assert reply.outputs[0].shape == [rows]
                assert dict(call.initial_metadata())["x-runoff-model"] == "line/1"

    await asyncio.to_thread(ask)


@pytest.mark.conformance
async def test_tritons_blocking_client_works_unchanged(server: WireServer) -> None:
    def ask() -> None:
        client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.port}")
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("line")
        assert client.get_model_metadata("line").inputs[0].shape == [-1, 2]
        assert client.get_server_metadata().name
        tensor = tritonclient.grpc.InferInput("x", [2, 2], "FP32")
        tensor.set_data_from_numpy(np.zeros((2, 2), np.float32))
        for options in ({}, {"request_id": "r1"}, {"compression_algorithm": "gzip"}, {"client_timeout": 10.0}):
            result = client.infer("line", [tensor], **options)
            assert result.as_numpy("probabilities").tolist() == [[0.5, 0.5]] * 2
        wanted = [tritonclient.grpc.InferRequestedOutput("label")]
        result = client.infer("line", [tensor], outputs=wanted)
        assert result.as_numpy("label").tolist() == [0, 0]
        assert result.as_numpy("probabilities") is None
        with pytest.raises(tritonclient.grpc.InferenceServerException, match="unknown model"):
            client.infer("nope", [tensor])
        got: list[Any] = []
        client.start_stream(lambda result, error: got.append((result, error)))
        for number in range(5):
            client.async_stream_infer("line" if number != 2 else "nope", [tensor], request_id=str(number))
        client.stop_stream()
        assert [error is None for _, error in got] == [True, True, False, True, True]
        assert [result.get_response().id for result, error in got if error is None] == ["0", "1", "3", "4"]
        client.close()

    await asyncio.to_thread(ask)


@pytest.mark.conformance
async def test_tritons_asyncio_client_works_unchanged(server: WireServer) -> None:
    async with tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        tensor = tritonclient.grpc.aio.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 2), np.float32))
        results = await asyncio.gather(*(client.infer("line", [tensor]) for _ in range(20)))
        assert all(result.as_numpy("label").tolist() == [0] for result in results)

        async def requests() -> Any:
            for number in range(10):
                yield {"model_name": "line", "inputs": [tensor], "request_id": str(number)}

        stream = client.stream_infer(requests())
        assert [result.get_response().id async for result, error in stream if error is None] == [
            str(n) for n in range(10)
        ]


async def test_health_and_reflection_are_on_the_same_port(server: WireServer) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        assert (await check(health_pb2.HealthCheckRequest(service="line").SerializeToString())).status == 1
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )(b"")
        assert (await watch.read()).status == 1
        watch.cancel()
        for version in ("v1", "v1alpha"):
            reflect = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )()
            for asked in ("list_services", "file_containing_symbol"):
                symbol = "inference.GRPCInferenceService"
                await reflect.write(reflection_pb2.ServerReflectionRequest(**{asked: symbol}).SerializeToString())
                answer = await reflect.read()
                assert symbol.encode() in answer.SerializeToString()
            await reflect.done_writing()
            assert await reflect.code() is grpc.StatusCode.OK


# ── bounds and ends ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def talk(
    port: int, *sent: bytes, until: int | None = None, later: tuple[Callable[[], object], bytes] | None = None
) -> list[http2.Frame]:
    """Speaks bytes; the frames that came back until the server closed, or until the stream `until` has ended.

    `later` is what is said once something is true.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(http2.PREFACE + http2.settings() + b"".join(sent))
    if later is not None:
        while not later[0]():  # noqa: ASYNC110 - bytes on a socket
            await asyncio.sleep(0)
        writer.write(later[1])
    data = b""
    frames: list[http2.Frame] = []
    async with asyncio.timeout(30):
        while True:
            data += await reader.read(65_536) or b"\xff" * 9
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                stop = 9 + int.from_bytes(data[:3], "big")
                frames += http2.read(data[:stop])
                data = data[stop:]
            is_done = any(
                one.stream == until and (one.kind == http2.RST_STREAM or (one.kind == http2.HEADERS and one.flags & 1))
                for one in frames
            )
            if is_done or data[:9] == b"\xff" * 9:
                writer.close()
                return frames


FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", SERVICE + "ModelInfer"),
    ("content-type", "application/grpc"),
]


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


async def refused(port: int, *sent: bytes) -> dict[str, str]:
    """The one field section of the answer on stream 1."""
    answer = http2.answers(await talk(port, *sent, until=1))[1]
    (fields,) = answer.fields
    return dict(fields)


REFUSALS: dict[str, tuple[list[tuple[str, str]], bytes, str, str]] = {
    "no gRPC": ([*FIELDS[:3], ("content-type", "text/html")], b"", "415", "13"),
    "GET": ([(":method", "GET"), *FIELDS[1:]], b"", "405", "13"),
    "unknown path": ([*FIELDS[:2], (":path", "/"), FIELDS[3]], b"", "200", "12"),
    "bad deadline": ([*FIELDS, ("grpc-timeout", "soon")], b"", "200", "3"),
    "unknown encoding": ([*FIELDS, ("grpc-encoding", "br")], b"", "200", "12"),
    "metadata beyond the bound": ([*FIELDS, ("x", "v" * 8000)], b"", "200", "8"),
    "compressed without encoding": (FIELDS, framed(b"", 1), "200", "13"),
    "flag that is none": (FIELDS, framed(b"", 7), "200", "13"),
    "message beyond the bound": (FIELDS, b"\0\x7f\xff\xff\xff", "200", "8"),
    "half a message": (FIELDS, b"\0\0\0\0\x09abc", "200", "13"),
    "half a prefix": (FIELDS, b"\0\0", "200", "13"),
    "no message": (FIELDS, b"", "200", "12"),
    "two messages": (FIELDS, framed(b"") * 2, "200", "12"),
    "bomb": ([*FIELDS, ("grpc-encoding", "gzip")], framed(gzip.compress(bytes(2 << 20)), 1), "200", "8"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_is_no_proper_call_is_refused_with_its_status(server: WireServer, case: str) -> None:
    fields, body, http_status, grpc_status = REFUSALS[case]
    found = await refused(server.port, http2.call(1, body, fields))
    assert (found[":status"], found["grpc-status"]) == (http_status, grpc_status)
    assert found["content-type"] == "application/grpc"
    assert found["grpc-message"]


async def test_a_refused_call_leaves_the_connection_to_the_others(server: WireServer) -> None:
    good = http2.call(5, framed(request().SerializeToString()), FIELDS)
    frames = await talk(
        server.port,
        http2.headers(1, fields=[*FIELDS, ("grpc-timeout", "soon")]),
        http2.frame(http2.DATA, 0, 1, bytes(10_000)),
        http2.call(3, b"\0\xff\xff\xff\xff", FIELDS),
        good,
        until=5,
    )
    assert http2.answers(frames)[5].fields[-1] == [("grpc-status", "0")]


async def test_a_body_that_never_comes_is_told_when_its_deadline_passes(server: WireServer) -> None:
    found = await refused(server.port, http2.headers(1, fields=[*FIELDS, ("grpc-timeout", "100m")]))
    assert found["grpc-status"] == "4"


async def test_an_expired_deadline_is_answered_without_a_run(server: WireServer, plane: Plane) -> None:
    body = framed(request().SerializeToString())
    found = await refused(server.port, http2.call(1, body, [*FIELDS, ("grpc-timeout", "0n")]))
    assert (found["grpc-status"], found["x-runoff-code"]) == ("4", "deadline_passed")
    assert len(found["x-prediction-id"]) == 36


async def test_a_cancelled_call_costs_its_neighbours_nothing_and_is_recorded(server: WireServer, plane: Plane) -> None:
    body = framed(request().SerializeToString())
    frames = await talk(
        server.port, http2.call(1, body, FIELDS), http2.rst_stream(1), http2.call(3, body, FIELDS), until=3
    )
    answers = http2.answers(frames)
    assert 1 not in answers
    assert answers[3].fields[-1] == [("grpc-status", "0")]
    codes = [row.code for block in plane.blocks() for row in getattr(block, "requests", [])]
    assert sorted(map(str, codes)) == ["None", "cancelled"]


def slow_body() -> list[bytes]:
    """A request on stream 1 that runs on a thread for some 50 ms, but for the end of its body."""
    made = request(2000, columns=512, model_name="slow", value=0.01)
    body = framed(made.SerializeToString())
    return [http2.frame(http2.DATA, 0, 1, body[at : at + 16_000]) for at in range(0, len(body), 16_000)]


async def test_a_call_that_is_cancelled_while_it_runs_is_not_answered_and_its_neighbour_is(
    server: WireServer, plane: Plane
) -> None:
    end = http2.frame(http2.DATA, http2.END_STREAM, 1)
    sent = http2.headers(1, fields=FIELDS) + b"".join(slow_body()) + end
    neighbour = http2.call(3, framed(request().SerializeToString()), FIELDS)
    frames = await talk(
        server.port, sent, until=3, later=(lambda: plane.data.inflight, http2.rst_stream(1) + neighbour)
    )
    async with asyncio.timeout(30):
        while plane.data.inflight:  # noqa: ASYNC110 - a thread
            await asyncio.sleep(0.001)
    answers = http2.answers(frames)
    assert 1 not in answers
    assert answers[3].fields[-1] == [("grpc-status", "0")]


@pytest.mark.parametrize("extra", [[], [("x-runoff-explain", "1")]], ids=["hot", "cold"])
async def test_a_deadline_that_passes_while_the_model_runs_is_answered_then(
    server: WireServer, plane: Plane, extra: list[tuple[str, str]]
) -> None:
    staged = stage_linear(plane.artifacts, name="held")
    plane.serve({"champion": staged}, endpoint="held", limits={"timeout_s": 30})
    model, held = hold(plane, staged)
    body = framed(request(model_name="held").SerializeToString())
    frames = await talk(server.port, http2.call(1, body, [*FIELDS, ("grpc-timeout", "400m"), *extra]), until=1)
    assert dict(http2.answers(frames)[1].fields[-1])["grpc-status"] == "4"
    assert model.leases == 1
    await asyncio.sleep(5 * LOOK_S)
    held.let_go()
    await settled(plane, model)
    assert [row.code for block in plane.blocks() for row in getattr(block, "requests", [])] == ["deadline_passed"]


async def test_a_call_that_is_cancelled_while_it_runs_is_recorded_as_gone(server: WireServer, plane: Plane) -> None:
    staged = stage_linear(plane.artifacts, name="held")
    plane.serve({"champion": staged}, endpoint="held", limits={"timeout_s": 30})
    model, held = hold(plane, staged)
    sent = http2.call(1, framed(request(model_name="held").SerializeToString()), FIELDS)
    neighbour = http2.call(3, framed(request().SerializeToString()), FIELDS)
    await talk(server.port, sent, until=3, later=(lambda: plane.data._threads.running, http2.rst_stream(1) + neighbour))
    held.let_go()
    await settled(plane, model)
    codes = [row.code for block in plane.blocks() for row in getattr(block, "requests", [])]
    assert sorted(map(str, codes)) == ["None", "cancelled"]


async def test_a_slow_reader_gets_its_large_answer_as_it_opens_its_windows(server: WireServer) -> None:
    body = framed(request(20_000).SerializeToString())
    sent = [http2.settings((4, 0)), http2.headers(1, fields=FIELDS)]
    sent += [http2.frame(http2.DATA, 0, 1, body[at : at + 16_000]) for at in range(0, len(body), 16_000)]
    sent += [http2.frame(http2.DATA, http2.END_STREAM, 1)]
    sent += [http2.window_update(1, 1000)] * 350 + [http2.window_update(0, 500_000)]
    answer = http2.answers(await talk(server.port, *sent, until=1))[1]
    reply = pb.ModelInferResponse.FromString(answer.body[5:])
    assert len(answer.body) == 5 + int.from_bytes(answer.body[1:5], "big")
    assert reply.outputs[0].shape == [20_000]
    assert len(reply.raw_output_contents[1]) == 20_000 * 8


async def test_stop_answers_what_is_in_flight_and_then_closes(server: WireServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(http2.PREFACE + http2.settings() + http2.headers(1, fields=FIELDS))
    while not server.connections:  # noqa: ASYNC110 - bytes on a socket
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(server.stop(5.0))
    await asyncio.sleep(0.05)
    writer.write(http2.frame(http2.DATA, http2.END_STREAM, 1, framed(request().SerializeToString())))
    async with asyncio.timeout(30):
        frames = http2.read(await reader.read())
        await stopping
    writer.close()
    assert http2.answers(frames)[1].fields[-1] == [("grpc-status", "0")]
    assert [one.kind for one in frames].count(http2.GOAWAY) == 2


async def test_stop_cuts_what_does_not_end(server: WireServer) -> None:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    await watch.read()
    async with asyncio.timeout(30):
        await server.stop(0.1)
    assert await watch.code() is grpc.StatusCode.UNAVAILABLE
    await channel.close()


async def test_a_caller_that_leaves_takes_its_calls_along(server: WireServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    watch = [*FIELDS[:2], (":path", "/grpc.health.v1.Health/Watch"), FIELDS[3]]
    half = http2.headers(3, fields=FIELDS) + http2.frame(http2.DATA, 0, 3, framed(bytes(1000))[:900])
    writer.write(http2.PREFACE + http2.settings() + http2.call(1, framed(b""), watch) + half)
    while not server._shared.held_bytes:  # noqa: ASYNC110 - bytes on a socket
        await asyncio.sleep(0.001)
    assert server._shared.tasks
    writer.transport.abort()
    async with asyncio.timeout(30):
        while server.connections or server._shared.tasks:  # noqa: ASYNC110 - a socket that closes
            await asyncio.sleep(0.001)
    assert server._shared.held_bytes == 0


async def test_a_caller_that_ends_its_side_has_left(server: WireServer, plane: Plane) -> None:
    """No client of gRPC half-closes a connection: it is how the kernel tells us of one that died."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    watch = [*FIELDS[:2], (":path", "/grpc.health.v1.Health/Watch"), FIELDS[3]]
    writer.write(http2.PREFACE + http2.settings() + http2.call(1, framed(b""), watch))
    while not server._shared.tasks:  # noqa: ASYNC110 - bytes on a socket
        await asyncio.sleep(0.001)
    writer.write_eof()
    async with asyncio.timeout(30):
        await reader.read()
        while server.connections or server._shared.tasks:  # noqa: ASYNC110 - a task that ends
            await asyncio.sleep(0.001)
    writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def secure(plane: Plane, tmp_path: Path, certificate: Certificate) -> Any:
    settings = Settings(state_dir=str(tmp_path), limits=LIMITS, tls=Tls(**certificate.settings))
    made = await serve(plane.data, plane.corridor, socket.create_server(("127.0.0.1", 0)), settings)
    yield made
    await made.stop(1.0)


@pytest.mark.conformance
async def test_over_tls_grpcios_client_is_answered(secure: WireServer, certificate: Certificate) -> None:
    credentials = grpc.ssl_channel_credentials(certificate.pem)
    async with grpc.aio.secure_channel(f"localhost:{secure.port}", credentials) as channel:
        infer = channel.unary_unary(SERVICE + "ModelInfer", response_deserializer=pb.ModelInferResponse.FromString)
        for made in (request(), request(20, columns=50_000, model_name="wide")):
            assert (await infer(made.SerializeToString(), timeout=20)).outputs


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_over_tls_http2_is_agreed_upon_or_not_spoken(secure: WireServer, protocols: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=context)
        assert await reader.read() == b""
        writer.close()


async def test_a_handshake_that_never_ends_holds_up_nobody(secure: WireServer, certificate: Certificate) -> None:
    silent = [socket.create_connection(("127.0.0.1", secure.port)) for _ in range(5)]
    await test_over_tls_grpcios_client_is_answered(secure, certificate)
    for one in silent:
        one.close()


async def test_connections_beyond_the_bound_wait_in_the_kernel(plane: Plane, tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path), limits=Limits(connections_max=2))
    made = await serve(plane.data, plane.corridor, socket.create_server(("127.0.0.1", 0)), settings)
    opened = [await asyncio.open_connection("127.0.0.1", made.port) for _ in range(3)]
    for reader, _ in opened[:2]:
        assert await reader.readexactly(9)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await opened[2][0].readexactly(9)
    opened[0][1].close()
    async with asyncio.timeout(30):
        assert await opened[2][0].readexactly(9)
    for _, writer in opened:
        writer.close()
    await made.stop(1.0)


async def test_a_connection_that_cannot_be_looked_after_is_ended_and_the_others_are_looked_after(
    server: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Connection:
        """The server's own seam; `sweeps` counts the looks."""

        def __init__(self, *, is_broken: bool) -> None:
            self.is_broken, self.is_aborted, self.sweeps = is_broken, False, 0

        def sweep(self, now_s: float) -> None:
            self.sweeps += 1
            if self.is_broken:
                raise ZeroDivisionError(now_s)

        def shutdown(self) -> None: ...

        def abort(self) -> None:
            self.is_aborted = True

    broken, sound = Connection(is_broken=True), Connection(is_broken=False)
    server._shared.connections |= {broken, sound}
    async with asyncio.timeout(30):
        while sound.sweeps < 2 or not broken.is_aborted:  # noqa: ASYNC110 - looks are what is waited for
            await asyncio.sleep(0.05)
    assert "sweep_failed" in caplog.text
    server._shared.connections -= {broken, sound}
