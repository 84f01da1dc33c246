"""The metrics and probes listener: a few GET paths, answered by asyncio alone, so that it answers whatever else is wrong."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec

_HEAD_BYTES_MAX: Final = 8_192
_HEAD_S: Final = 5.0
_CONNECTIONS_MAX: Final = 64


class Answer(msgspec.Struct, frozen=True):
    """One reply."""

    status: int
    body: bytes
    content_type: str = "application/json"


Page = Callable[[str], Answer]
"""Answers a path, given the request's Accept header."""


class Responder:
    """Serves `pages` by path. One request a connection; anything slow, large or malformed is closed."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Answers on a bound socket; `tls` None: in plain text."""
        self._server = await asyncio.start_server(self._serve, sock=sock, limit=_HEAD_BYTES_MAX, ssl=tls)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= _CONNECTIONS_MAX:
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._reply(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a prober that left, or one that is no prober: nothing to tell it
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _reply(self, head: bytes) -> bytes:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        accept = next((value.strip() for name, _, value in _fields(lines) if name.lower() == "accept"), "")
        page = self._pages.get(path)
        if page is None:
            answer = Answer(404, b'{"error":"unknown path"}')
        elif method not in {"GET", "HEAD"}:
            answer = Answer(405, b'{"error":"only GET and HEAD"}')
        else:
            answer = page(accept)
        status = HTTPStatus(answer.status)
        start = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {answer.content_type}\r\n"
        fields = f"content-length: {len(answer.body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        return (start + fields).encode() + (b"" if method == "HEAD" else answer.body)


def _fields(lines: list[str]) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in lines if line]
