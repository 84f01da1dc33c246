"""tritonclient.http, unchanged, against the REST door."""

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tests.kit.triton_calls import ARGUMENTS, CHECKS, NOT_CALLS, REFUSED, classifier_input, public_methods


@pytest.fixture
def client(served):
    with triton.InferenceServerClient(served.rest) as made:
        yield made


def test_no_method_is_forgotten():
    assert public_methods(triton.InferenceServerClient) <= set(ARGUMENTS) | NOT_CALLS


@pytest.mark.parametrize("method", sorted(set(ARGUMENTS) - REFUSED))
def test_a_method_has_tritons_answer(client, method):
    assert CHECKS[method](getattr(client, method)(*ARGUMENTS[method]))


@pytest.mark.parametrize("method", sorted(REFUSED))
def test_a_method_is_refused_in_words(client, method):
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, method)(*ARGUMENTS[method])
    assert caught.value.status() in ("403", "404")
    assert any(word in caught.value.message() for word in ("needs a key", "does not offer"))


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_travel_in_both_forms(client, binary_in, binary_out):
    outputs = None if binary_out is None else [triton.InferRequestedOutput("label", binary_data=binary_out)]
    result = client.infer(
        "phishing", [classifier_input(triton, binary_data=binary_in)], outputs=outputs, request_id="q"
    )
    assert result.as_numpy("label").tolist() == [1, 1]
    assert result.get_response()["id"] == "q"
    assert result.get_response()["parameters"]["variant"]


@pytest.mark.parametrize(
    "datatype", ["BOOL", "UINT8", "INT8", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "BYTES"]
)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_survives(client, datatype, binary):
    array = np.array([["a", "ä"]], dtype=object)
    if datatype != "BYTES":
        array = np.array([[1, 0]], dtype=triton_to_np_dtype(datatype))
    tensor = triton.InferInput("x", [1, 2], datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    got = client.infer(f"echo-{datatype.lower()}", [tensor], outputs=outputs).as_numpy("y")
    if datatype == "BYTES":
        got = np.array([[value.decode() if isinstance(value, bytes) else value for value in got[0]]], dtype=object)
    assert got.tolist() == array.tolist()


def test_nonfinite_values_survive_in_binary(client):
    array = np.array([[np.nan, np.inf]], dtype=np.float32)
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(array)
    np.testing.assert_array_equal(client.infer("echo-fp32", [tensor]).as_numpy("y"), array)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(client, algorithm):
    result = client.infer(
        "phishing",
        [classifier_input(triton, rows=64, binary_data=False)],
        outputs=[triton.InferRequestedOutput("probabilities", binary_data=False)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert result.as_numpy("probabilities").shape == (64, 2)


def test_classification(client):
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
    best = client.infer("phishing", [classifier_input(triton)], outputs=outputs).as_numpy("probabilities")
    assert best.shape == (2, 1)
    assert best[0, 0].decode().endswith(":1:1")


def test_versions_priorities_deadlines_and_parameters(client):
    result = client.infer(
        "phishing",
        [classifier_input(triton)],
        model_version="2",
        priority=1,
        timeout=5_000_000,
        parameters={"user": "u1", "ratio": 0.5, "flag": True},
        headers={"X-Request-Id": "r-1"},
    )
    assert result.get_response()["model_version"] == "2"


def test_asynchronous_calls(client):
    pending = [client.async_infer("phishing", [classifier_input(triton)]) for _ in range(4)]
    assert [one.get_result().as_numpy("label").tolist() for one in pending] == [[1, 1]] * 4


def test_a_body_made_and_read_by_hand(client, served):
    body, length = client.generate_request_body([classifier_input(triton)])
    headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
    sent = httpx.post(f"{served.url}/v2/models/phishing/infer", content=body, headers=headers)
    result = client.parse_response_body(
        sent.content, header_length=int(sent.headers["Inference-Header-Content-Length"])
    )
    assert result.as_numpy("label").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("model", "version", "status", "words"),
    [("nope", "", "404", "nope"), ("phishing", "9", "404", "9"), ("echo-fp64", "", "400", "wanted FP64")],
)
def test_errors_are_readable(client, model, version, status, words):
    tensor = triton.InferInput("x", [1, 4], "INT64")
    tensor.set_data_from_numpy(np.ones((1, 4), dtype=np.int64))
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor], model_version=version)
    assert caught.value.status() == status
    assert words in caught.value.message()


def test_shared_memory_tensors_are_refused(client):
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared memory is not offered"):
        client.infer("phishing", [tensor])
