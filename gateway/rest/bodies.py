"""Request bodies, bounded before and after decompression and in time; reply bodies, compressed where that was asked for and pays."""

import asyncio
import zlib
from contextlib import suppress
from typing import Final

from starlette.requests import Request

from gateway.admission import Holding
from gateway.errors import BodyTooLarge, DecodedTooLarge, RequestMalformed, RequestTooSlow

_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
"""zlib's names of the two formats; `deflate` over HTTP means the zlib format (RFC 9110, 8.4.1.2)."""
COMPRESS_FROM_BYTES: Final = 256
OFF_LOOP_BYTES: Final = 256 << 10
"""More than this is decompressed, and decoded, on a thread: 4 MiB of numbers take 20 to 80 ms."""
_MEMBERS_MAX: Final = 64
"""Of one gzip body. Each copies what lies behind it: of tiny ones, 4 MB took 5 s."""


async def read_body(request: Request, holding: Holding, *, bytes_max: int, seconds_max: float) -> bytes:
    """The whole body, decompressed and counted in `holding`. Refuses on Content-Length alone where that is too much already.

    Raises BodyTooLarge, DecodedTooLarge, RequestTooSlow, RequestMalformed, NotReady.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOW_BITS:
        raise RequestMalformed("Content-Encoding: wanted gzip, deflate or identity")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        if int(declared[:19]) > bytes_max:
            raise BodyTooLarge(f"the body is larger than {bytes_max} bytes")
        holding.expect(int(declared))
    try:
        async with asyncio.timeout(seconds_max):
            body = await _read(request, holding, bytes_max)
    except TimeoutError:
        raise RequestTooSlow(f"the body did not arrive within {seconds_max:g} s") from None
    if encoding == "identity":
        return body
    body = await _decompressed(body, encoding, bytes_max)
    holding.grow_to(len(body))
    return body


async def _read(request: Request, holding: Holding, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise BodyTooLarge(f"the body is larger than {bytes_max} bytes")
        holding.grow_to(size)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _decompressed(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """On the loop what is small in both its forms; a small one may become very large."""
    if len(body) <= OFF_LOOP_BYTES:
        with suppress(DecodedTooLarge):
            return decompress(body, encoding, min(bytes_max, OFF_LOOP_BYTES))
    return await asyncio.to_thread(decompress, body, encoding, bytes_max)


def decompress(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The content of a gzip (of one or more members) or zlib stream; never more than `bytes_max` bytes are made."""
    parts: list[bytes] = []
    left = bytes_max
    while body:
        stream = zlib.decompressobj(_WINDOW_BITS[encoding])
        try:
            part = stream.decompress(body, left + 1)
        except zlib.error:
            raise RequestMalformed(f"the body is not {encoding}, as Content-Encoding says") from None
        left -= len(part)
        if left < 0:
            raise DecodedTooLarge(f"the body is larger than {bytes_max} bytes after decompression")
        if not stream.eof:
            raise RequestMalformed(f"the {encoding} body ends too early")
        parts.append(part)
        body = stream.unused_data
        if body and len(parts) == _MEMBERS_MAX:
            raise RequestMalformed(f"the {encoding} body has more than {_MEMBERS_MAX} members")
    return b"".join(parts)


def compress(body: bytes, accept_encoding: str | None) -> tuple[list[tuple[str, str]], bytes]:
    """The body as the caller wants it: compressed only on request, and only if that makes it smaller."""
    encoding = _chosen(accept_encoding) if accept_encoding and len(body) >= COMPRESS_FROM_BYTES else None
    if encoding is None:
        return [], body
    stream = zlib.compressobj(level=1, wbits=_WINDOW_BITS[encoding])
    small = stream.compress(body) + stream.flush()
    if len(small) >= len(body):
        return [], body
    return [("content-encoding", encoding), ("vary", "accept-encoding")], small


def _chosen(accept_encoding: str) -> str | None:
    """The one of gzip and deflate that has the higher quality value (RFC 9110, 12.5.3); gzip where they are equal."""
    best: tuple[float, str] | None = None
    for part in accept_encoding.lower().split(","):
        name, _, parameter = part.partition(";")
        name = name.strip()
        if name not in _WINDOW_BITS:
            continue
        try:
            quality = float(parameter.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if quality > 0 and (best is None or quality > best[0] or (quality == best[0] and name == "gzip")):
            best = (quality, name)
    return best[1] if best else None
