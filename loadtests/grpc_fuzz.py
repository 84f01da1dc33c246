"""Long fuzzing of the gRPC wire door: seeded sessions of good, mutated and random frames, until the time is up or something is wrong.

    python -m loadtests.grpc_fuzz [--minutes 10] [--seed 1]

After each session: nothing was raised or logged, every frame that came back is whole, HPACK of the answers decodes, every answer ends
once, and nothing is left: no held bytes, no tickets, no tasks, no lingering calls. A failure names its seed, which repeats it.
"""

import argparse
import asyncio
import contextlib
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from gateway.settings import Limits
from tests.kit import http2
from tests.kit.grpc_wire import SESSION, START, WireDoor, fields, framed, infer
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

LIMITS = Limits(body_bytes_binary_max=100_000, body_bytes_json_max=50_000, header_bytes_max=4096)
SESSIONS_A_PLANE = 2000
FLAGS = (0, 0, 1, 4, 5, 5, 8, 9, 13, 32, 37, 45, 255)
IDS = (0, 1, 1, 3, 5, 7, 7, 9, 11, 15, 17, 2, 2**31 - 1)
METHODS = ("ModelInfer", "ModelStreamInfer", "ServerLive", "ModelMetadata", "Nope", "/", "RepositoryIndex")


class Wrong(Exception):
    """Something that must never happen."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logged = _Logged()
    logging.getLogger("gateway.rpc.wire").addHandler(logged)
    logging.getLogger("gateway.rpc.wire").propagate = False
    seed, until_s, ends = options.seed, time.monotonic() + options.minutes * 60, Counter[str]()
    with contextlib.suppress(KeyboardInterrupt):  # what was done counts
        while time.monotonic() < until_s:
            seed = uvloop.run(_plane(seed, until_s, logged, ends))
    print(f"{ends.total()} sessions, nothing wrong; connections ended: {dict(ends.most_common())}")
    return 0


class _Logged(logging.Handler):
    """Whatever the door logs is a mistake of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        raise Wrong(f"logged: {record.getMessage()}") from (record.exc_info[1] if record.exc_info else None)


async def _plane(seed: int, until_s: float, logged: logging.Handler, ends: "Counter[str]") -> int:
    """Sessions over one plane; answers the next seed."""
    del logged
    with tempfile.TemporaryDirectory() as folder:
        plane = Plane(Path(folder), spool_bytes_max=1 << 30)
        plane.serve({"champion": stage_linear(plane.artifacts)})
        door = WireDoor(plane, LIMITS)
        for number in range(seed, seed + SESSIONS_A_PLANE):
            try:
                await _session(door, random.Random(number), ends)
            except Exception as error:
                raise Wrong(f"seed {number}") from error
            if time.monotonic() > until_s:
                break
        plane.close()
    return number + 1


async def _session(door: WireDoor, chance: random.Random, ends: "Counter[str]") -> None:
    caller = door.connect()
    caller.say(START)
    sent = _bytes(chance)
    at = 0
    while at < len(sent) and not caller.transport.is_closed:
        step = chance.choice((1, 7, 50, 400, 4000, 60_000))
        caller.say(sent[at : at + step])
        at += step
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        if chance.random() < 0.02:
            caller.sweep(chance.choice((0.0, 11.0, 31.0)))
        if chance.random() < 0.01:
            caller.protocol.shutdown()
        _check(caller.open_streams <= 256, "too many streams")
        _check(door.shared.held_bytes <= door.shared.held_bytes_max + LIMITS.body_bytes_binary_max, "too much held")
    if chance.random() < 0.5:
        await door.settle()
    ends[caller.fault or "open"] += 1
    caller.leave()
    async with asyncio.timeout(20):
        await door.settle(is_over=True)
    caller.answers  # noqa: B018  # reads every frame and every field block
    left = door.shared.held_bytes, door.shared.unsent.bytes, door.plane.data.inflight, caller.lingering
    _check(left == (0, 0, 0, 0) and not door.shared.connections, f"left behind: {left}")


def _bytes(chance: random.Random) -> bytes:
    """What one caller sends: mostly good calls, with a rudeness of its own."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(2000))
    rudeness = chance.choice((0.0, 0.0, 0.01, 0.05, 0.3))
    parts = list(SESSION) if chance.random() < 0.5 else []
    for place in range(chance.randrange(1, 30)):
        stream = 101 + 2 * place
        parts.append(_odd(chance, stream) if chance.random() < rudeness else _good(chance, stream))
        if chance.random() < 0.2:
            parts.append(_legal(chance, chance.choice((stream, 101))))
    if chance.random() < rudeness:
        chance.shuffle(parts)
    sent = bytearray(b"".join(parts))
    while chance.random() < rudeness * 3:
        _mutate(sent, chance)
    return bytes(sent)


def _mutate(sent: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(sent) or 1)
    match chance.randrange(4):
        case 0 if sent:
            sent[min(place, len(sent) - 1)] ^= 1 << chance.randrange(8)
        case 1:
            del sent[place : place + chance.randrange(1, 30)]
        case 2:
            sent[place:place] = chance.randbytes(chance.randrange(12))
        case _:
            sent[place:place] = _odd(chance, chance.choice(IDS))


def _legal(chance: random.Random, stream: int) -> bytes:
    """What an honest caller may send at any time, about a stream that is or was there."""
    match chance.randrange(5):
        case 0:
            return http2.settings((4, chance.choice((0, 1, 100, 65_535, 1 << 20))), (1, chance.choice((0, 4096))))
        case 1:
            return http2.window_update(0, chance.choice((1, 1000, 100_000)))
        case 2:
            return http2.window_update(stream, chance.choice((1, 1000, 100_000)))
        case 3:
            return http2.rst_stream(stream)
        case _:
            return http2.frame(http2.PING, 0, 0, bytes(8))


def _good(chance: random.Random, stream: int) -> bytes:
    """A call, perhaps in pieces, perhaps cancelled."""
    method = chance.choice(METHODS)
    body = infer(
        chance.choice((1, 1, 2, 500)),
        **chance.choice(({}, {"id": "x"}, {"model_name": "nope"}, {"model_version": "1"})),
    )
    if method not in {"ModelInfer", "ModelStreamInfer"}:
        body = framed(b"")
    elif chance.random() < 0.2:
        body *= chance.randrange(4)
    more = chance.choice(
        (
            (),
            (),
            (("grpc-timeout", "0n"),),
            (("x-request-id", "r"),),
            (("x-runoff-explain", "1"),),
            (("grpc-encoding", "gzip"),),
        )
    )
    head = http2.headers(stream, fields=fields(method, *more))
    size = chance.choice((1, 50, 5000, 16_384))
    pieces = [body[at : at + size] for at in range(0, len(body), size)][:200] or [b""]
    data = [http2.frame(http2.DATA, 0, stream, piece) for piece in pieces[:-1]]
    data.append(http2.frame(http2.DATA, http2.END_STREAM * (chance.random() < 0.9), stream, pieces[-1]))
    if chance.random() < 0.15:
        data.insert(chance.randrange(len(data) + 1), http2.rst_stream(stream))
    return head + b"".join(data)


def _odd(chance: random.Random, stream: int) -> bytes:
    """A frame that may be anything."""
    match chance.randrange(6):
        case 0:
            return http2.settings(
                (chance.randrange(8), chance.choice((0, 1, 10, 16_384, 65_535, 70_000, 2**31 - 1, 2**31)))
            )
        case 1:
            return http2.window_update(chance.choice((0, stream)), chance.choice((0, 1, 1000, 2**31 - 1)))
        case 2:
            return http2.frame(http2.PING, chance.choice((0, 1)), 0, bytes(8)) * chance.choice((1, 1, 300))
        case 3:
            block = http2.block(fields("ModelInfer"))
            cut = chance.randrange(len(block))
            return http2.frame(http2.HEADERS, chance.choice((0, 1)), stream, block[:cut]) + http2.frame(
                http2.CONTINUATION, chance.choice((0, 4, 4)), stream, block[cut:]
            )
        case 4:
            payload = bytes((chance.randrange(40),)) + chance.randbytes(chance.randrange(60))
            return http2.frame(http2.DATA, chance.choice((8, 9)), stream, payload)
        case _:
            return http2.frame(
                chance.randrange(12),
                chance.choice(FLAGS),
                chance.choice(IDS),
                chance.randbytes(chance.choice((0, 4, 5, 6, 8, 30))),
            )


def _check(is_right: bool, problem: str) -> None:
    if not is_right:
        raise Wrong(problem)


if __name__ == "__main__":
    sys.exit(main())
