import asyncio
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.rest.listener import RestListener
from gateway.settings import Limits, Settings, Tls
from tests.kit.certificates import Certificate

REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


class App:
    """Answers at once, or `/slow` when it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.asked = asyncio.Event()
        self.headers = []

    async def __call__(self, scope, receive, send):
        self.asked.set()
        self.headers = scope["headers"]
        if scope["path"] == "/slow":
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class World:
    def __init__(self, limits: Limits) -> None:
        self.app = App()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        settings = msgspec.structs.replace(Settings(workers=1), limits=limits)
        self.listener = RestListener(self.app, None, self.sock, settings)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(Limits(connections_max=2))
    world.listener.open()
    yield world
    world.app.release.set()
    await world.listener.close(1.0)


async def answered(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        return head.split(b"\r\n")[0] + b" " + await reader.readexactly(2)


async def test_requests_are_answered_with_a_date(world):
    reader, writer = await world.connect()
    writer.write(REQUEST)
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\ndate: " in head
    writer.close()


async def test_a_trailer_is_no_header_behind_plain_asgi_either(world):
    reader, writer = await world.connect()
    head = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    writer.write(head + b"0\r\nX-Runoff-Variant: b\r\n\r\n")
    assert await answered(reader) == b"HTTP/1.1 200 OK ok"
    assert [name for name, _ in world.app.headers] == [b"host", b"transfer-encoding"]
    writer.write(REQUEST)
    assert await answered(reader) == b"HTTP/1.1 200 OK ok"
    assert [name for name, _ in world.app.headers] == [b"host"]
    writer.close()


async def test_connections_above_the_bound_wait_in_the_kernel_and_are_served_later(world):
    pairs = [await world.connect() for _ in range(3)]
    for reader, writer in pairs[:2]:
        writer.write(REQUEST)
        await answered(reader)
    assert world.listener.connections == 2
    waiting_reader, waiting_writer = pairs[2]
    waiting_writer.write(REQUEST)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await waiting_reader.read(1)
    pairs[0][1].close()
    assert await answered(waiting_reader) == b"HTTP/1.1 200 OK ok"
    for _, writer in pairs:
        writer.close()


async def test_who_is_queued_when_the_end_comes_is_still_answered(world):
    pairs = [await world.connect() for _ in range(2)]
    for reader, writer in pairs:
        writer.write(REQUEST)
        await answered(reader)
    queued_reader, queued_writer = await world.connect()
    queued_writer.write(REQUEST)
    await world.listener.close(2.0)
    assert await answered(queued_reader) == b"HTTP/1.1 200 OK ok"
    with pytest.raises(ConnectionError):
        await world.connect()
    for writer in (queued_writer, *(writer for _, writer in pairs)):
        writer.close()


async def test_a_request_in_flight_finishes_before_the_end(world):
    reader, writer = await world.connect()
    writer.write(REQUEST.replace(b"/ ", b"/slow "))
    await world.app.asked.wait()
    closing = asyncio.create_task(world.listener.close(5.0))
    await asyncio.sleep(0)
    world.app.release.set()
    assert await answered(reader) == b"HTTP/1.1 200 OK ok"
    await closing
    writer.close()


async def test_who_does_not_finish_in_time_is_cut(world):
    reader, writer = await world.connect()
    writer.write(REQUEST.replace(b"/ ", b"/slow "))
    await world.app.asked.wait()
    async with asyncio.timeout(30):
        await world.listener.close(0.2)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
    writer.close()


async def test_callers_that_stall_in_their_handshake_hold_up_neither_others_nor_the_end(tmp_path):
    certificate = Certificate(tmp_path)
    sock = socket.create_server(("127.0.0.1", 0))
    settings = msgspec.structs.replace(Settings(workers=1), tls=Tls(**certificate.settings))
    listener = RestListener(App(), None, sock, settings)
    listener.open()
    stalled = [socket.create_connection(sock.getsockname()) for _ in range(10)]
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*sock.getsockname(), ssl=certificate.trust)
        writer.write(REQUEST)
        assert await answered(reader) == b"HTTP/1.1 200 OK ok"
        writer.close()
        await listener.close(0.5)
    for one in stalled:
        one.close()


async def test_a_connection_that_cannot_be_looked_after_is_ended_and_the_others_are_looked_after(world, caplog):
    looks = []

    class Connection:
        def __init__(self, *, is_broken: bool) -> None:
            self.is_broken, self.is_aborted, self.transport = is_broken, False, self

        def sweep(self, now: float) -> None:
            looks.append(self.is_broken)
            if self.is_broken:
                raise ZeroDivisionError(now)

        def abort(self) -> None:
            self.is_aborted = True

    broken, sound = Connection(is_broken=True), Connection(is_broken=False)
    world.listener._state.connections |= {broken, sound}
    world.listener.tick()
    world.listener._state.connections -= {broken, sound}
    assert sorted(looks) == [False, True]
    assert (broken.is_aborted, sound.is_aborted) == (True, False)
    assert "sweep_failed" in caplog.text
