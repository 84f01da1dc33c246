import asyncio
import gzip
import zlib

import pytest
from starlette.requests import Request

from gateway.admission import Admission, Holding
from gateway.errors import DecodedTooLarge, NotReady, RequestMalformed
from gateway.rest.bodies import compress, decompress, read_body


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_what_was_packed_is_unpacked(encoding, pack):
    assert decompress(pack(b"body" * 100), encoding, 1000) == b"body" * 100


def test_members_of_one_gzip_body_are_joined_within_one_bound():
    packed = gzip.compress(b"a" * 600, mtime=0) + gzip.compress(b"b" * 600, mtime=0)
    assert len(decompress(packed, "gzip", 1200)) == 1200
    with pytest.raises(DecodedTooLarge):
        decompress(packed, "gzip", 1199)


def test_a_bomb_is_refused_without_being_made():
    bomb = gzip.compress(b"\0" * 50_000_000, mtime=0)
    with pytest.raises(DecodedTooLarge, match="larger than 1000 bytes after decompression"):
        decompress(bomb, "gzip", 1000)


@pytest.mark.parametrize("packed", [b"plain", gzip.compress(b"cut off" * 50, mtime=0)[:-9], zlib.compress(b"other")])
def test_what_is_not_the_format_is_refused(packed):
    with pytest.raises(RequestMalformed, match="gzip"):
        decompress(packed, "gzip", 1000)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.1, deflate", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
    ],
)
def test_a_reply_is_compressed_only_on_request(accepted, encoding):
    headers, body = compress(b"body" * 200, accepted)
    assert dict(headers).get("content-encoding") == encoding
    if encoding:
        assert decompress(body, encoding, 10_000) == b"body" * 200


def test_small_and_incompressible_replies_stay_as_they_are():
    assert compress(b"tiny", "gzip") == ([], b"tiny")
    noise = bytes((place * place * 7919 >> 3) & 0xFF for place in range(300))
    noise = zlib.compress(noise) + bytes(range(256))
    headers, body = compress(noise, "gzip")
    assert len(body) <= len(noise)
    assert bool(headers) == (body != noise)


def test_members_are_bounded_since_each_copies_what_lies_behind_it():
    member = gzip.compress(b"a", mtime=0)
    assert decompress(member * 64, "gzip", 1000) == b"a" * 64
    with pytest.raises(RequestMalformed, match="more than 64 members"):
        decompress(member * 65, "gzip", 1000)


class Uploads:
    """Requests whose body has arrived in pieces, and the threads that `asyncio.to_thread` was called for."""

    def __init__(self, monkeypatch):
        self.threads = 0
        to_thread = asyncio.to_thread

        async def counted(*args):
            self.threads += 1
            return await to_thread(*args)

        monkeypatch.setattr(asyncio, "to_thread", counted)

    async def read(self, holding, *pieces, bytes_max=1 << 24, **headers):
        messages = [
            {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1}
            for place, piece in enumerate(pieces)
        ]

        async def receive():
            return messages.pop(0)

        scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
        return await read_body(Request(scope, receive), holding, bytes_max=bytes_max, seconds_max=1.0)


@pytest.fixture
def uploads(monkeypatch):
    return Uploads(monkeypatch)


async def test_a_small_body_that_becomes_large_is_not_unpacked_on_the_loop(uploads):
    admission = Admission(1, 1 << 24)
    encoding = {"content-encoding": "gzip"}
    with Holding(admission) as holding:
        assert await uploads.read(holding, gzip.compress(b"\0" * 100_000), **encoding) == b"\0" * 100_000
        assert uploads.threads == 0
        body = await uploads.read(holding, gzip.compress(b"\0" * 10_000_000), **encoding)
        assert (len(body), uploads.threads) == (10_000_000, 1)
        assert admission._heavy_bytes == 10_000_000
        with pytest.raises(DecodedTooLarge, match="larger than 1000 bytes"):
            await uploads.read(holding, gzip.compress(b"\0" * 10_000), bytes_max=1000, **encoding)
    assert admission._heavy_bytes == 0


async def test_bodies_that_arrive_are_bounded_together_and_one_is_always_taken_alone(uploads):
    admission = Admission(1, 200_000)
    piece = b"x" * 100_000
    with Holding(admission) as alone:
        assert len(await uploads.read(alone, piece, piece, piece)) == 300_000
        with Holding(admission) as other, pytest.raises(NotReady, match="as many bytes of large requests"):
            await uploads.read(other, piece)
        with Holding(admission) as small:
            assert await uploads.read(small, b"x" * 1000) == b"x" * 1000
    assert admission._heavy_bytes == 0
    with Holding(admission) as first, Holding(admission) as second:
        await uploads.read(first, piece)
        with pytest.raises(NotReady):  # by what it announces, before any of it is read
            await uploads.read(second, **{"content-length": "150000"})
        await uploads.read(second, piece)
        with pytest.raises(NotReady):
            await uploads.read(second, piece, piece)
    assert admission._heavy_bytes == 0
