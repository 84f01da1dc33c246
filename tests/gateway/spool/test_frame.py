from hypothesis import given
from hypothesis import strategies as st

from gateway.spool.frame import HEADER_BYTES, header, join, mark, parse, stated_length

PAYLOADS = st.lists(st.binary(min_size=1, max_size=50), max_size=8)


@given(PAYLOADS)
def test_what_is_joined_is_parsed(payloads):
    frames, torn = parse(b"".join(join(7, payloads)), segment=3, base=100)
    assert torn is None
    assert [frame.payload for frame in frames] == payloads
    assert [frame.sequence for frame in frames] == list(range(8, 8 + len(payloads)))
    if frames:
        assert frames[-1].end_offset == 100 + sum(HEADER_BYTES + len(payload) for payload in payloads)


@given(PAYLOADS, st.data())
def test_a_cut_anywhere_leaves_the_whole_frames_before_it(payloads, data):
    whole = b"".join(join(0, payloads))
    cut = data.draw(st.integers(0, len(whole)))
    frames, torn = parse(whole[:cut], 1, 0)
    end = frames[-1].end_offset if frames else 0
    assert [frame.payload for frame in frames] == payloads[: len(frames)]
    assert (torn is None) == (end == cut)
    assert torn is None or (torn.wanted is not None and end + torn.wanted > cut)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_flipped_bit_is_noticed(payload, data):
    whole = bytearray(header(5, payload) + payload)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    frames, torn = parse(bytes(whole), 1, 0)
    assert frames == []
    assert torn is not None


def test_a_frame_does_not_pass_under_another_sequence():
    frame = bytearray(header(5, b"x") + b"x")
    frame[8:16] = (6).to_bytes(8, "little")
    assert parse(bytes(frame), 1, 0)[0] == []


def test_a_mark_is_an_empty_frame_under_the_sequence_before_it():
    frames, torn = parse(mark(41), 2, 0)
    assert torn is None
    assert (frames[0].sequence, frames[0].payload) == (41, b"")
    assert stated_length(mark(41)) == HEADER_BYTES
