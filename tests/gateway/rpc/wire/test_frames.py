import pytest

from gateway.rpc.wire import frames
from gateway.rpc.wire.frames import Code
from tests.kit import http2
from tests.kit.http2 import Frame


def test_frames_are_read_by_the_other_side_as_they_were_meant() -> None:
    sent = (
        frames.settings([(4, 70_000)])
        + frames.SETTINGS_ACK
        + frames.ping(b"12345678", ack=True)
        + frames.rst_stream(3, Code.CANCEL)
        + frames.window_update(5, 1000)
        + frames.goaway(7, Code.ENHANCE_YOUR_CALM, "too — much")
    )
    assert http2.read(sent) == [
        Frame(http2.SETTINGS, 0, 0, b"\x00\x04\x00\x01\x11\x70"),
        Frame(http2.SETTINGS, 1, 0, b""),
        Frame(http2.PING, 1, 0, b"12345678"),
        Frame(http2.RST_STREAM, 0, 3, b"\x00\x00\x00\x08"),
        Frame(http2.WINDOW_UPDATE, 0, 5, b"\x00\x00\x03\xe8"),
        Frame(http2.GOAWAY, 0, 0, b"\x00\x00\x00\x07\x00\x00\x00\x0btoo ? much"),
    ]


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 201])
@pytest.mark.parametrize("ends", [True, False])
def test_a_block_is_cut_at_what_the_peer_takes(size: int, ends: bool) -> None:
    block = bytes(range(256))[:size]
    sent = http2.read(frames.headers(9, block, ends=ends, bytes_max=100))
    assert b"".join(one.payload for one in sent) == block
    assert [one.kind for one in sent] == [http2.HEADERS] + [http2.CONTINUATION] * (len(sent) - 1)
    assert max(len(one.payload) for one in sent) <= 100
    assert [bool(one.flags & http2.END_HEADERS) for one in sent] == [False] * (len(sent) - 1) + [True]
    assert bool(sent[0].flags & http2.END_STREAM) is ends


def test_large_frames_have_large_lengths() -> None:
    (one,) = http2.read(frames.frame(frames.DATA, 0, 1, bytes(70_000)))
    assert len(one.payload) == 70_000
