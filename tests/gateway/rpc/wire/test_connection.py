"""Plays of bytes against the HTTP/2 machine. Sections are those of RFC 9113 where no other document is named."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hpack import Encoder
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.rpc.wire.bounds import Bounds
from gateway.rpc.wire.connection import CONNECTION_WINDOW, Connection
from gateway.rpc.wire.frames import Code
from gateway.rpc.wire.stream import RECV_WINDOW, Stream
from tests.kit import http2
from tests.kit.http2 import END_HEADERS, END_STREAM, HAS_PRIORITY, PADDED, REQUEST, Frame

START = http2.PREFACE + http2.settings() + http2.frame(http2.SETTINGS, http2.ACK)


class Play:
    """A connection, what its listener heard, and what it has written. Time stands still unless moved."""

    def __init__(self, bounds: Bounds | None = None, *, is_started: bool = True) -> None:
        self.heard: list[tuple[object, ...]] = []
        self.open: dict[int, Stream] = {}
        self.now_s = 100.0
        self.http = Connection(bounds or Bounds(), self, self.now_s)
        self.greeting = self.taken()
        if is_started:
            self.say(START)

    def say(self, *sent: bytes) -> list[Frame]:
        """Sends bytes and answers the frames that came back."""
        self.http.receive(b"".join(sent), self.now_s)
        return self.taken()

    def taken(self) -> list[Frame]:
        ready, self.http.out.ready = self.http.out.ready, []
        return http2.read(b"".join(ready))

    def requested(self, stream: Stream) -> None:
        self.heard.append(("requested", stream.id))
        self.open[stream.id] = stream

    def received(self, stream: Stream, data: bytes, start: int, stop: int, *, ends: bool) -> None:
        self.heard.append(("received", stream.id, data[start:stop], ends))

    def gone(self, stream: Stream) -> None:
        self.heard.append(("gone", stream.id))

    def moved(self, stream: Stream) -> None:
        self.heard.append(("moved", stream.id))

    def body(self, stream_id: int) -> bytes:
        return b"".join(e[2] for e in self.heard if e[0] == "received" and e[1] == stream_id)  # type: ignore[misc]


def goaway(frames: list[Frame]) -> Code | None:
    """The code with which the connection was ended."""
    return next((Code(http2.code_of(one)) for one in frames if one.kind == http2.GOAWAY), None)


def resets(frames: list[Frame]) -> dict[int, Code]:
    return {one.stream: Code(http2.code_of(one)) for one in frames if one.kind == http2.RST_STREAM}


# ── beginnings ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_server_speaks_first_and_acknowledges_settings() -> None:
    play = Play(is_started=False)
    assert [one.kind for one in play.greeting] == [http2.SETTINGS, http2.WINDOW_UPDATE]
    assert play.say(START) == [Frame(http2.SETTINGS, http2.ACK, 0, b"")]


def test_a_request_is_heard_in_the_order_of_the_wire() -> None:
    play = Play()
    play.say(http2.headers(1), http2.frame(http2.DATA, 0, 1, b"ab"), http2.frame(http2.DATA, END_STREAM, 1, b"c"))
    assert play.heard == [("requested", 1), ("received", 1, b"ab", False), ("received", 1, b"c", True)]


def test_a_request_without_a_body_ends_with_its_head() -> None:
    play = Play()
    play.say(http2.headers(1, END_HEADERS | END_STREAM))
    assert play.heard == [("requested", 1), ("received", 1, b"", True)]


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", b"PRI * HTTP/2.1", b"\x16\x03\x01", b"PRI X"])
def test_whoever_speaks_something_else_is_told_and_closed(sent: bytes) -> None:
    play = Play(is_started=False)
    assert goaway(play.say(sent)) is Code.PROTOCOL_ERROR
    assert play.http.is_over


@pytest.mark.parametrize(
    "first", [http2.frame(http2.PING, payload=bytes(8)), http2.headers(1), http2.frame(http2.SETTINGS, http2.ACK)]
)
def test_settings_come_first(first: bytes) -> None:  # section 3.4
    assert goaway(Play(is_started=False).say(http2.PREFACE, first)) is Code.PROTOCOL_ERROR


# ── faults of the connection ─────────────────────────────────────────────────────────────────────────────────────────────────

OPEN = http2.headers(1)
HALF = http2.frame(http2.HEADERS, 0, 1, http2.block())
P, S, F, C = Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR, Code.FLOW_CONTROL_ERROR, Code.STREAM_CLOSED
CONNECTION_FAULTS: dict[str, tuple[bytes, Code]] = {
    "4.2 frame beyond MAX_FRAME_SIZE": (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", S),
    "4.3 block that is not HPACK": (
        http2.frame(http2.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        Code.COMPRESSION_ERROR,
    ),
    "4.3 index beyond the table": (http2.frame(http2.HEADERS, END_HEADERS, 1, b"\xc0"), Code.COMPRESSION_ERROR),
    "5.1 DATA on idle stream": (http2.frame(http2.DATA, 0, 1, b"x"), P),
    "5.1 RST_STREAM on idle stream": (http2.rst_stream(1), P),
    "5.1 WINDOW_UPDATE on idle stream": (http2.window_update(1, 1), P),
    "5.1 HEADERS on closed stream": (OPEN + http2.rst_stream(1) * 0 + http2.headers(5) + http2.headers(3), C),
    "5.1.1 even stream": (http2.headers(2), P),
    "5.1.1 HEADERS on stream 0": (http2.headers(0), P),
    "6.1 DATA on stream 0": (http2.frame(http2.DATA, 0, 0, b"x"), P),
    "6.1 DATA on a stream of the server": (OPEN + http2.frame(http2.DATA, 0, 2, b"x"), P),
    "6.1 more padding than payload": (OPEN + http2.frame(http2.DATA, PADDED, 1, b"\x05abc"), P),
    "6.1 padded without length": (OPEN + http2.frame(http2.DATA, PADDED, 1, b""), S),
    "6.2 HEADERS with too much padding": (
        http2.frame(http2.HEADERS, END_HEADERS | PADDED, 1, b"\xff" + http2.block()),
        P,
    ),
    "6.2 HEADERS without priority fields": (http2.frame(http2.HEADERS, END_HEADERS | HAS_PRIORITY, 1, b"abc"), S),
    "6.3 PRIORITY on stream 0": (http2.frame(http2.PRIORITY, 0, 0, bytes(5)), P),
    "6.4 RST_STREAM on stream 0": (http2.rst_stream(0), P),
    "6.4 RST_STREAM of wrong size": (OPEN + http2.frame(http2.RST_STREAM, 0, 1, bytes(3)), S),
    "6.5 SETTINGS on a stream": (http2.frame(http2.SETTINGS, 0, 1), P),
    "6.5 SETTINGS of wrong size": (http2.frame(http2.SETTINGS, 0, 0, bytes(5)), S),
    "6.5 acknowledgement with payload": (http2.frame(http2.SETTINGS, http2.ACK, 0, bytes(6)), S),
    "6.5.2 ENABLE_PUSH": (http2.settings((2, 2)), P),
    "6.5.2 INITIAL_WINDOW_SIZE": (http2.settings((4, 2**31)), F),
    "6.5.2 MAX_FRAME_SIZE too small": (http2.settings((5, 16_383)), P),
    "6.5.2 MAX_FRAME_SIZE too large": (http2.settings((5, 2**24)), P),
    "more settings than anybody has": (http2.settings(*[(4, 1)] * 33), Code.ENHANCE_YOUR_CALM),
    "6.6 PUSH_PROMISE": (OPEN + http2.frame(http2.PUSH_PROMISE, END_HEADERS, 1, bytes(8)), P),
    "6.7 PING on a stream": (http2.frame(http2.PING, 0, 1, bytes(8)), P),
    "6.7 PING of wrong size": (http2.frame(http2.PING, 0, 0, bytes(7)), S),
    "6.8 GOAWAY on a stream": (http2.frame(http2.GOAWAY, 0, 1, bytes(8)), P),
    "6.8 GOAWAY of wrong size": (http2.frame(http2.GOAWAY, 0, 0, bytes(7)), S),
    "6.9 WINDOW_UPDATE by nothing": (http2.window_update(0, 0), P),
    "6.9 WINDOW_UPDATE of wrong size": (http2.frame(http2.WINDOW_UPDATE, 0, 0, bytes(5)), S),
    "6.9.1 window beyond 2^31-1": (http2.window_update(0, 2**31 - 1), F),
    "6.9.2 stream's window beyond 2^31-1": (
        OPEN + http2.window_update(1, 2**31 - 1 - 65_535) + http2.settings((4, 65_536)),
        F,
    ),
    "6.10 CONTINUATION without HEADERS": (http2.frame(http2.CONTINUATION, END_HEADERS, 1), P),
    "6.10 CONTINUATION of another stream": (HALF + http2.frame(http2.CONTINUATION, END_HEADERS, 3), P),
    "6.10 another frame inside a block": (HALF + http2.frame(http2.PING, 0, 0, bytes(8)), P),
    "6.10 CONTINUATION behind the end": (OPEN + http2.frame(http2.CONTINUATION, END_HEADERS, 1), P),
    "RFC 7541 4.2 three table size updates": (
        http2.frame(http2.HEADERS, END_HEADERS, 1, b"\x20\x20\x20" + http2.block()),
        Code.COMPRESSION_ERROR,
    ),
    "RFC 7541 6.3 table larger than allowed": (
        http2.frame(http2.HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x03" + http2.block()),
        Code.COMPRESSION_ERROR,
    ),
}


@pytest.mark.parametrize("case", CONNECTION_FAULTS)
def test_a_fault_of_the_connection_is_named_and_ends_it(case: str) -> None:
    sent, code = CONNECTION_FAULTS[case]
    play = Play()
    assert goaway(play.say(sent)) is code
    assert play.http.is_over
    assert not play.http.streams
    assert play.say(http2.headers(9)) == []


# ── faults of one stream ─────────────────────────────────────────────────────────────────────────────────────────────────────


def fields(*more: tuple[str, str], without: str = "") -> list[tuple[str, str]]:
    return [*((name, value) for name, value in REQUEST if name != without), *more]


STREAM_FAULTS: dict[str, tuple[bytes, Code]] = {
    "5.1 DATA behind the end": (http2.call(1) + http2.frame(http2.DATA, 0, 1, b"x"), Code.STREAM_CLOSED),
    "5.1 HEADERS behind the end": (http2.call(1) + http2.headers(1, END_HEADERS | END_STREAM), Code.STREAM_CLOSED),
    "6.3 PRIORITY of wrong size": (OPEN + http2.frame(http2.PRIORITY, 0, 1, bytes(4)), S),
    "6.9 WINDOW_UPDATE by nothing": (OPEN + http2.window_update(1, 0), P),
    "6.9.1 window beyond 2^31-1": (OPEN + http2.window_update(1, 2**31 - 1), F),
    "8.1 trailers that end nothing": (OPEN + http2.headers(1, END_HEADERS, [("a", "b")]), P),
    "8.1 trailers with pseudo-headers": (OPEN + http2.headers(1, END_HEADERS | END_STREAM), P),
    "8.1.1 more body than content-length": (http2.call(1, b"abc", fields(("content-length", "2"))), P),
    "8.1.1 less body than content-length": (http2.call(1, b"abc", fields(("content-length", "4"))), P),
    "8.1.1 content-length that is no number": (http2.headers(1, fields=fields(("content-length", "+1"))), P),
    "8.1.1 two content-lengths": (http2.headers(1, fields=fields(("content-length", "1"), ("content-length", "2"))), P),
    "8.2.1 upper case": (http2.headers(1, fields=fields(("X-A", "b"))), P),
    "8.2.1 empty name": (http2.headers(1, fields=fields(("", "b"))), P),
    "8.2.1 line feed in value": (http2.headers(1, fields=fields(("a", "b\nc: d"))), P),
    "8.2.1 space before value": (http2.headers(1, fields=fields(("a", " b"))), P),
    "8.2.2 connection": (http2.headers(1, fields=fields(("connection", "close"))), P),
    "8.2.2 transfer-encoding": (http2.headers(1, fields=fields(("transfer-encoding", "chunked"))), P),
    "8.2.2 te": (http2.headers(1, fields=fields(("te", "gzip"), without="te")), P),
    "8.3 unknown pseudo-header": (http2.headers(1, fields=[(":status", "200"), *REQUEST]), P),
    "8.3 pseudo-header behind others": (http2.headers(1, fields=fields((":path", "/"), without=":path")), P),
    "8.3.1 repeated :path": (http2.headers(1, fields=[(":path", "/"), *REQUEST]), P),
    "8.3.1 no :method": (http2.headers(1, fields=fields(without=":method")), P),
    "8.3.1 no :scheme": (http2.headers(1, fields=fields(without=":scheme")), P),
    "8.3.1 no :path": (http2.headers(1, fields=fields(without=":path")), P),
    "8.3.1 empty :path": (http2.headers(1, fields=[(":path", ""), *fields(without=":path")]), P),
    "8.3.1 host is not :authority": (http2.headers(1, fields=fields(("host", "other"))), P),
}


@pytest.mark.parametrize("case", STREAM_FAULTS)
def test_a_fault_of_a_stream_leaves_the_others_alone(case: str) -> None:
    sent, code = STREAM_FAULTS[case]
    play = Play()
    frames = play.say(sent)
    assert resets(frames) == {1: code}
    assert goaway(frames) is None
    play.say(http2.call(7, b"ok"))
    assert play.heard[-1] == ("received", 7, b"ok", True)


def test_more_than_the_stream_window_is_a_fault_of_the_stream() -> None:  # section 6.9.1
    play = Play()
    chunk = http2.frame(http2.DATA, 0, 1, bytes(16_384))
    assert resets(play.say(OPEN, chunk * (RECV_WINDOW // 16_384))) == {}
    assert resets(play.say(http2.frame(http2.DATA, 0, 1, b"x"))) == {1: F}


def test_a_broken_stream_is_told_to_the_listener_once_and_what_follows_it_is_only_late() -> None:
    play = Play()
    play.say(OPEN, http2.window_update(1, 0))
    frames = play.say(http2.frame(http2.DATA, 0, 1, b"late"), http2.headers(1, END_HEADERS | END_STREAM, [("a", "b")]))
    assert frames == []
    assert play.heard == [("requested", 1), ("gone", 1)]


def test_whoever_has_reset_a_stream_sends_nothing_more_on_it() -> None:  # section 5.1
    play = Play()
    assert resets(play.say(OPEN, http2.rst_stream(1), http2.frame(http2.DATA, 0, 1, b"x"))) == {1: C}
    assert goaway(play.say(http2.headers(1, END_HEADERS | END_STREAM, [("a", "b")]))) is C


# ── what is allowed ──────────────────────────────────────────────────────────────────────────────────────────────────────────

ALLOWED: dict[str, bytes] = {
    "4.1 unknown kind": http2.frame(0xFA, 0xFF, 77, b"anything"),
    "4.1 reserved bit and unknown flags": http2.frame(
        http2.HEADERS, END_HEADERS | END_STREAM | 0xC2, 2**31 + 1, http2.block()
    ),
    "5.1 PRIORITY on idle stream": http2.frame(http2.PRIORITY, 0, 99, bytes(5)),
    "5.1 RST_STREAM on closed stream": OPEN + http2.rst_stream(1) * 2,
    "5.1 WINDOW_UPDATE on closed stream": OPEN + http2.rst_stream(1) + http2.window_update(1, 1),
    "6.2 padding and priority": http2.frame(
        http2.HEADERS,
        END_HEADERS | END_STREAM | PADDED | HAS_PRIORITY,
        1,
        b"\x03" + bytes(5) + http2.block() + bytes(3),
    ),
    "6.5.2 unknown setting": http2.settings((0x99, 7)),
    "8.1 trailers": OPEN + http2.headers(1, END_HEADERS | END_STREAM, [("a", "b")]),
    "8.2.2 te: trailers": OPEN,
    "8.1.1 content-length that is right": http2.call(1, b"abc", fields(("content-length", "3"))),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_harms_nothing(case: str) -> None:
    play = Play()
    frames = play.say(ALLOWED[case])
    assert (goaway(frames), resets(frames)) == (None, {})
    play.say(http2.call(101, b"ok"))
    assert play.heard[-1] == ("received", 101, b"ok", True)


def test_a_ping_comes_back_as_it_was() -> None:
    assert Play().say(http2.frame(http2.PING, payload=b"12345678")) == [Frame(http2.PING, http2.ACK, 0, b"12345678")]


def test_a_block_in_many_frames_is_one_block() -> None:
    encoded = http2.block()
    parts = [encoded[at : at + 7] for at in range(0, len(encoded), 7)]
    sent = http2.frame(http2.HEADERS, END_STREAM, 1, parts[0])
    sent += b"".join(http2.frame(http2.CONTINUATION, 0, 1, part) for part in parts[1:])
    play = Play()
    play.say(sent, http2.frame(http2.CONTINUATION, END_HEADERS, 1))
    assert play.heard == [("requested", 1), ("received", 1, b"", True)]


def test_padding_counts_against_windows_and_is_no_content() -> None:
    play = Play()
    play.say(OPEN, http2.frame(http2.DATA, PADDED | END_STREAM, 1, b"\x04abc" + bytes(4)))
    assert play.heard[1:] == [("received", 1, b"abc", True)]
    assert play.open[1].recv_window == RECV_WINDOW - 8


def test_the_connection_window_is_given_back_as_data_comes() -> None:
    play = Play()
    given = 0
    for number in range(1, 2 * 300, 2):
        sent = http2.headers(number) + http2.frame(http2.DATA, END_STREAM, number, bytes(200_000))
        for one in play.say(sent):
            assert (one.kind, one.stream) == (http2.WINDOW_UPDATE, 0)
            given += int.from_bytes(one.payload, "big")
        play.http.reset(play.open[number], Code.CANCEL)
        play.taken()
    assert given > 300 * 200_000 - CONNECTION_WINDOW


def test_a_stream_beyond_the_bound_is_refused_so_that_it_may_be_tried_again() -> None:  # section 5.1.2
    play = Play(Bounds(streams_max=2))
    assert resets(play.say(*(http2.headers(number) for number in (1, 3, 5)))) == {5: Code.REFUSED_STREAM}
    play.say(http2.rst_stream(1), http2.call(7, b"x"))
    assert ("received", 7, b"x", True) in play.heard


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

STATUS, TRAILERS = b"\x88", b"\x00\x01a\x01b"


def test_a_complete_answer_ends_the_stream_and_asks_for_no_more_of_the_request() -> None:  # section 8.1
    play = Play()
    play.say(OPEN)
    play.http.answer(play.open[1], STATUS)
    assert [(one.kind, one.flags) for one in play.taken()] == [
        (http2.HEADERS, END_HEADERS | END_STREAM),
        (http2.RST_STREAM, 0),
    ]
    assert play.say(http2.frame(http2.DATA, END_STREAM, 1, b"late")) == []
    assert not play.http.streams


def test_a_long_block_leaves_in_pieces_that_the_peer_takes() -> None:
    play = Play()
    play.say(http2.call(1))
    block = b"".join(b"\x00\x01a\x7f\xe1\x06" + b"v" * 992 for _ in range(40))
    play.http.answer(play.open[1], STATUS + block)
    frames = play.taken()
    assert [one.kind for one in frames] == [http2.HEADERS, http2.CONTINUATION, http2.CONTINUATION]
    assert max(len(one.payload) for one in frames) <= 16_384
    assert len(http2.answers(frames)[1].fields[0]) == 41


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50_000), min_size=1, max_size=4),
    first=st.integers(0, 30_000),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40_000)), max_size=30),
    frame_max=st.sampled_from([16_384, 20_000]),
)
@example(sizes=[1], first=0, steps=[], frame_max=16_384)
def test_an_answer_arrives_whole_and_never_beyond_the_windows(
    sizes: list[int], first: int, steps: list[tuple[int, int]], frame_max: int
) -> None:
    play = Play()
    play.say(http2.settings((4, first), (5, frame_max)))
    bodies = {}
    frames: list[Frame] = []
    for place, size in enumerate(sizes):
        number = 2 * place + 1
        frames += play.say(http2.call(number))
        bodies[number] = bytes([place]) * size
        play.http.answer(play.open[number], STATUS, (bodies[number],), TRAILERS)
    room = {0: 65_535, **dict.fromkeys(bodies, first)}
    frames += play.taken()

    def spend(more: list[Frame]) -> None:
        for one in more:
            if one.kind == http2.DATA:
                assert len(one.payload) <= frame_max
                room[0] -= len(one.payload)
                room[one.stream] -= len(one.payload)
                assert room[0] >= 0
                assert room[one.stream] >= 0

    spend(frames)
    for place, increment in [*steps, *((place, 60_000) for _ in range(4) for place in range(len(sizes) + 1))]:
        number = 2 * place - 1 if place else 0
        if number in room and number < 2 * len(sizes):
            room[number] += increment
            more = play.say(http2.window_update(number, increment))
            spend(more)
            frames += more
    found = http2.answers(frames)
    assert {number: (answer.body, answer.is_ended) for number, answer in found.items()} == {
        number: (body, True) for number, body in bodies.items()
    }
    assert not play.http.streams


def test_a_reset_stream_lets_go_of_what_waited_for_its_window() -> None:
    play = Play()
    play.say(http2.settings((4, 0)), http2.call(1))
    play.http.answer(play.open[1], STATUS, (bytes(1000),), TRAILERS)
    play.say(http2.rst_stream(1))
    assert not play.open[1].outbox
    assert [one.kind for one in play.say(http2.window_update(0, 10))] == []
    assert play.heard[-1] == ("gone", 1)


def test_a_smaller_table_of_the_peer_is_acknowledged_in_the_next_block() -> None:  # RFC 7541, section 4.2
    play = Play()
    play.say(http2.settings((1, 0)), http2.call(1), http2.call(3))
    play.http.answer(play.open[1], STATUS)
    play.http.answer(play.open[3], STATUS)
    first, second = play.taken()
    assert (first.payload, second.payload) == (b"\x20" + STATUS, STATUS)


def test_prebuilt_answers_are_taken_only_where_the_windows_allow() -> None:
    play = Play()
    play.say(http2.settings((4, 10)), http2.call(1), http2.call(3))
    assert not play.http.answer_whole(play.open[1], b"", 11)
    assert play.http.answer_whole(play.open[3], http2.frame(http2.DATA, END_STREAM, 3, bytes(10)), 10)
    assert 3 not in play.http.streams
    assert play.http.out.window == 65_535 - 10


# ── floods ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def resets_rapidly(number: int) -> bytes:
    return http2.headers(2 * number + 1) + http2.rst_stream(2 * number + 1)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": resets_rapidly,
    "PING": lambda _: http2.frame(http2.PING, payload=bytes(8)),
    "SETTINGS": lambda _: http2.settings(),
    "SETTINGS acknowledgements": lambda _: http2.frame(http2.SETTINGS, http2.ACK),
    "PRIORITY": lambda number: http2.frame(http2.PRIORITY, 0, number + 1, bytes(5)),
    "empty DATA": lambda number: http2.frame(http2.DATA, 0, 1) if number else OPEN,
    "padding alone": lambda number: http2.frame(http2.DATA, PADDED, 1, b"\0") if number else OPEN,
    "empty CONTINUATION": lambda number: http2.frame(http2.CONTINUATION, 0, 1) if number else HALF,
    "unknown kinds": lambda _: http2.frame(0xBE),
    "WINDOW_UPDATE of streams": lambda number: http2.window_update(1, 1) if number else OPEN,
    "malformed requests": lambda number: http2.headers(2 * number + 1, fields=[("a", "b")]),
    "windows opened by next to nothing": lambda _: http2.window_update(0, 1),
    "DATA on closed streams": lambda number: (
        http2.frame(http2.DATA, 0, 1, b"x") if number else OPEN + http2.rst_stream(1)
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_told_to_calm_down_before_it_costs_much(flood: str) -> None:
    play = Play()
    for number in range(30_000):
        code = goaway(play.say(FLOODS[flood](number)))
        if code is not None:
            break
    assert code is Code.ENHANCE_YOUR_CALM
    assert number < 10_100


def test_an_endless_block_is_cut_off() -> None:  # CVE-2024-27316
    play = Play(Bounds(header_bytes_max=32_768))
    play.say(HALF)
    codes = [goaway(play.say(http2.frame(http2.CONTINUATION, 0, 1, b"\x00\x01a" * 5000))) for _ in range(4)]
    assert Code.ENHANCE_YOUR_CALM in codes


def test_an_honest_caller_may_do_all_of_this_for_ever() -> None:
    play = Play()
    for number in range(1, 40_001, 2):
        more = http2.rst_stream(number) if number % 4 == 1 else b""
        play.say(http2.headers(number), http2.frame(http2.DATA, END_STREAM, number, b"x"), more)
        if not more:
            play.http.answer_whole(play.open.pop(number), b"", 0)
            play.say(http2.window_update(0, 5), http2.frame(http2.PING, 0, 0, bytes(8)) if number % 16 == 3 else b"")
        play.heard.clear()
    assert not play.http.is_over


def test_a_field_section_far_beyond_the_bound_ends_the_connection() -> None:  # the HPACK bomb
    encoder = Encoder()
    play = Play(Bounds(header_bytes_max=8192))
    big = encoder.encode([*REQUEST, ("x", "v" * 3500)])
    play.say(http2.frame(http2.HEADERS, END_HEADERS, 1, big))
    bomb = encoder.encode(REQUEST) + b"\xbe" * 1000
    assert goaway(play.say(http2.frame(http2.HEADERS, END_HEADERS, 3, bomb))) is Code.ENHANCE_YOUR_CALM


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_draining_warns_then_names_the_last_stream_then_leaves_once_all_is_answered() -> None:  # section 6.8
    play = Play()
    play.say(http2.headers(1))
    play.http.drain()
    warning, ping = play.taken()
    assert int.from_bytes(warning.payload[:4], "big") == 2**31 - 1
    play.say(http2.call(3))
    (last,) = play.say(http2.frame(http2.PING, http2.ACK, 0, ping.payload))
    assert (int.from_bytes(last.payload[:4], "big"), http2.code_of(last)) == (3, 0)
    play.say(http2.call(5))
    assert 5 not in play.open
    play.http.answer(play.open[1], STATUS)
    assert not play.http.is_over
    play.http.answer(play.open[3], STATUS)
    assert play.http.is_over


def test_a_peer_that_leaves_is_left_once_its_calls_are_answered() -> None:
    play = Play()
    play.say(http2.call(1), http2.frame(http2.GOAWAY, 0, 0, bytes(8)))
    assert not play.http.is_over
    play.http.answer(play.open[1], STATUS)
    assert play.http.is_over


@pytest.mark.parametrize("sent", [b"", http2.PREFACE[:7], START + HALF, START + b"\x00\x00\x08\x06\x00\x00"])
def test_what_is_half_here_for_too_long_ends_the_connection(sent: bytes) -> None:
    play = Play(Bounds(header_s=10.0), is_started=False)
    play.say(sent)
    play.http.sweep(109.0)
    assert not play.http.is_over
    play.http.sweep(111.0)
    assert goaway(play.taken()) is Code.ENHANCE_YOUR_CALM


def test_settings_that_nobody_acknowledges_end_the_connection() -> None:  # section 6.5.3
    play = Play(Bounds(settings_s=20.0), is_started=False)
    play.say(http2.PREFACE + http2.settings())
    play.http.sweep(119.0)
    assert not play.http.is_over
    play.http.sweep(121.0)
    assert goaway(play.taken()) is Code.SETTINGS_TIMEOUT


def test_a_peer_that_does_not_answer_the_warning_is_told_the_last_stream_all_the_same() -> None:
    play = Play()
    play.say(http2.headers(1))
    play.http.drain()
    play.taken()
    play.http.sweep(100.9)
    assert play.taken() == []
    play.http.sweep(101.1)
    (last,) = play.taken()
    assert (int.from_bytes(last.payload[:4], "big"), http2.code_of(last)) == (1, 0)


def test_an_idle_connection_ends_and_pings_do_not_keep_it() -> None:
    play = Play(Bounds(idle_s=75.0))
    play.now_s = 170.0
    play.say(http2.frame(http2.PING, 0, 0, bytes(8)))
    play.http.sweep(174.0)
    assert not play.http.is_over
    play.http.sweep(176.0)
    assert goaway(play.taken()) is Code.NO_ERROR


def test_a_silent_peer_with_open_streams_is_asked_and_then_given_up() -> None:
    play = Play(Bounds(alive_s=60.0))
    play.say(http2.headers(1))
    play.http.sweep(161.0)
    assert [one.kind for one in play.taken()] == [http2.PING]
    play.http.sweep(170.0)
    assert play.taken() == []
    play.http.sweep(181.0)
    assert play.http.is_over
    assert play.heard[-1] == ("gone", 1)


# ── any bytes at all ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WHOLE = START + b"".join(
    [
        http2.call(1, b"abc" * 100),
        http2.frame(http2.PING, 0, 0, bytes(8)),
        HALF[:3] + b"\x01\x00\x00\x00\x00\x03" + HALF[9:],
        http2.frame(http2.CONTINUATION, END_HEADERS, 3),
        http2.frame(http2.DATA, PADDED, 3, b"\x05" + b"hello" + bytes(5)),
        http2.frame(http2.DATA, PADDED | END_STREAM, 3, b"\xff" + bytes(255)),
        http2.window_update(0, 100),
        http2.frame(0x55, 0, 9, b"unknown"),
        http2.call(5),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=40))
def test_how_bytes_are_cut_into_reads_changes_nothing(cuts: list[int]) -> None:
    at_once, piecewise = Play(is_started=False), Play(is_started=False)
    written = at_once.say(WHOLE)
    places = sorted({0, len(WHOLE), *cuts})
    pieces = [WHOLE[a:b] for a, b in pairwise(places)]
    assert [one for piece in pieces for one in piecewise.say(piece)] == written
    assert (
        [piecewise.body(n) for n in (1, 3, 5)] == [at_once.body(n) for n in (1, 3, 5)] == [b"abc" * 100, b"hello", b""]
    )
    assert [e[:2] for e in piecewise.heard if e[0] != "received"] == [
        e[:2] for e in at_once.heard if e[0] != "received"
    ]
    assert [e for e in piecewise.heard if e[-1] is True] != []


def test_one_byte_at_a_time_is_as_good_as_all() -> None:
    play = Play(is_started=False)
    for place in range(len(WHOLE)):
        play.say(WHOLE[place : place + 1])
    assert play.body(3) == b"hello"
    assert not play.http.is_over


ANY_FRAME = st.builds(
    http2.frame,
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 32, 36, 37, 45, 255]),
    st.sampled_from([0, 1, 1, 2, 3, 5, 7, 9, 11, 2**31 - 1, 2**31 + 1]),
    st.one_of(
        st.binary(max_size=40),
        st.just(http2.block()),
        st.sampled_from([bytes(4), bytes(8), b"\xff" * 4, b"\x00\x00\x40\x00", b"\x00\x04\x00\x00\x00\x00"]),
    ),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.one_of(ANY_FRAME, st.binary(max_size=60)), max_size=60), st.randoms(use_true_random=False))
def test_whatever_comes_nothing_is_raised_and_what_is_kept_stays_small(sent: list[bytes], chance: object) -> None:
    play = Play(Bounds(streams_max=4, header_bytes_max=1024))
    for part in sent:
        frames = play.say(part)
        for number, stream in list(play.open.items()):
            if chance.random() < 0.3 and not stream.is_closed and not stream.is_answered and stream.outbox is None:  # type: ignore[attr-defined]
                play.http.answer(stream, STATUS, (bytes(100),), TRAILERS)
                play.open.pop(number)
        play.taken()
        assert len(play.http.streams) <= 4
        assert len(play.http._in._rest) <= 16_384 + 9 or play.http.is_over
        assert len(play.http._in._block) <= 16_384
        assert len(play.http._lately) <= 1024
        assert not (goaway(frames) and not play.http.is_over)
    play.http.sweep(1000.0)
    play.http.lost()
    assert not play.http.streams


def test_who_moved_is_told_also_where_the_connection_holds_it_up_again() -> None:
    play = Play()
    play.say(http2.settings((4, 1 << 20)), http2.call(1))
    play.http.answer(play.open[1], STATUS, (bytes(400_000),), TRAILERS)
    play.taken()
    for _ in range(3):
        play.heard.clear()
        play.now_s += 25.0
        play.say(http2.window_update(0, 65_536))
        assert play.heard == [("moved", 1)]
        assert play.open[1].since_s == play.now_s


def test_who_did_not_move_is_not_told() -> None:
    play = Play()
    play.say(http2.settings((4, 70_000)), http2.call(1), http2.call(3))
    for number in (1, 3):
        play.http.answer(play.open[number], STATUS, (bytes(80_000),), TRAILERS)
    play.say(http2.window_update(0, 4_465))  # all that the window of stream 1 takes, and none of stream 3
    play.heard.clear()
    play.say(http2.settings((4, 0)))
    play.say(http2.window_update(0, 1000))
    assert play.heard == []
