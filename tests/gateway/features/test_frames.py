import pytest

from gateway.features.frames import (
    FRAME_BYTES_MAX,
    Ask,
    Cutter,
    Describe,
    Described,
    Failed,
    Feature,
    Found,
    FoundColumn,
    FrameInvalid,
    Key,
    framed,
    read_answered,
    read_asked,
)

ASKED = [Ask(1, "credit", {"customer_id": [1, 2], "shop_id": ["x", "y"]}, 5), Describe(2, "credit")]
ANSWERED = [
    Found(
        1, {"stats__income": FoundColumn([1.5, None], [10.0, 0.0]), "stats__vector": FoundColumn([[1.0, 2.0]], [1.0])}
    ),
    Described(
        2, (Key("id", "INT64", "INT64"),), (Feature("income", "stats__income", "stats", "FP64", False, "DOUBLE"),)
    ),
    Failed(3, "unknown", "none at all"),
]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_messages_come_out_whole_however_the_stream_is_cut(size):
    stream = b"".join(framed(one) for one in (*ASKED, *ANSWERED))
    cutter = Cutter()
    payloads = [one for at in range(0, len(stream), size) for one in cutter.cut(stream[at : at + size])]
    assert [read_asked(one) for one in payloads[:2]] == ASKED
    assert [read_answered(one) for one in payloads[2:]] == ANSWERED


def test_a_length_beyond_the_bound_is_no_frame():
    with pytest.raises(FrameInvalid, match="at most"):
        Cutter().cut((FRAME_BYTES_MAX + 1).to_bytes(4, "little"))


def test_what_is_too_large_or_no_unicode_is_not_sent():
    with pytest.raises(ValueError, match="at most"):
        framed(Ask(1, "s", {"k": ["x" * (FRAME_BYTES_MAX + 1)]}, 0))
    with pytest.raises(UnicodeEncodeError):
        framed(Ask(1, "s", {"k": ["\ud800"]}, 0))
