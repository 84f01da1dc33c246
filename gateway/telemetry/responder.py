"""The metrics and probes listener: a few GET paths, answered by asyncio alone, so that it answers whatever else is wrong."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec

_HEAD_BYTES_MAX: Final = 8_192
_ANSWER_S: Final = 5.0
"""For a TLS handshake; then for a request to come and its reply to be taken."""
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
        handshake_s = None if tls is None else _ANSWER_S
        self._server = await asyncio.start_server(
            self._serve, sock=sock, limit=_HEAD_BYTES_MAX, ssl=tls, ssl_handshake_timeout=handshake_s
        )

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def connections(self) -> int:
        """How many are open; at most a fixed number."""
        return self._open

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= _CONNECTIONS_MAX:
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(_ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._reply(head))
                writer.close()
                await writer.wait_closed()  # until the last byte is taken
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # a prober that left, or one that is no prober: nothing to tell it
        finally:
            writer.transport.abort()  # who never reads would keep its connection for ever
            self._open -= 1

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
