"""What the README promises a stranger: a route, applied with one command, answers over every protocol and says who answered."""

import json
import subprocess
import sys

import grpc
import numpy as np
import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, infer_body, infer_call, route, rpc_request, run, write_yaml

pytestmark = pytest.mark.acceptance

ROWS = [[1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0]]
LABELS = [1, 0]

TRITON = """
import json, sys
import numpy as np
kind, address = sys.argv[1:]
module = __import__(f"tritonclient.{kind}", fromlist=["x"])
with module.InferenceServerClient(address) as client:
    x = module.InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(np.array([[1, 2, 3, 4], [-1, -2, -3, -4]], np.float32))
    result = client.infer("phishing", [x])
    reply = result.get_response() if kind == "http" else result.get_response(as_json=True)
    print(json.dumps({"label": result.as_numpy("label").tolist(), "reply": reply}))
"""


@pytest.fixture(
    scope="module",
    params=[{}, {"door": "asgi", "grpc_door": "grpcio"}],
    ids=["the doors by default", "the other doors"],
)
def gateway(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    for name in ("models", "gateway", "routing"):  # what a data scientist may well call a file of their own
        (folder / f"{name}.py").write_text("raise SystemExit('not ours')")
    with Gateway(folder, **request.param) as running:
        document = route("phishing", ("champion", files.binary(folder / "phishing.onnx"), 1))
        done = running.run("apply", write_yaml(folder / "route.yaml", document), "-m", "first light")
        assert done.returncode == 0, done.stderr
        assert "phishing: revision 1 is live" in done.stdout
        yield running


def said_in_headers(headers):
    assert headers["x-runoff-variant"] == "champion"
    assert headers["x-runoff-model"].endswith("/1")
    assert headers["x-runoff-revision"] == "1"
    return headers["x-prediction-id"]


def test_the_open_inference_protocol_names_who_answered_in_headers_and_body(gateway):
    reply = gateway.infer("phishing", ROWS, id="mine")
    document = reply.json()
    assert reply.status_code == 200, reply.text
    assert document["parameters"] == {
        "prediction_id": said_in_headers(reply.headers),
        "variant": "champion",
        "revision": 1,
    }
    assert (document["id"], document["model_name"], document["model_version"]) == ("mine", "phishing", "1")
    assert document["outputs"][0]["data"] == LABELS


@pytest.mark.parametrize(
    "path", ["/invocations", "/endpoints/phishing/invocations", "/serving-endpoints/phishing/invocations"]
)
def test_mlflow_scoring_names_the_prediction_beside_the_predictions(gateway, path):
    reply = gateway.http.post(path, json={"inputs": ROWS})
    assert reply.status_code == 200, reply.text
    assert reply.json()["prediction_id"] == said_in_headers(reply.headers)
    assert reply.json()["predictions"]["label"] == LABELS


def test_tensorflow_serving_names_who_answered_in_headers(gateway):
    reply = gateway.http.post("/v1/models/phishing:predict", json={"instances": ROWS})
    assert reply.status_code == 200, reply.text
    said_in_headers(reply.headers)
    assert [row["label"] for row in reply.json()["predictions"]] == LABELS


@pytest.mark.parametrize(
    ("path", "pin"),
    [
        ("/v2/models/phishing/versions/1/infer", {}),
        ("/v1/models/phishing/versions/1:predict", {}),
        ("/v2/models/phishing/infer", {"x-runoff-variant": "champion"}),
        ("/invocations", {"x-runoff-variant": "champion"}),
    ],
)
def test_a_pin_is_refused_over_rest_with_the_key_of_the_route_that_would_allow_it(gateway, path, pin):
    body = {"instances": ROWS} if "v1" in path else {"inputs": ROWS} if "v2" not in path else infer_body(ROWS)
    reply = gateway.http.post(path, json=body, headers=pin)
    assert reply.status_code == 403, reply.text
    assert "set `allow_pin: true` in the route" in reply.text


@pytest.mark.parametrize(("version", "pin"), [("1", []), ("", [("x-runoff-variant", "champion")])])
def test_a_pin_is_refused_over_grpc_with_the_key_of_the_route_that_would_allow_it(gateway, version, pin):
    with gateway.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        infer_call(channel)(rpc_request("phishing", ROWS, model_version=version), metadata=pin, timeout=30)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "set `allow_pin: true` in the route" in caught.value.details()


def test_grpc_names_who_answered_in_metadata_and_message(gateway):
    with gateway.channel() as channel:
        reply, call = infer_call(channel).with_call(rpc_request("phishing", ROWS, id="mine"), timeout=30)
    headers = dict(call.initial_metadata())
    assert reply.parameters["prediction_id"].string_param == said_in_headers(headers)
    assert reply.parameters["variant"].string_param == "champion"
    assert reply.parameters["revision"].int64_param == 1
    assert (reply.id, reply.model_name, reply.model_version) == ("mine", "phishing", "1")
    assert np.frombuffer(reply.raw_output_contents[0], "<i8").tolist() == LABELS


@pytest.mark.conformance
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_tritonclient_works_unchanged_and_can_read_who_answered(gateway, kind):
    """In a process of its own: tritonclient's HTTP form brings gevent, its gRPC form registers a proto of the same names as ours."""
    address = gateway.rest.removeprefix("http://") if kind == "http" else gateway.rpc
    done = subprocess.run([sys.executable, "-c", TRITON, kind, address], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["label"] == LABELS
    assert {"prediction_id", "variant", "revision"} <= found["reply"]["parameters"].keys()
    assert found["reply"]["model_version"] == "1"


def test_every_answer_has_its_record_and_the_command_line_finds_it(gateway):
    prediction_id = gateway.infer("phishing", [ROWS[0]], headers={"x-request-id": "order-7"}).headers["x-prediction-id"]
    gateway.stored("predictions", 1, where=f"prediction_id = '{prediction_id}'")
    done = gateway.run("predictions", prediction_id, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)["record"]
    assert (record["variant"], record["version"], record["request_id"]) == ("champion", "1", "order-7")


def test_the_gateway_answers_health_and_metadata_to_who_never_heard_of_it(gateway):
    assert gateway.http.get("/v2/health/ready").status_code == 200
    assert gateway.http.get("/v2/models/phishing/ready").status_code == 200
    inputs = gateway.http.get("/v2/models/phishing").json()["inputs"]
    assert inputs == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert gateway.http.get("/ping").status_code == 200


def test_a_command_without_a_gateway_ends_with_one_clear_line():
    done = run("routes", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no gateway answers at http://127.0.0.1:9" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_binary_request_is_answered_like_the_same_request_in_json(gateway):
    header = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}]}
    head = json.dumps(header).encode()
    reply = gateway.http.post(
        "/v2/models/phishing/infer",
        content=head + np.array(ROWS, "<f4").tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert reply.status_code == 200, reply.text
    plain = gateway.infer("phishing", ROWS).json()["outputs"]
    for ours, theirs in zip(reply.json()["outputs"], plain, strict=True):
        assert np.array_equal(np.float32(ours["data"]), np.float32(theirs["data"]))


def test_an_unknown_endpoint_is_not_found_over_grpc_too(gateway):
    with gateway.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        infer_call(channel)(rpc_request("nobody", ROWS), timeout=30)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
