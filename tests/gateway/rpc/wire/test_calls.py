"""Handlers of every kind, run by the wire door as grpcio's server would run them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.rpc.wire.calls import OUTBOX_BYTES_MAX
from gateway.rpc.wire.stream import RECV_WINDOW
from gateway.settings import Limits
from tests.kit import http2
from tests.kit.grpc_wire import START, Caller, WireDoor, fields, framed
from tests.kit.plane import Plane

Context = Any


class Methods:
    """A service whose methods a test may look into."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.go = asyncio.Event()
        self.is_cancelled = False

    async def echo(self, request: bytes, context: Context) -> bytes:
        self.seen.append((request, context.invocation_metadata(), context.peer(), context.time_remaining()))
        return request

    async def aborts(self, request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.ABORTED, "no ä", (("x-why", "because"), ("b-bin", b"\0")))
        raise AssertionError

    async def sets(self, request: bytes, context: Context) -> bytes:
        await context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"),))
        return b"ok"

    async def breaks(self, request: bytes, context: Context) -> bytes:
        raise ZeroDivisionError("secret")

    async def waits(self, request: bytes, context: Context) -> bytes:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        return b""

    async def collects(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        return b"+".join([request async for request in requests])

    async def holds(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            await self.go.wait()
            self.seen.append(len(request))
        yield b"end"

    async def pours(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            for number in range(100):
                self.seen.append(number)
                yield bytes(50_000)
        finally:
            self.is_cancelled = len(self.seen) < 100

    async def stumbles(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        yield b"one"
        await context.abort(grpc.StatusCode.DATA_LOSS, "gone")


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
async def caller(tmp_path: Path, methods: Methods) -> AsyncIterator[Caller]:
    kinds: dict[str, Callable[..., grpc.RpcMethodHandler]] = {
        "collects": grpc.stream_unary_rpc_method_handler,
        "holds": grpc.stream_stream_rpc_method_handler,
        "pours": grpc.unary_stream_rpc_method_handler,
        "stumbles": grpc.unary_stream_rpc_method_handler,
    }
    names = ["echo", "aborts", "sets", "breaks", "waits", *kinds]
    made = {name: kinds.get(name, grpc.unary_unary_rpc_method_handler)(getattr(methods, name)) for name in names}
    plane = Plane(tmp_path)
    door = WireDoor(plane, Limits(body_bytes_binary_max=4 << 20), [grpc.method_handlers_generic_handler("t", made)])
    caller = door.connect()
    caller.say(START)
    yield caller
    caller.leave()
    await door.settle(is_over=True)
    assert (door.shared.held_bytes, caller.lingering) == (0, 0)
    plane.close()


def ask(method: str, *messages: bytes, more: tuple[tuple[str, str], ...] = ()) -> bytes:
    return http2.call(1, b"".join(map(framed, messages)), fields(f"/t/{method}", *more))


async def test_a_handler_sees_what_its_caller_said(caller: Caller, methods: Methods) -> None:
    caller.say(ask("echo", b"hello", more=(("x-a", "b"), ("grpc-timeout", "5S"))))
    await caller.ended(1)
    assert caller.messages(1) == [b"hello"]
    ((request, metadata, peer, remaining),) = methods.seen
    assert (request, metadata, peer) == (b"hello", (("x-a", "b"),), "unix:")
    assert 4 < remaining <= 5


async def test_metadata_of_both_ends_arrives(caller: Caller) -> None:
    caller.say(ask("sets", b""))
    await caller.ended(1)
    first, last = caller.answers[1].fields
    assert dict(first)["x-first"] == "1"
    assert dict(last) == {"grpc-status": "0", "x-last": "2"}


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("aborts", {"grpc-status": "10", "grpc-message": "no %C3%A4", "x-why": "because", "b-bin": "AA"}),
        ("breaks", {"grpc-status": "13", "grpc-message": "internal error"}),
    ],
)
async def test_a_handler_that_fails_is_one_section(
    caller: Caller, caplog: pytest.LogCaptureFixture, method: str, status: dict[str, str]
) -> None:
    caplog.set_level(logging.CRITICAL, "gateway.rpc.wire.calls")
    caller.say(ask(method, b""))
    await caller.ended(1)
    (fields_,) = caller.answers[1].fields
    assert dict(fields_) == {":status": "200", "content-type": "application/grpc", **status}


async def test_a_stream_that_fails_in_the_middle_keeps_what_it_sent(caller: Caller) -> None:
    caller.say(ask("stumbles", b""))
    await caller.ended(1)
    assert caller.messages(1) == [b"one"]
    assert caller.status(1) == {"grpc-status": "15", "grpc-message": "gone"}


async def test_a_deadline_ends_a_handler(caller: Caller, methods: Methods) -> None:
    caller.say(ask("waits", b"", more=(("grpc-timeout", "20m"),)))
    await caller.ended(1)
    assert caller.status(1)["grpc-status"] == "4"
    assert methods.is_cancelled


async def test_a_cancelled_call_cancels_its_handler(caller: Caller, methods: Methods) -> None:
    caller.say(ask("waits", b""))
    await asyncio.sleep(0)
    caller.say(http2.rst_stream(1))
    assert caller.lingering == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert methods.is_cancelled
    assert 1 not in caller.answers


async def test_messages_of_a_stream_reach_the_handler_in_order(caller: Caller) -> None:
    caller.say(ask("collects", b"a", b"", b"c"))
    await caller.ended(1)
    assert caller.messages(1) == [b"a++c"]


async def test_windows_follow_what_the_handler_reads(caller: Caller, methods: Methods) -> None:
    """A handler that does not read lets its caller send one window and no more; one that reads lets it go on."""
    message = framed(bytes(RECV_WINDOW // 4 - 5))
    parts = [http2.frame(http2.DATA, 0, 1, message[at : at + 16_384]) for at in range(0, len(message), 16_384)]

    def window() -> int:
        """What the caller may still send."""
        updates = [one for one in caller.frames if one.kind == http2.WINDOW_UPDATE and one.stream == 1]
        return RECV_WINDOW - 4 * len(message) + sum(int.from_bytes(one.payload, "big") for one in updates)

    caller.say(http2.headers(1, fields=fields("/t/holds")), *parts * 4)
    for _ in range(5):
        await asyncio.sleep(0)
    assert window() <= len(message)  # the one that the handler has taken
    methods.go.set()
    while len(methods.seen) < 4:  # noqa: ASYNC110 - turns are what is waited for
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert window() > RECV_WINDOW // 2
    caller.say(http2.frame(http2.DATA, http2.END_STREAM, 1))
    await caller.ended(1)
    assert caller.messages(1) == [b"end"]


async def test_a_message_that_has_begun_may_come_at_once_whatever_its_size(caller: Caller) -> None:
    size = RECV_WINDOW * 3 // 2
    caller.say(http2.headers(1, fields=fields("/t/collects")))
    caller.say(http2.frame(http2.DATA, 0, 1, b"\0" + size.to_bytes(4, "big") + bytes(1000)))
    await asyncio.sleep(0)
    (update,) = [one for one in caller.frames if one.kind == http2.WINDOW_UPDATE and one.stream == 1]
    assert RECV_WINDOW - 1005 + int.from_bytes(update.payload, "big") >= size - 1000


async def test_a_handler_is_never_far_ahead_of_its_caller(caller: Caller, methods: Methods) -> None:
    caller.say(ask("pours", b""))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(methods.seen) <= (OUTBOX_BYTES_MAX + 65_535) // 50_000 + 2
    for _ in range(100):
        caller.say(http2.window_update(0, 60_000), http2.window_update(1, 60_000))
        await asyncio.sleep(0)
    await caller.ended(1)
    assert caller.messages(1) == [bytes(50_000)] * 100


async def test_a_stream_whose_caller_leaves_is_closed(caller: Caller, methods: Methods) -> None:
    caller.say(ask("pours", b""))
    for _ in range(50):
        await asyncio.sleep(0)
    caller.say(http2.rst_stream(1))
    for _ in range(5):
        await asyncio.sleep(0)
    assert methods.is_cancelled


@pytest.mark.parametrize("messages", [(), (b"a", b"b")])
async def test_a_unary_method_takes_one_message(caller: Caller, messages: tuple[bytes, ...]) -> None:
    caller.say(ask("echo", *messages))
    await caller.ended(1)
    assert caller.status(1)["grpc-status"] == "12"


async def test_a_broken_message_ends_a_running_call(caller: Caller) -> None:
    caller.say(http2.headers(1, fields=fields("/t/collects")), http2.frame(http2.DATA, 0, 1, framed(b"a")))
    await asyncio.sleep(0)
    caller.say(http2.frame(http2.DATA, 0, 1, b"\7\0\0\0\0"))
    await caller.ended(1)
    assert caller.status(1)["grpc-status"] == "13"
