import gzip
import zlib

import pytest

from gateway.errors import DecodedTooLarge, RequestMalformed
from gateway.rest.bodies import compress, decompress


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
