"""What callers get wrong, over every protocol: the contract's status, a sentence that names the mistake, and nothing of ours in it."""

import json

import grpc
import numpy as np
import pytest

from gateway.rpc import open_inference_pb2 as pb
from tests.kit import files
from tests.kit.gateway import Gateway, infer_body, infer_call, route, rpc_request

pytestmark = pytest.mark.faults

GOOD = [[1.0, 2.0, 3.0, 4.0]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    model = files.binary(folder / "phishing.onnx")
    with Gateway(folder, limits={"body_bytes_json_max": 65536, "body_bytes_binary_max": 131072}) as running:
        running.apply(route("phishing", ("champion", model, 1)))
        running.apply(route("careful", ("champion", model, 1), nonfinite="reject", allow_pin=True))
        running.apply(route("by-column", ("champion", model, 1), unit={"parameter": "customer"}))
        yield running


def tensor(**changes: object) -> dict:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]} | changes]}


V2 = {
    "no JSON": (b"{nonsense", 400, "JSON"),
    "an empty body": (b"", 400, "JSON"),
    "no object": (b"[1, 2]", 400, ""),
    "no inputs": ({}, 400, "inputs"),
    "inputs that are no list": ({"inputs": 3}, 400, "inputs"),
    "a wrong shape": (tensor(shape=[1, 3], data=[1, 2, 3]), 400, "input 'x': wanted FP32 [-1, 4], got FP32 [1, 3]"),
    "one dimension too many": (tensor(shape=[1, 1, 4]), 400, "input 'x': wanted FP32 [-1, 4]"),
    "fewer values than the shape says": (tensor(data=[1, 2, 3]), 400, "x"),
    "more values than the shape says": (tensor(data=[1, 2, 3, 4, 5]), 400, "x"),
    "no rows": (tensor(shape=[0, 4], data=[]), 400, "x"),
    "a negative dimension": (tensor(shape=[-1, 4]), 400, "shape"),
    "a wrong type": (tensor(datatype="FP64"), 400, "input 'x': wanted FP32 [-1, 4], got FP64 [1, 4]"),
    "an unknown type": (tensor(datatype="FP12"), 400, "FP12"),
    "text where numbers belong": (tensor(data=["a", "b", "c", "d"]), 400, "x"),
    "a wrong name": (tensor(name="y"), 400, "'x'"),
    "an input twice": ({"inputs": [tensor()["inputs"][0]] * 2}, 400, "x"),
    "one input too many": ({"inputs": [tensor()["inputs"][0], tensor(name="z")["inputs"][0]]}, 400, "'z'"),
    "an unknown output": (tensor() | {"outputs": [{"name": "nobody"}]}, 400, "nobody"),
    "NaN in JSON": (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[NaN,1,2,3]}]}', 400, ""),
}


@pytest.mark.parametrize("case", V2)
def test_a_bad_open_inference_request_is_told_what_is_wrong(gateway, case):
    body, status, words = V2[case]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = gateway.http.post("/v2/models/phishing/infer", content=content)
    assert_refused(reply, status, words)


def assert_refused(reply, status: int, words: str = "") -> None:
    assert reply.status_code == status, reply.text
    document = reply.json()
    message = document.get("error") or document["message"]
    assert words in message
    assert document.get("code") or document.get("error_code")
    assert "Traceback" not in reply.text
    assert ".py" not in reply.text


PATHS = {
    "an unknown endpoint": ("POST", "/v2/models/nobody/infer", 404, "nobody"),
    "a version that nobody has": ("POST", "/v2/models/careful/versions/9/infer", 404, "9"),
    "metadata of an unknown endpoint": ("GET", "/v2/models/nobody", 404, "nobody"),
    "an unknown endpoint of TensorFlow's form": ("POST", "/v1/models/nobody:predict", 404, "nobody"),
    "an unknown endpoint of MLflow's form": ("POST", "/endpoints/nobody/invocations", 404, "nobody"),
    "a bare /invocations where there are several endpoints": ("POST", "/invocations", 404, ""),
    "a path that is none": ("POST", "/v2/modells/phishing/infer", 404, ""),
    "a method that is none": ("DELETE", "/v2/models/phishing/infer", 405, ""),
}


@pytest.mark.parametrize("case", PATHS)
def test_what_is_not_there_is_said_to_be_not_there(gateway, case):
    method, path, status, words = PATHS[case]
    body = {"instances": GOOD} if "/v1/" in path else {"inputs": GOOD} if "invocations" in path else infer_body(GOOD)
    reply = gateway.http.request(method, path, json=body if method != "GET" else None)
    assert_refused(reply, status, words)


@pytest.mark.parametrize("door", ["/endpoints/phishing/invocations", "/v1/models/phishing:predict"])
@pytest.mark.parametrize(
    "body", [b"{", b"{}", b'{"instances": 3}', b'{"instances": [[1, 2]]}', b'{"instances": [["a"]]}']
)
def test_the_other_forms_refuse_what_does_not_fit(gateway, door, body):
    reply = gateway.http.post(door, content=body, headers={"content-type": "application/json"})
    assert_refused(reply, 400)


def test_mlflow_scoring_refuses_media_types_that_it_does_not_know(gateway):
    reply = gateway.http.post("/endpoints/phishing/invocations", content=b"<x/>", headers={"content-type": "text/xml"})
    assert reply.status_code == 415


def test_bodies_beyond_the_bound_are_refused_before_they_are_read(gateway):
    assert_refused(gateway.infer("phishing", np.zeros((9000, 4))), 413)
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [10000, 4], "parameters": {"binary_data_size": 160000}}]}).encode()  # fmt: skip
    reply = gateway.http.post(
        "/v2/models/phishing/infer",
        content=head + bytes(160000),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert_refused(reply, 413)


def test_binary_sizes_must_add_up(gateway):
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}).encode()  # fmt: skip
    for content, length in (
        (head + bytes(12), len(head)),
        (head + bytes(16), len(head) + 99),
        (head + bytes(20), len(head)),
    ):
        reply = gateway.http.post(
            "/v2/models/phishing/infer", content=content, headers={"Inference-Header-Content-Length": str(length)}
        )
        assert_refused(reply, 400)


def test_values_that_are_no_numbers_are_refused_where_the_route_says_so(gateway):
    with gateway.channel() as channel:
        call = infer_call(channel)
        call(rpc_request("phishing", [[np.nan, 1, 2, 3]]), timeout=10)
        with pytest.raises(grpc.RpcError) as refused:
            call(rpc_request("careful", [[np.inf, 1, 2, 3]]), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "finite" in refused.value.details()


def request_of(**changes: object) -> pb.ModelInferRequest:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]} | changes
    raw = [bytes(16)]
    return pb.ModelInferRequest(
        model_name="phishing", inputs=[pb.ModelInferRequest.InferInputTensor(**tensor)], raw_input_contents=raw
    )


def both() -> pb.ModelInferRequest:
    request = request_of()
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    return request


def several_raw() -> pb.ModelInferRequest:
    request = request_of()
    request.raw_input_contents.append(b"more")
    return request


RPC = {
    "a wrong shape": (
        lambda: request_of(shape=[4]),
        "INVALID_ARGUMENT",
        "input 'x': wanted FP32 [-1, 4], got FP32 [4]",
    ),
    "fewer bytes than the shape says": (lambda: request_of(shape=[2, 4]), "INVALID_ARGUMENT", "x"),
    "a wrong type": (lambda: request_of(datatype="INT32"), "INVALID_ARGUMENT", "x"),
    "an unknown type": (lambda: request_of(datatype="FP12"), "INVALID_ARGUMENT", "FP12"),
    "a wrong name": (lambda: request_of(name="y"), "INVALID_ARGUMENT", "'x'"),
    "raw and typed contents together": (both, "INVALID_ARGUMENT", ""),
    "more raw contents than inputs": (several_raw, "INVALID_ARGUMENT", ""),
    "no inputs": (lambda: pb.ModelInferRequest(model_name="phishing"), "INVALID_ARGUMENT", "x"),
    "an unknown endpoint": (lambda: rpc_request("nobody", GOOD), "NOT_FOUND", "nobody"),
    "an unknown version": (lambda: rpc_request("careful", GOOD, model_version="9"), "NOT_FOUND", "9"),
    "a message beyond the bound": (lambda: rpc_request("phishing", np.zeros((20000, 4))), "RESOURCE_EXHAUSTED", ""),
}


@pytest.mark.parametrize("case", RPC)
def test_a_bad_grpc_request_gets_its_status_and_a_sentence(gateway, case):
    make, code, words = RPC[case]
    with gateway.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        infer_call(channel)(make(), timeout=30)
    assert refused.value.code().name == code, refused.value.details()
    assert words in refused.value.details()
    assert ".py" not in refused.value.details()


def test_a_pin_where_the_route_allows_none_is_not_allowed(gateway):
    assert_refused(gateway.infer("phishing", GOOD, headers={"x-runoff-variant": "champion"}), 403, "phishing")
    with gateway.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        infer_call(channel)(rpc_request("phishing", GOOD), metadata=[("x-runoff-variant", "champion")], timeout=30)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert gateway.infer("careful", GOOD, headers={"x-runoff-variant": "champion"}).status_code == 200
    assert_refused(gateway.infer("careful", GOOD, headers={"x-runoff-variant": "nobody"}), 404, "nobody")


def test_a_bad_message_in_a_stream_is_answered_and_the_stream_goes_on(gateway):
    with gateway.channel() as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        replies = list(
            call(
                iter([rpc_request("phishing", GOOD), request_of(shape=[4]), rpc_request("phishing", GOOD)]), timeout=10
            )
        )
    assert [bool(reply.error_message) for reply in replies] == [False, True, False]
    assert replies[0].infer_response.parameters["variant"].string_param == "champion"


def test_bad_requests_leave_the_gateway_as_it_was(gateway):
    assert gateway.infer("phishing", GOOD).status_code == 200
    assert gateway.metric("runoff_process_restarts_total") == 0
    assert gateway.metric("runoff_refused_total", endpoint="phishing") > 0
