"""tritonclient.grpc.aio, unchanged, against the gRPC door."""

import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from tests.kit.triton_calls import ARGUMENTS, CHECKS, NOT_CALLS, REFUSED, classifier_input, public_methods


@pytest.fixture
async def client(grpc_address):
    async with triton.InferenceServerClient(grpc_address) as made:
        yield made


def test_no_method_is_forgotten():
    assert public_methods(triton.InferenceServerClient) <= set(ARGUMENTS) | NOT_CALLS


@pytest.mark.parametrize("method", sorted(set(ARGUMENTS) - REFUSED))
async def test_a_method_has_tritons_answer(client, method):
    assert CHECKS[method](await getattr(client, method)(*ARGUMENTS[method]))


@pytest.mark.parametrize("method", sorted(REFUSED))
async def test_a_method_is_refused_in_words(client, method):
    with pytest.raises(InferenceServerException) as caught:
        await getattr(client, method)(*ARGUMENTS[method])
    assert any(word in caught.value.message() for word in ("needs a key", "not offered"))


async def test_inference(client):
    result = await client.infer("phishing", [classifier_input(triton)], request_id="q", priority=1, timeout=5_000_000)
    assert result.get_response().id == "q"
    assert result.as_numpy("label").tolist() == [1, 1]


async def test_a_stream_goes_on_after_an_error(client):
    async def requests():
        for place, model in enumerate(("phishing", "nope", "phishing")):
            yield {"model_name": model, "inputs": [classifier_input(triton)], "request_id": str(place)}

    answers = [answer async for answer in client.stream_infer(requests())]
    assert [result.get_response().id if result else None for result, _ in answers] == ["0", None, "2"]
    assert "nope" in answers[1][1].message()


async def test_errors_are_readable(client):
    with pytest.raises(InferenceServerException, match=r"NOT_FOUND.*nope"):
        await client.infer("nope", [classifier_input(triton)])
