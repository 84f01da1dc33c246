import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rpc.wire.messages import MessageCutter, inflate, is_whole, prefixed
from gateway.rpc.wire.status import CallFault


def cutter(encoding: str = "identity", bytes_max: int = 100_000, inflated: int = 50_000) -> MessageCutter:
    return MessageCutter(bytes_max, inflated, encoding)


def compressed(message: bytes) -> bytes:
    return b"\1" + prefixed(message)[1:]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=400), max_size=6), st.lists(st.integers(0, 2500), max_size=20))
def test_messages_come_out_whole_however_their_bytes_arrive(messages: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(map(prefixed, messages))
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    ours, found = cutter(), []
    for start, stop in pairwise(places):
        found += [bytes(one) for one in ours.cut(sent, start, stop)]
    assert found == messages
    assert ours.is_between
    assert ours.half_bytes == 0


def test_what_is_half_here_is_counted_and_what_is_promised_is_not_allocated() -> None:
    ours = cutter()
    ours.cut(prefixed(bytes(90_000)), 0, 105)
    assert ours.half_bytes == 100
    assert not ours.is_between
    assert ours._message is not None
    assert len(ours._message) < 200


def test_a_message_in_pieces_ends_where_a_tensor_can_be_read_in_place() -> None:
    sent = prefixed(bytes(1003))
    ours = cutter()
    ours.cut(sent, 0, 500)
    (message,) = ours.cut(sent, 500, len(sent))
    assert isinstance(message, memoryview)
    assert len(message) == 1003
    assert len(message.obj) % 16 == 0


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_messages_are_inflated_and_plain_ones_among_them_are_not(encoding: str, encode: object) -> None:
    sent = compressed(encode(b"hello" * 100)) + prefixed(b"plain")  # type: ignore[operator]
    assert cutter(encoding).cut(sent, 0, len(sent)) == [b"hello" * 100, b"plain"]


@pytest.mark.parametrize(
    ("encoding", "sent", "code"),
    [
        ("identity", b"\0" + (100_001).to_bytes(4, "big"), "RESOURCE_EXHAUSTED"),
        ("identity", b"\0\xff\xff\xff\xff", "RESOURCE_EXHAUSTED"),
        ("identity", compressed(b""), "INTERNAL"),
        ("gzip", b"\2" + bytes(4), "INTERNAL"),
        ("gzip", compressed(b"no gzip"), "INTERNAL"),
        ("gzip", compressed(gzip.compress(b"abc" * 100, mtime=0)[:-9]), "INTERNAL"),
        ("gzip", compressed(gzip.compress(b"abc", mtime=0) * 2), "INTERNAL"),
        ("deflate", compressed(zlib.compress(b"abc") + b"z"), "INTERNAL"),
        ("gzip", b"\1" + (50_001).to_bytes(4, "big"), "RESOURCE_EXHAUSTED"),
        ("gzip", compressed(gzip.compress(bytes(50_001), mtime=0)), "RESOURCE_EXHAUSTED"),
    ],
)
def test_what_is_too_large_or_makes_no_sense_is_refused(encoding: str, sent: bytes, code: str) -> None:
    with pytest.raises(CallFault) as caught:
        cutter(encoding).cut(sent, 0, len(sent))
    assert caught.value.code == code


def test_a_bomb_is_never_inflated_beyond_the_bound() -> None:
    bomb = gzip.compress(bytes(100_000_000), 9)
    with pytest.raises(CallFault, match="at most 50000"):
        inflate(bomb, "gzip", 50_000)


def test_one_message_that_is_neither_compressed_nor_too_large_is_whole() -> None:
    data = b"before" + prefixed(b"abc") + b"behind"
    start, stop = 6, 6 + 5 + 3
    assert is_whole(data, start, stop, 3)
    assert not is_whole(data, start, stop, 2)
    assert not is_whole(data, start, stop - 1, 3)
    assert not is_whole(data, start, stop + 1, 9)
    assert not is_whole(data, start, start + 4, 3)
    assert not is_whole(b"\1" + prefixed(b"abc")[1:], 0, 8, 3)
