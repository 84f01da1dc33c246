"""tritonclient.grpc, unchanged, against the gRPC door."""

import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tests.kit.triton_calls import ARGUMENTS, CHECKS, NOT_CALLS, REFUSED, classifier_input, public_methods


@pytest.fixture
def client(grpc_address):
    with triton.InferenceServerClient(grpc_address) as made:
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
    assert caught.value.status() in ("StatusCode.PERMISSION_DENIED", "StatusCode.UNIMPLEMENTED")
    assert any(word in caught.value.message() for word in ("needs a key", "not offered"))


@pytest.mark.parametrize(
    "datatype", ["BOOL", "UINT8", "INT8", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "BYTES"]
)
def test_every_datatype_survives(client, datatype):
    array = np.array([["a", "ä"]], dtype=object)
    if datatype != "BYTES":
        array = np.array([[1, 0]], dtype=triton_to_np_dtype(datatype))
    tensor = triton.InferInput("x", [1, 2], datatype)
    tensor.set_data_from_numpy(array)
    got = client.infer(f"echo-{datatype.lower()}", [tensor]).as_numpy("y")
    if datatype == "BYTES":
        got = np.array([[value.decode() for value in got[0]]], dtype=object)
    assert got.tolist() == array.tolist()


@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_inference_with_everything_a_caller_can_say(client, algorithm):
    result = client.infer(
        "phishing",
        [classifier_input(triton)],
        model_version="2",
        outputs=[triton.InferRequestedOutput("label"), triton.InferRequestedOutput("probabilities", class_count=1)],
        request_id="q",
        priority=1,
        timeout=5_000_000,
        client_timeout=10,
        headers={"x-request-id": "r-1"},
        compression_algorithm=algorithm,
        parameters={"user": "u1", "ratio": 0.5, "flag": True},
    )
    response = result.get_response()
    assert (response.id, response.model_version) == ("q", "2")
    assert response.parameters["prediction_id"].string_param
    assert result.as_numpy("label").tolist() == [1, 1]
    assert result.as_numpy("probabilities")[0, 0].decode().endswith(":1:1")


def test_asynchronous_calls(client):
    answers: queue.Queue = queue.Queue()
    for _ in range(4):
        client.async_infer(
            "phishing", [classifier_input(triton)], callback=lambda result, error: answers.put((result, error))
        )
    for _ in range(4):
        result, error = answers.get(timeout=30)
        assert error is None
        assert result.as_numpy("label").tolist() == [1, 1]


def test_a_stream_goes_on_after_an_error(client):
    answers: queue.Queue = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for place, model in enumerate(("phishing", "nope", "phishing")):
        client.async_stream_infer(model, [classifier_input(triton)], request_id=str(place))
    first, refused, last = (answers.get(timeout=30) for _ in range(3))
    client.stop_stream()
    assert (first[0].get_response().id, last[0].get_response().id) == ("0", "2")
    assert first[0].get_response().parameters["triton_final_response"].bool_param
    assert "nope" in refused[1].message()


@pytest.mark.parametrize(
    ("model", "version", "status"),
    [("nope", "", "NOT_FOUND"), ("phishing", "9", "NOT_FOUND"), ("echo-uint8", "", "INVALID_ARGUMENT")],
)
def test_errors_are_readable(client, model, version, status):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [classifier_input(triton)], model_version=version)
    assert caught.value.status() == f"StatusCode.{status}"
    assert caught.value.message()


def test_shared_memory_tensors_are_refused(client):
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_shared_memory("region", 16)
    with pytest.raises(InferenceServerException, match="shared memory is not offered"):
        client.infer("phishing", [tensor])
