from collections.abc import Iterable

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rpc.wire.frames import Code, ConnectionFault
from gateway.rpc.wire.headers import KEPT_MAX, HeadReader, write_fields, write_integer
from tests.kit.http2 import REQUEST, block

NAMES = st.sampled_from(["x-request-id", "grpc-timeout", "a", "content-type", "x-long-name-of-a-header"])
VALUES = st.one_of(st.sampled_from(["1S", "2S", "v" * 300, ""]), st.text("abc019-", max_size=12))
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8)


def reader(bytes_max: int = 32_768, count_max: int = 100) -> HeadReader:
    return HeadReader(bytes_max=bytes_max, count_max=count_max)


@settings(max_examples=200, deadline=None)
@given(st.lists(FIELDS, max_size=12), st.lists(st.integers(0, 11), max_size=12))
def test_remembered_blocks_mean_what_a_fresh_decoder_reads(
    sections: list[list[tuple[str, str, bool]]], again: list[int]
) -> None:
    """Blocks of a real encoder, some of them sent again, which HPACK allows and which then means something else after a change."""
    encoder, ours, theirs = Encoder(), reader(), Decoder()
    sent: list[bytes] = []
    for fields in sections:
        sent.append(encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", "/a"), *fields]))
        sent += [sent[place] for place in again if place < len(sent)][:3]
    for one in sent:
        try:
            wanted = [(bytes(name), bytes(value)) for name, value in theirs.decode(one, raw=True)]
        except HPACKError:  # a block sent again may point beyond the table by now
            with pytest.raises(ConnectionFault):
                ours.read(one)
            return
        assert ours.read(one).fields == wanted


@settings(max_examples=500, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_bytes_are_fields_or_a_fault(blocks: list[bytes]) -> None:
    ours, theirs = reader(), Decoder()
    for one in blocks:
        try:
            head = ours.read(one)
        except ConnectionFault:
            return
        assert head.fields == [(bytes(name), bytes(value)) for name, value in theirs.decode(one, raw=True)]


def test_a_repeated_block_is_thought_through_once() -> None:
    ours = reader()
    assert ours.read(block()) is ours.read(block())


def test_a_block_that_changes_the_table_is_read_anew_each_time_and_forgets_the_others() -> None:
    ours, encoder = reader(), Encoder()
    pure = ours.read(block())
    changing = encoder.encode([*REQUEST, ("a", "b")])
    first, second = ours.read(changing), ours.read(changing)
    assert first is not second
    assert ours.read(block()) is not pure


def test_only_so_many_heads_are_kept() -> None:
    ours = reader()
    for number in range(KEPT_MAX * 3):
        ours.read(block([*REQUEST, ("n", str(number))]))
    assert len(ours._kept) == KEPT_MAX


@pytest.mark.parametrize(
    ("fields", "is_oversized"),
    [
        ([("a", "v" * 100)], False),
        ([("a", "v" * 1000)], True),
        ([("a", "")] * 20, True),
    ],
)
def test_what_is_larger_than_the_bound_says_so(fields: Iterable[tuple[str, str]], is_oversized: bool) -> None:
    assert reader(1024, 15).read(block([*REQUEST, *fields])).is_oversized is is_oversized


def test_trailers_keep_the_table_in_step() -> None:
    ours, encoder = reader(), Encoder()
    assert ours.skip(encoder.encode([("x-new", "value")])) == [(b"x-new", b"value")]
    assert ours.read(encoder.encode([*REQUEST, ("x-new", "value")])).fields[-1] == (b"x-new", b"value")


@pytest.mark.parametrize(
    "sent", [b"\x20" * 3, b"\x3f\x00\x20\x20", b"\x20" * 30_000, b"\x3f\xff\xff\xff\xff\xff\xff\x01"]
)
def test_table_size_updates_are_few_and_within_the_table(sent: bytes) -> None:
    with pytest.raises(ConnectionFault) as caught:
        reader().read(sent)
    assert caught.value.code is Code.COMPRESSION_ERROR


def test_two_size_updates_may_lead_a_block() -> None:  # RFC 7541, section 4.2
    assert reader().read(b"\x20\x3f\xe1\x1f" + block()).problem is None


@given(st.integers(0, 1 << 28))
def test_integers_are_those_of_rfc_7541(value: int) -> None:
    ours = write_integer(value)
    read, shift = ours[0], 0
    if read == 127:
        for byte in ours[1:]:
            read += (byte & 0x7F) << shift
            shift += 7
    assert read == value
    if value == 1337:
        assert ours == bytes((127, 0xBA, 0x09))


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=300)), max_size=5))
def test_written_fields_read_back_and_leave_no_trace(pairs: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder()
    assert [(bytes(n), bytes(v)) for n, v in decoder.decode(write_fields(pairs), raw=True)] == pairs
    assert not decoder.header_table.dynamic_entries
