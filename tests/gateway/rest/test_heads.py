"""The fast lane takes heads that it fully understands, and leaves all others to the parser."""

import pytest

from gateway.rest.heads import Head, Heads, Shape
from gateway.settings import Limits

HEAD = [b"POST /v2/models/line/infer HTTP/1.1", b"Host: h", b"Content-Length: 12", b"X-User: alice "]
WANTED = frozenset({b"x-user"})
ENDPOINT = object()


def shape_of(lines: list[bytes], wanted: frozenset[bytes] = frozenset(), heads: Heads | None = None) -> Shape | None:
    return (heads or Heads(Limits())).shape(lines, wanted, ENDPOINT)


def read(shape: Shape | None, lines: list[bytes], behind: bytes = b"body", before: bytes = b"") -> Head | None:
    """What the shape reads of a head that stands between other bytes; it must end where the body begins."""
    assert shape is not None
    data = before + b"\r\n".join(lines) + b"\r\n\r\n" + behind
    found = shape.read(data, len(before), 65_536)
    if found is None:
        return None
    head, end = found
    assert data[end:] == behind
    return head


def test_a_plain_head_is_read_with_the_headers_that_routing_wants() -> None:
    lines = [*HEAD, b"x-request-id:r-1", b"Traceparent: 00-ab", b"Authorization: Bearer k"]
    assert read(shape_of(lines, WANTED), lines, before=b"before") == Head(
        12, {"x-user": "alice"}, b"r-1", b"00-ab", b"k"
    )


def test_the_next_head_may_differ_in_length_and_ids_and_in_what_routing_wants() -> None:
    shape = shape_of([*HEAD, b"x-request-id: r-1"], WANTED)
    lines = [*HEAD[:2], b"Content-Length: 7", b"X-User:  b\xf6b ", b"x-request-id: r-2 "]
    assert read(shape, lines) == Head(7, {"x-user": "b\xf6b"}, b"r-2")
    assert read(shape, [*HEAD[:2], b"Content-Length: 0", b"X-User: ", b"x-request-id: "]) == Head(
        0, {"x-user": ""}, b""
    )


@pytest.mark.parametrize(
    "lines",
    [
        [HEAD[0], b"Host: other", *HEAD[2:]],
        [HEAD[0], HEAD[2], HEAD[1], HEAD[3]],
        [*HEAD, b"x-more: 1"],
        HEAD[:3],
        [*HEAD[:3], b"X-User: a\r\nTransfer-Encoding: chunked"],
        [*HEAD[:3], b"X-User: a\nTransfer-Encoding: chunked"],
        [*HEAD[:3], b"X-User: a\0"],
        [*HEAD[:2], b"Content-Length: 12\r\nTransfer-Encoding: chunked", HEAD[3]],
        [*HEAD[:2], b"Content-Length: +2", HEAD[3]],
        [*HEAD[:2], b"Content-Length: " + b"9" * 19, HEAD[3]],
        [*HEAD[:2], b"Content-Length: \xb2", HEAD[3]],
        [b"POST /v2/models/line/infer HTTP/1.0", *HEAD[1:]],
    ],
)
def test_a_head_of_another_shape_is_not_read(lines: list[bytes]) -> None:
    assert read(shape_of(HEAD, WANTED), lines) is None


def test_a_header_that_nobody_wants_may_change_once_it_has_changed() -> None:
    heads = Heads(Limits())
    first, second, third = ([*HEAD, b"x-trace: %d" % number, b"accept: */*"] for number in (1, 2, 3))
    shape = heads.shape(first, WANTED, ENDPOINT)
    assert read(shape, second) is None
    loose = heads.shape(second, WANTED, ENDPOINT, shape)
    assert read(loose, third) == Head(12, {"x-user": "alice"})
    assert read(loose, [*HEAD, b"x-trace: 4\r\nTransfer-Encoding: chunked", b"accept: */*"]) is None
    assert read(loose, [*HEAD, b"x-trace: 4", b"accept: none"]) is None
    assert read(heads.shape(HEAD, WANTED, ENDPOINT, loose), HEAD) == Head(12, {"x-user": "alice"})


@pytest.mark.parametrize("changed", [b"Host: other", b"Authorization: Bearer b", b"Connection: keep-alive"])
def test_a_host_and_a_credential_are_compared_always(changed: bytes) -> None:
    heads = Heads(Limits())
    name = changed.partition(b":")[0]
    lines = [HEAD[0], *(line for line in HEAD[1:] if not line.startswith(name)), name + b": first"]
    other = [*lines[:-1], changed]
    shape = heads.shape(
        [*lines[:-1], name + (b": Keep-Alive" if name == b"Connection" else b": Bearer a")], WANTED, ENDPOINT
    )
    loose = heads.shape(other, WANTED, ENDPOINT, shape)
    again = read(loose, [*lines[:-1], name + b": close"])
    assert again is None
    assert read(loose, other) is not None


def test_a_head_that_is_not_whole_or_too_long_is_not_read() -> None:
    shape = shape_of(HEAD, WANTED)
    assert shape is not None
    whole = b"\r\n".join(HEAD) + b"\r\n\r\n"
    for size in range(len(whole)):
        assert shape.read(whole[:size], 0, 65_536) is None
    assert shape.read(whole, 0, len(whole)) is not None
    assert shape.read(whole, 0, len(whole) - 1) is None


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
        b"Inference-Header-Content-Length: +3",
        b"X-Runoff-Endpoint: other",
        b"Content-Type: a\r\nContent-Type: b",
        b"x : space before the colon",
        b" folded",
        b"no colon",
        b"x: nul\0",
        b"x: bare\nnewline",
        b"x: bare\rreturn",
        b": nameless",
        b"X-Api-Key: a\r\nAuthorization: Bearer b",
    ],
)
def test_whatever_changes_how_a_request_is_read_is_left_to_the_parser(line: bytes) -> None:
    assert shape_of([*HEAD, line]) is None


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1 2", b"0x1", b"9" * 19, "\u0663".encode()])
def test_a_length_that_is_no_plain_number_is_left_to_the_parser(length: bytes) -> None:
    lines = [HEAD[0], HEAD[1], b"Content-Length: " + length]
    assert shape_of(lines) is None


def test_without_a_length_or_a_host_the_parser_decides() -> None:
    assert shape_of(HEAD[:2]) is None
    assert shape_of([HEAD[0], HEAD[2]]) is None


def test_more_lines_than_allowed_are_left_to_the_parser() -> None:
    assert shape_of([*HEAD, b"a: 1"], heads=Heads(Limits(header_count_max=4))) is None


def test_the_memory_of_lines_is_bounded() -> None:
    heads = Heads(Limits())
    for number in range(10_000):
        shape_of([*HEAD, b"x-unit: %d" % number], heads=heads)
    assert len(heads._lines) <= 4096
