import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from gateway.acceptor import Acceptor
from tests.kit.certificates import Certificate


class Greeter(asyncio.Protocol):
    """Says hello, and counts itself while it is open."""

    open: set["Greeter"]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.open.add(self)
        self.transport = transport
        transport.write(b"hello")  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.discard(self)


class World:
    def __init__(self, sock: socket.socket | None = None, **how: Any) -> None:
        self.open: set[Greeter] = set()
        protocol = type("GreeterHere", (Greeter,), {"open": self.open})
        sock = sock or socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        bounds = {"connections_max": 16, "handshake_s": 10.0, **how}
        self.acceptor = Acceptor(sock, protocol, lambda: len(self.open), **bounds)
        self.acceptor.open()

    async def hello(self, **how: Any) -> asyncio.StreamWriter:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **how)
            assert await reader.readexactly(5) == b"hello"
        return writer

    def stalled(self) -> socket.socket:
        """A caller that never begins its handshake."""
        return socket.create_connection(("127.0.0.1", self.port))


@pytest.fixture
async def make() -> Any:
    made: list[World] = []

    def make(*arguments: Any, **how: Any) -> World:
        made.append(World(*arguments, **how))
        return made[-1]

    yield make
    for world in made:
        await world.acceptor.close(0.0)
        for greeter in world.open.copy():
            greeter.transport.abort()  # type: ignore[attr-defined]


Make = Callable[..., World]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"))


def server_tls(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


async def test_connections_beyond_the_bound_wait_in_the_kernel(make: Make) -> None:
    world = make(connections_max=1)
    first = await world.hello()
    reader, second = await asyncio.open_connection("127.0.0.1", world.port)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.readexactly(5)
    first.close()
    async with asyncio.timeout(30):
        assert await reader.readexactly(5) == b"hello"
    second.close()


async def test_callers_that_stall_in_their_handshake_hold_up_nobody(make: Make, certificate: Certificate) -> None:
    world = make(tls=server_tls(certificate))
    stalled = [world.stalled() for _ in range(10)]
    (await world.hello(ssl=certificate.trust)).close()
    for one in stalled:
        one.close()


async def test_a_handshake_is_given_up_in_time_and_its_place_with_it(make: Make, certificate: Certificate) -> None:
    world = make(tls=server_tls(certificate), handshake_s=0.2, connections_max=2)
    stalled = [world.stalled() for _ in range(2)]
    (await world.hello(ssl=certificate.trust)).close()
    for one in stalled:
        one.settimeout(30)
        assert one.recv(1) == b""  # the server has closed it
        one.close()


async def test_whoever_is_queued_at_the_end_is_still_let_in(make: Make) -> None:
    world = make(connections_max=1)
    first = await world.hello()
    reader, second = await asyncio.open_connection("127.0.0.1", world.port)
    await world.acceptor.close(1.0)
    async with asyncio.timeout(30):
        assert await reader.readexactly(5) == b"hello"
    for writer in (first, second):
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", world.port)


async def test_the_end_does_not_wait_for_a_handshake_that_stalls(make: Make, certificate: Certificate) -> None:
    world = make(tls=server_tls(certificate))
    with world.stalled() as stalled:
        await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            await world.acceptor.close(0.1)
        stalled.settimeout(30)
        assert stalled.recv(1) == b""


class OutOfDescriptors(socket.socket):
    """Fails the first time that it is asked."""

    has_failed = False

    def accept(self) -> Any:
        if not self.has_failed:
            self.has_failed = True
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


async def test_trouble_with_accepting_is_waited_out(make: Make) -> None:
    sock = OutOfDescriptors(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    world = make(sock)
    (await world.hello()).close()
    assert sock.has_failed
