"""The fast lane takes heads that it fully understands, and leaves all others to the parser."""

import pytest

from gateway.rest.heads import Heads
from gateway.settings import Limits

HEAD = [b"POST /v2/models/line/infer HTTP/1.1", b"Host: h", b"Content-Length: 12", b"X-User: alice "]


def test_a_plain_head_is_read_with_the_headers_that_routing_wants() -> None:
    heads = Heads(Limits())
    for _ in range(2):  # learnt, then known
        head = heads.read([*HEAD, b"x-request-id:r-1", b"Traceparent: 00-ab"], frozenset({b"x-user"}))
        assert head is not None
        assert (head.length, head.headers, head.request_id, head.traceparent) == (
            12,
            {"x-user": "alice"},
            b"r-1",
            b"00-ab",
        )


@pytest.mark.parametrize(
    "line",
    [
        b"Host: other",
        b"Content-Length: 12",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Connection: close",
        b"Connection: keep-alive, upgrade",
        b"Content-Encoding: gzip",
        b"Inference-Header-Content-Length: 3",
        b"x : space before the colon",
        b" folded",
        b"no colon",
        b"x: nul\0",
        b"x: bare\nnewline",
        b"x: bare\rreturn",
        b": nameless",
    ],
)
def test_whatever_changes_how_a_request_is_read_is_left_to_the_parser(line: bytes) -> None:
    assert Heads(Limits()).read([*HEAD, line], frozenset()) is None


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1 2", b"0x1", b"9" * 19, "\u0663".encode()])
def test_a_length_that_is_no_plain_number_is_left_to_the_parser(length: bytes) -> None:
    lines = [HEAD[0], HEAD[1], b"Content-Length: " + length]
    assert Heads(Limits()).read(lines, frozenset()) is None


def test_without_a_length_or_a_host_the_parser_decides() -> None:
    assert Heads(Limits()).read(HEAD[:2], frozenset()) is None
    assert Heads(Limits()).read([HEAD[0], HEAD[2]], frozenset()) is None


def test_more_lines_than_allowed_are_left_to_the_parser() -> None:
    assert Heads(Limits(header_count_max=4)).read([*HEAD, b"a: 1"], frozenset()) is None


def test_the_memory_of_lines_is_bounded() -> None:
    heads = Heads(Limits())
    for number in range(10_000):
        heads.read([*HEAD, b"x-unit: %d" % number], frozenset())
    assert len(heads._lines) <= 4096
