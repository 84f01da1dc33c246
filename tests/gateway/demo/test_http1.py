import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.demo.http1 import CallFailed, HttpClient

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, **options: float) -> AsyncIterator[HttpClient]:
    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient(f"http://127.0.0.1:{port}", connections=2, timeout_s=options.get("timeout_s", 5.0))
    try:
        yield client
    finally:
        client.close()
        server.close()
        await server.wait_closed()


async def request_of(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
    return head, await reader.readexactly(int(length.split(":")[1]))


async def test_body_and_headers_arrive_and_come_back() -> None:
    async def echo(reader, writer) -> None:
        head, body = await request_of(reader)
        named = "x-unit: N1/2013" in head and head.startswith("POST /v2 ")
        writer.write(b"HTTP/1.1 201 Created\r\nX-Named: %d\r\ncontent-length: %d\r\n\r\n" % (named, len(body)))
        writer.write(body[:3])
        await writer.drain()
        writer.write(body[3:])

    async with listening(echo) as client:
        reply = await client.post("/v2", b'{"a":1}', {"x-unit": "N1/2013"})
    assert (reply.status, reply.headers["x-named"], reply.body) == (201, "1", b'{"a":1}')


async def test_a_connection_is_kept_for_the_next_call() -> None:
    connections = 0

    async def answer(reader, writer) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await request_of(reader)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with listening(answer) as client:
        for _ in range(3):
            await client.post("/", b"")
    assert connections == 1


async def test_a_closed_connection_is_an_error_and_the_next_call_makes_a_new_one() -> None:
    calls = 0

    async def answer(reader, writer) -> None:
        nonlocal calls
        calls += 1
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" if calls > 1 else b"HTTP/1.1 200 OK\r\ncontent-l")

    async with listening(answer) as client:
        with pytest.raises(CallFailed, match="closed"):
            await client.post("/", b"")
        assert (await client.post("/", b"")).status == 200


async def test_silence_ends_in_time() -> None:
    async def silent(reader, writer) -> None:
        with suppress(ConnectionError):
            await reader.read()

    async with listening(silent, timeout_s=0.05) as client:
        with pytest.raises(CallFailed, match="no answer within"):
            await client.post("/", b"")


async def test_what_is_not_http_is_an_error() -> None:
    async def babble(reader, writer) -> None:
        await request_of(reader)
        writer.write(b"hello\r\n\r\n")

    async with listening(babble) as client:
        with pytest.raises(CallFailed, match="not HTTP"):
            await client.post("/", b"")


async def test_nobody_listening_is_an_error() -> None:
    client = HttpClient("http://127.0.0.1:9", connections=1, timeout_s=5.0)
    with pytest.raises(CallFailed, match="no connection"):
        await client.post("/", b"")
