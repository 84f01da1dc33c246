import asyncio
import socket

import pytest

from gateway.pipe import Pipe, PipeBroken


@pytest.fixture
async def ends():
    near, far = socket.socketpair()
    pipes = Pipe(near.detach()), Pipe(far.detach())
    yield pipes
    for pipe in pipes:
        pipe.close()


async def test_lines_go_both_ways_in_order(ends):
    near, far = ends
    near.send({"command": "drain"})
    far.send({"event": "beat", "n": 1})
    far.send({"event": "beat", "n": 2})
    assert await anext(aiter(far)) == {"command": "drain"}
    lines = aiter(near)
    assert [(await anext(lines))["n"] for _ in range(2)] == [1, 2]


async def test_a_line_larger_than_the_socket_buffer_arrives_whole(ends):
    near, far = ends
    near.send({"problem": "x" * 900_000})
    line = await anext(aiter(far))
    assert len(line["problem"]) == 900_000
    await near.flush()


async def test_the_reader_ends_when_the_peer_closes_and_the_sender_does_not_mind(ends):
    near, far = ends
    far.send({"event": "last"})
    far.close()
    assert [line async for line in near] == [{"event": "last"}]
    near.send({"command": "drain"})
    near.send({"command": "drain"})


async def test_what_a_hung_peer_does_not_read_is_bounded_and_counted(ends):
    near, _ = ends
    for _ in range(12):
        near.send({"problem": "x" * 500_000})
    assert near.dropped > 0


@pytest.mark.parametrize("noise", [b"hello\n", b"[1]\n", b"x" * 2_000_000])
async def test_what_is_no_line_breaks_the_pipe(noise):
    near, far = socket.socketpair()
    pipe = Pipe(near.detach())
    loop = asyncio.get_running_loop()
    far.setblocking(False)
    writing = asyncio.create_task(loop.sock_sendall(far, noise))
    with pytest.raises(PipeBroken):
        await anext(aiter(pipe))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    far.close()
    pipe.close()
