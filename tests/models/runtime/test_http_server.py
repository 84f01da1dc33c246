import pytest

from models.runtime.http_server import HttpServer
from models.runtime.target import REPLY_BYTES_MAX, Access, InputRefused, RemoteFailed, RemoteRefused, RemoteTimeout
from tests.kit.remote_server import failing, hanging, linear, saying, serving


async def call(url: str, **fields: object) -> int:
    server = HttpServer(url, Access(allow=("127.0.0.1", "169.254.169.254"), **fields))
    try:
        async with server.calls():
            return (await server.send("/any", b"{}", {}, bytes_max=2)).status
    finally:
        await server.close()


async def test_a_redirect_is_a_failure_and_is_not_followed() -> None:
    with serving(linear(1.0)) as target, serving(failing(307, Location=f"{target.url}/any")) as server:
        with pytest.raises(RemoteFailed, match="307"):
            await call(server.url)
        assert not target.calls


@pytest.mark.parametrize(("status", "error"), [(400, InputRefused), (413, InputRefused), (500, RemoteFailed)])
async def test_a_refused_input_is_told_apart_from_a_failing_server(status: int, error: type[Exception]) -> None:
    with serving(failing(status)) as server, pytest.raises(error) as caught:
        await call(server.url)
    assert type(caught.value) is error


async def test_an_answer_without_end_is_cut_off() -> None:
    with serving(saying(b" " * (REPLY_BYTES_MAX + 1))) as server, pytest.raises(RemoteFailed, match="above"):
        await call(server.url)


async def test_a_server_that_hangs_costs_the_time_out_and_no_more() -> None:
    with serving(hanging) as server, pytest.raises(RemoteTimeout):
        await call(server.url, timeout_s=0.1)


async def test_link_local_is_refused_even_where_it_is_allowed_by_name() -> None:
    with pytest.raises(RemoteRefused):
        await call("http://169.254.169.254")
