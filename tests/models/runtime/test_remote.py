"""The V2 client against real servers that behave, and that do not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from models.runtime.remote import RemoteModel, decode, encode
from models.runtime.target import (
    REPLY_BYTES_MAX,
    Access,
    BodyTooLarge,
    InputRefused,
    RemoteFailed,
    RemoteRefused,
    RemoteTimeout,
)
from tests.kit.remote_server import Handler, Server, failing, hanging, linear, saying, serving

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ROW = [("x", np.array([[1.5, -2.0]], np.float32))]


@asynccontextmanager
async def client(url: str, **fields: object) -> AsyncIterator[RemoteModel]:
    remote = RemoteModel(url, "m", Access(**({"allow": LOOPBACK} | fields)))
    try:
        yield remote
    finally:
        await remote.close()


async def infer(server: Server, **fields: object) -> object:
    async with client(server.url, **fields) as remote:
        return await remote.infer(ROW, body_bytes_max=1 << 20)


def echo(handler: Handler) -> None:
    """Answers in binary what came in binary, under the name `y`."""
    length = int(handler.headers["Inference-Header-Content-Length"])
    (entry,) = json.loads(handler.body[:length])["inputs"]
    head = json.dumps({"model_version": "2", "outputs": [entry | {"name": "y"}]}).encode()
    handler.reply(200, head + handler.body[length:], Inference_Header_Content_Length=str(len(head)))


async def test_a_call_answers_the_outputs_by_name_with_the_version_that_answered() -> None:
    with serving(linear(2.0)) as server:
        answer = await infer(server)

    assert answer.version == "9"
    assert [name for name, _ in answer.outputs] == ["label", "probabilities"]
    label, probabilities = (array for _, array in answer.outputs)
    assert label.dtype == np.int64
    assert label.tolist() == [0]
    np.testing.assert_allclose(probabilities, [[0.7310586, 0.2689414]], rtol=1e-6)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.1, np.nan, np.inf]], np.float32),
        np.array([2**63 - 1, -(2**63)], np.int64),
        np.array([True, False]),
        np.array([["naïve", ""], ["日本", "x" * 300]], dtype=object),
    ],
)
async def test_binary_carries_every_value_as_it_is(array: np.ndarray) -> None:
    with serving(echo, extensions=("binary_tensor_data",)) as server:
        async with client(server.url) as remote:
            answer = await remote.infer([("x", array)], body_bytes_max=1 << 20)

    ((name, got),) = answer.outputs
    assert name == "y"
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


def test_json_writes_what_is_not_finite_as_null_and_reads_null_as_nan() -> None:
    body, headers = encode([("x", np.array([[np.nan, 2.5]], np.float32))], binary=False)

    assert headers == {"Content-Type": "application/json"}
    assert json.loads(body)["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [None, 2.5]}
    answer = decode(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[[null,2.5]]}]}', None)
    np.testing.assert_array_equal(answer.outputs[0][1], np.array([[np.nan, 2.5]], np.float32))


async def test_a_call_carries_its_headers_the_token_and_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serving(linear(1.0)) as server:
        async with client(server.url, token="secret") as remote:
            await remote.infer(ROW, body_bytes_max=1 << 20, headers={"x-of-this-call": "1"})

    headers, _ = server.calls[0]
    assert headers["x-of-this-call"] == "1"
    assert headers["authorization"] == "Bearer secret"
    assert headers["host"] == server.url.removeprefix("http://")
    assert "cookie" not in headers


async def test_a_redirect_is_a_failure_and_is_not_followed() -> None:
    with serving(linear(1.0)) as target, serving(failing(307, Location=f"{target.url}/v2/models/m/infer")) as server:
        with pytest.raises(RemoteFailed, match="307"):
            await infer(server)
        assert not target.calls


async def test_a_server_that_hangs_costs_the_time_out_and_no_more() -> None:
    with serving(hanging) as server, pytest.raises(RemoteTimeout):
        await infer(server, timeout_s=0.1)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_input_is_told_apart_from_a_failing_server(status: int) -> None:
    with serving(failing(status)) as server, pytest.raises(InputRefused):
        await infer(server)


@pytest.mark.parametrize("status", [204, 401, 404, 500, 503])
async def test_any_other_status_is_a_failure(status: int) -> None:
    with serving(failing(status)) as server, pytest.raises(RemoteFailed) as caught:
        await infer(server)
    assert type(caught.value) is RemoteFailed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[1,2]",
        b'{"outputs": 5}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [1]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": ["a"]}]}',
        b'{"outputs": [{"name": "y", "datatype": "BF99", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}',
        b'{"outputs": [{"name": "y", "datatype": "INT8", "shape": [-1], "data": []}, ' + b"[" * 5000,
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": ' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    ],
)
async def test_garbage_is_a_failure_and_never_another_exception(body: bytes) -> None:
    with serving(saying(body)) as server, pytest.raises(RemoteFailed):
        await infer(server)


async def test_an_answer_without_end_is_cut_off() -> None:
    with serving(saying(b" " * (REPLY_BYTES_MAX + 1))) as server, pytest.raises(RemoteFailed, match="above"):
        await infer(server)


async def test_a_body_above_the_bound_is_not_sent() -> None:
    with serving(linear(1.0)) as server:
        async with client(server.url) as remote:
            with pytest.raises(BodyTooLarge):
                await remote.infer([("x", np.zeros((100, 2), np.float32))], body_bytes_max=200)
        assert not server.calls


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    with serving(linear(1.0)) as server:
        url = server.url
    async with client(url) as remote:
        with pytest.raises(RemoteFailed):
            await remote.infer(ROW, body_bytes_max=1 << 20)


async def test_cookies_are_not_kept() -> None:
    with serving(failing(500, Set_Cookie="session=1")) as server:
        async with client(server.url) as remote:
            for _ in range(2):
                with pytest.raises(RemoteFailed):
                    await remote.infer(ROW, body_bytes_max=1 << 20)
        assert all("cookie" not in headers for headers, _ in server.calls)


async def test_link_local_is_refused_after_resolution_even_where_it_is_allowed_by_name() -> None:
    async with client("http://169.254.169.254", allow=("169.254.169.254",)) as remote:
        with pytest.raises(RemoteRefused):
            await remote.infer(ROW, body_bytes_max=1 << 20)


async def test_calls_overlap() -> None:
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def together(answer: Callable[[Handler], None]) -> Callable[[Handler], None]:
        def behave(handler: Handler) -> None:
            if len(handler.server.calls) >= 3:
                loop.call_soon_threadsafe(arrived.set)
                handler.server.released.set()
            handler.server.released.wait()
            answer(handler)

        return behave

    with serving(together(linear(1.0))) as server:
        async with client(server.url) as remote:
            answers = await asyncio.gather(*(remote.infer(ROW, body_bytes_max=1 << 20) for _ in range(3)))
    assert arrived.is_set()
    assert len(answers) == 3
