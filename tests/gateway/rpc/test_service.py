from math import prod

import grpc
import pytest

from gateway.errors import Overloaded
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.service import STREAM_INFLIGHT_MAX, _address, _is_light
from models.signature import Signature, TensorSpec


def asked(model="phishing", values=(1, 1, 1, 1), **fields):
    made = pb.ModelInferRequest(model_name=model, **fields)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend(values)
    return made


async def refused(awaitable):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value


async def test_a_prediction_names_who_answered_in_metadata_and_message(call):
    made = call("ModelInfer")(asked(id="q"))
    response = await made
    metadata = dict(await made.initial_metadata())
    assert response.parameters["prediction_id"].string_param == metadata["x-prediction-id"]
    assert metadata["x-runoff-model"] == "phishing/3"
    assert metadata["x-runoff-revision"] == "7"
    assert (response.model_name, response.model_version, response.id) == ("phishing", "3", "q")


async def test_metadata_and_parameters_reach_the_corridor(call, corridor):
    request = asked(model_version="2", id="ignored")
    request.parameters["timeout"].uint64_param = 900_000
    request.parameters["priority"].uint64_param = 1
    metadata = [
        ("x-request-id", "r-1"),
        ("x-runoff-variant", "b"),
        ("x-user-id", "u"),
        ("authorization", "Bearer s"),
        ("x-bin", b"\1"),
    ]
    metadata[-1] = ("x-raw-bin", b"\1")
    await call("ModelInfer")(request, metadata=metadata)
    seen = corridor.seen[-1]
    assert (seen.request_id, seen.variant, seen.version, seen.priority, seen.timeout_s) == ("r-1", "b", "2", 1, 0.9)
    assert seen.headers["x-user-id"] == "u"
    assert "authorization" not in seen.headers


async def test_the_earliest_deadline_holds(call, corridor):
    await call("ModelInfer")(asked(), timeout=30)
    assert 0 < corridor.seen[-1].timeout_s < 31  # gRPC rounds what it sends
    await call("ModelInfer")(asked(), timeout=30, metadata=[("x-runoff-timeout-ms", "700")])
    assert corridor.seen[-1].timeout_s == 0.7
    await call("ModelInfer")(asked())
    assert corridor.seen[-1].timeout_s is None


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked("nope"), grpc.StatusCode.NOT_FOUND),
        (asked(model_version="9"), grpc.StatusCode.NOT_FOUND),
        (asked(values=[1]), grpc.StatusCode.INVALID_ARGUMENT),
        (asked("fragile"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.ModelInferRequest(), grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_errors_are_statuses_with_words_and_a_code(call, request_, status):
    error = await refused(call("ModelInfer")(request_))
    assert error.code() is status
    assert error.details()
    assert dict(error.trailing_metadata())["x-runoff-code"]


async def test_a_failing_model_is_internal(call):
    request = pb.ModelInferRequest(model_name="fragile")
    request.inputs.add(name="x", datatype="INT64", shape=[1, 1]).contents.int64_contents.extend([9])
    error = await refused(call("ModelInfer")(request))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "the model failed on this input")


async def test_overload_says_when_to_come_back(call, corridor):
    corridor.overloaded = Overloaded("full", "concurrency", 2)
    error = await refused(call("ModelInfer")(asked()))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.trailing_metadata())["retry-after"] == "2"
    corridor.overloaded, corridor.is_ready = None, False
    error = await refused(call("ModelInfer")(asked()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["x-runoff-reason"] == "draining"


async def test_a_pin_that_is_not_allowed_is_permission_denied(call, corridor):
    corridor.allow_pin = False
    error = await refused(call("ModelInfer")(asked(model_version="2")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_stream_answers_in_order_and_goes_on_after_an_error(call):
    stream = call("ModelStreamInfer")()
    count = STREAM_INFLIGHT_MAX * 3
    for place in range(count):
        await stream.write(asked("nope" if place == 5 else "phishing", id=str(place)))
    await stream.done_writing()
    replies = [reply async for reply in stream]
    assert [reply.infer_response.id for reply in replies] == [str(place) for place in range(count)]
    assert [place for place, reply in enumerate(replies) if reply.error_message] == [5]
    assert all(reply.infer_response.parameters["triton_final_response"].bool_param for reply in replies)
    ids = {reply.infer_response.parameters["prediction_id"].string_param for reply in replies}
    assert len(ids) == count


async def test_a_cancelled_stream_leaves_the_server_well(call):
    stream = call("ModelStreamInfer")()
    await stream.write(asked())
    await stream.read()
    stream.cancel()
    assert (await call("ServerLive")(pb.ServerLiveRequest())).live


async def test_health_metadata_configuration_statistics_and_index(call, corridor):
    assert (await call("ServerReady")(pb.ServerReadyRequest())).ready
    assert (await call("ModelReady")(pb.ModelReadyRequest(name="phishing", version="2"))).ready
    assert (await call("ServerMetadata")(pb.ServerMetadataRequest())).name == "runoff"
    metadata = await call("ModelMetadata")(pb.ModelMetadataRequest(name="phishing"))
    assert list(metadata.inputs[0].shape) == [-1, 4]
    config = (await call("ModelConfig")(pb.ModelConfigRequest(name="churn"))).config
    assert config.input[2].data_type == pb.TYPE_STRING
    assert config.max_batch_size == 64
    await call("ModelInfer")(asked())
    stats = await call("ModelStatistics")(pb.ModelStatisticsRequest(name="phishing", version="3"))
    assert [(one.version, one.inference_count) for one in stats.model_stats] == [("3", 1)]
    assert len((await call("ModelStatistics")(pb.ModelStatisticsRequest())).model_stats) > 10
    index = await call("RepositoryIndex")(pb.RepositoryIndexRequest(ready=True))
    assert ("phishing", "2", "READY") in {(one.name, one.version, one.state) for one in index.models}
    corridor.is_ready = False
    assert not (await call("ServerReady")(pb.ServerReadyRequest())).ready
    assert not (await call("ModelReady")(pb.ModelReadyRequest(name="phishing"))).ready


async def test_an_endpoint_that_is_not_warm_here_is_unavailable_and_not_ready(call, corridor):
    corridor.cold.add("phishing")
    assert not (await call("ModelReady")(pb.ModelReadyRequest(name="phishing"))).ready
    for asking in (call("ModelInfer")(asked()), call("ModelMetadata")(pb.ModelMetadataRequest(name="phishing"))):
        assert (await refused(asking)).code() is grpc.StatusCode.UNAVAILABLE
    assert corridor.refusals == [("", "not_warm")] * 2
    assert (await call("ModelReady")(pb.ModelReadyRequest(name="churn"))).ready
    error = await refused(call("ModelReady")(pb.ModelReadyRequest(name="nope")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("verb", ["Load", "Unload"])
async def test_loading_needs_a_key(call, verb):
    request = getattr(pb, f"RepositoryModel{verb}Request")(model_name="phishing")
    error = await refused(call(f"RepositoryModel{verb}")(request))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("peer", "address"),
    [("ipv4:127.0.0.1:50", "127.0.0.1"), ("ipv6:%5B::1%5D:50", "::1"), ("ipv6:[::1]:50", "::1"), ("unix:/tmp/s", None)],
)
def test_the_address_of_a_peer(peer, address):
    assert _address(peer) == address


async def test_a_routes_own_bound_holds_and_what_cannot_be_read_is_counted(call, corridor):
    infer = call("ModelInfer")
    corridor.body_bytes_max = 40
    error = await refused(infer(asked()))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "40 bytes" in error.details()
    corridor.body_bytes_max = None
    both = asked()
    both.inputs[0].contents.fp32_contents.append(1)
    both.raw_input_contents.append(b"1234")
    assert (await refused(infer(both))).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(infer(asked("nobody")))).code() is grpc.StatusCode.NOT_FOUND
    codes = [code for _, code in corridor.refusals]
    assert codes[0] == "body_too_large"
    assert [endpoint for endpoint, _ in corridor.refusals] == ["phishing", "phishing", ""]


async def test_the_elements_of_a_shape_are_counted_only_where_its_rank_is_allowed(call, monkeypatch):
    """Counting those of 20,000 dimensions takes a second of the event loop."""
    ranks = []
    monkeypatch.setattr("gateway.rpc.service.prod", lambda shape: ranks.append(len(shape)) or prod(shape))
    request = pb.ModelInferRequest(model_name="phishing")
    request.inputs.add(name="x", datatype="FP32", shape=[1 << 62] * 10_000)
    error = await refused(call("ModelInfer")(request))
    assert (error.code(), "at most 32" in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    await call("ModelInfer")(asked())
    assert ranks == [2]


def message(datatype="FP32", raw=(), inputs=1, **more):
    made = pb.ModelInferRequest(model_name="phishing", raw_input_contents=raw, **more)
    for place in range(inputs):
        made.inputs.add(name=f"x{place}", datatype=datatype, shape=[1, 2])
    return made


@pytest.mark.parametrize(
    ("asked", "datatype", "is_light"),
    [
        (message(raw=[bytes(1 << 20)]), "FP32", True),
        (message("BYTES", raw=[bytes(1 << 10)]), "BYTES", True),
        (message("BYTES", raw=[bytes(1 << 20)]), "BYTES", False),
        (message("FP32", raw=[bytes(1 << 20)]), "BYTES", False),
        (message("BYTES", raw=[b""] * 100_000), "BYTES", True),
        (message(inputs=5000), "FP32", False),
        (message(outputs=[{"name": "label"}] * 5000), "FP32", False),
        (message(parameters={str(place): {"bool_param": True} for place in range(5000)}), "FP32", False),
    ],
    ids=["numbers", "few strings", "many strings", "that are wanted", "of no input", "inputs", "outputs", "parameters"],
)
def test_what_takes_long_to_read_is_not_read_on_the_loop(asked, datatype, is_light):
    signature = Signature(inputs=(TensorSpec(name="x0", datatype=datatype, shape=(-1, 2)),), outputs=())
    assert _is_light(asked, signature) is is_light
