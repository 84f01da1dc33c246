import asyncio
import contextlib
import socket

import httpx
import pytest

from gateway.telemetry.responder import Answer, Responder


@pytest.fixture
async def port():
    sock = socket.create_server(("127.0.0.1", 0))
    responder = Responder(
        {
            "/livez": lambda accept: Answer(200, b"{}"),
            "/readyz": lambda accept: Answer(503, b'{"ready":false}'),
            "/metrics": lambda accept: Answer(200, accept.encode(), "text/plain"),
        }
    )
    await responder.start(sock)
    yield sock.getsockname()[1]
    await responder.stop()


async def test_pages_answer_by_path_with_their_status(port):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz?verbose")).json() == {"ready": False}
        assert (await client.get("/metrics", headers={"Accept": "text/x"})).text == "text/x"
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.post("/livez")).status_code == 405
        assert (await client.head("/livez")).status_code == 200


async def exchange(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    reply = await reader.read()
    writer.close()
    return reply


async def test_a_head_that_is_too_large_is_closed_and_others_still_answer(port):
    with contextlib.suppress(ConnectionResetError):
        assert await exchange(port, b"GET /livez HTTP/1.1\r\nx: " + b"a" * 100_000) == b""
    assert (await exchange(port, b"GET /livez HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_caller_that_leaves_disturbs_nobody(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /li")
    writer.close()
    await writer.wait_closed()
    assert (await exchange(port, b"GET /livez HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_connections_above_the_bound_are_closed_at_once(port):
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(64)]
    with contextlib.suppress(ConnectionResetError):
        assert await exchange(port, b"GET /livez HTTP/1.1\r\n\r\n") == b""
    for _, writer in silent:
        writer.close()
        await writer.wait_closed()


async def test_who_never_reads_is_cut_and_holds_no_place(monkeypatch):
    monkeypatch.setattr("gateway.telemetry.responder._ANSWER_S", 0.3)
    sock = socket.create_server(("127.0.0.1", 0))
    responder = Responder({"/metrics": lambda accept: Answer(200, bytes(64 << 20), "text/plain")})
    await responder.start(sock)
    greedy = socket.create_connection(sock.getsockname())
    greedy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(30):
        while not responder.connections:  # noqa: ASYNC110 - the reply's beginning is what is waited for
            await asyncio.sleep(0.01)
        while responder.connections:  # noqa: ASYNC110 - its end is
            await asyncio.sleep(0.01)
    with greedy:
        greedy.settimeout(30)
        parts = await asyncio.to_thread(list, iter(lambda: greedy.recv(1 << 20), b""))  # to the connection's end
    taken = sum(map(len, parts))
    assert 0 < taken < 64 << 20
    await responder.stop()
