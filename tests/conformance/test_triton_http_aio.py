"""tritonclient.http.aio, unchanged, against the REST door."""

import gc

import pytest
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from tests.kit.triton_calls import ARGUMENTS, CHECKS, NOT_CALLS, REFUSED, classifier_input, public_methods

# The client leaves replies unread whose status says all (`is_server_live`). Where a body arrives after its head, aiohttp warns of the
# connection when it is collected: that has to happen here, and not in whichever test runs when the collector does.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")


@pytest.fixture
async def client(served):
    async with triton.InferenceServerClient(served.rest) as made:
        yield made
    del made
    gc.collect()


def test_no_method_is_forgotten():
    assert public_methods(triton.InferenceServerClient) <= set(ARGUMENTS) | NOT_CALLS


@pytest.mark.parametrize("method", sorted(set(ARGUMENTS) - REFUSED))
async def test_a_method_has_tritons_answer(client, method):
    assert CHECKS[method](await getattr(client, method)(*ARGUMENTS[method]))


@pytest.mark.parametrize("method", sorted(REFUSED))
async def test_a_method_is_refused_in_words(client, method):
    with pytest.raises(InferenceServerException) as caught:
        await getattr(client, method)(*ARGUMENTS[method])
    assert any(word in caught.value.message() for word in ("needs a key", "does not offer"))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
async def test_inference_in_both_forms_and_compressed(client, binary, algorithm):
    result = await client.infer(
        "phishing",
        [classifier_input(triton, rows=64, binary_data=binary)],
        outputs=[triton.InferRequestedOutput("label", binary_data=binary)],
        request_id="q",
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert result.as_numpy("label").tolist() == [1] * 64
    assert result.get_response()["id"] == "q"


async def test_errors_are_readable(client):
    with pytest.raises(InferenceServerException, match="nope"):
        await client.infer("nope", [classifier_input(triton)])
