"""Calls to another server over HTTP/1.1: the one room of httpx in `models`. One call is bounded in time and bytes, both ways."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

import httpx
import msgspec

from models.runtime.target import (
    REPLY_BYTES_MAX,
    Access,
    BodyTooLarge,
    InputRefused,
    RemoteFailed,
    RemoteTimeout,
    Target,
)

_CALLS_MAX: Final = 8
"""Calls that may be under way to one server."""
_INPUT_REFUSED: Final = frozenset({400, 413, 422})
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Reply(msgspec.Struct, frozen=True):
    """A whole reply; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpServer:
    """Calls may overlap. No proxies, no redirects, no cookies, none of the caller's headers."""

    def __init__(self, url: str, access: Access) -> None:
        """Raises RemoteRefused for a target that is not allowed."""
        self._target = target = Target(url, allow=access.allow, clock=access.clock)
        self._timeout_s = access.timeout_s
        self._headers = {
            "Host": target.authority,
            "User-Agent": "runoff-shadow",
            "Accept-Encoding": "identity",
        }
        if access.token is not None:
            self._headers["Authorization"] = f"Bearer {access.token}"
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(access.timeout_s),
            limits=httpx.Limits(max_connections=_CALLS_MAX, max_keepalive_connections=_CALLS_MAX),
        )

    @asynccontextmanager
    async def calls(self) -> AsyncIterator[None]:
        """Within it calls have the time of one between them, and their troubles are RemoteTimeout, RemoteRefused or RemoteFailed."""
        host = self._target.host
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RemoteTimeout(f"remote {host}: no answer within {self._timeout_s} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self._target.forget()
            raise RemoteFailed(f"remote {host}: {type(error).__name__}") from error

    async def send(self, path: str, body: bytes, headers: Mapping[str, str], *, bytes_max: int) -> Reply:
        """Posts an input, inside `calls`. Raises BodyTooLarge, InputRefused or RemoteFailed."""
        if len(body) > bytes_max:
            raise BodyTooLarge(f"remote input: wanted at most {bytes_max} bytes, got {len(body)}")
        reply = await self.call("POST", path, body, headers)
        if reply.status in _INPUT_REFUSED:
            raise InputRefused(f"remote {self._target.host}: status {reply.status}")
        if reply.status != 200:
            raise RemoteFailed(f"remote {self._target.host}: status {reply.status}")
        return reply

    async def call(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = NO_HEADERS) -> Reply:
        """One call, inside `calls`; `path` follows that of the target. Any status is a reply."""
        target = self._target
        url = httpx.URL(
            scheme="https" if target.is_tls else "http",
            host=await target.address(),
            port=target.port,
            path=target.path + path,
        )
        request = self._client.build_request(
            method,
            url,
            content=body,
            headers=self._headers | dict(headers),
            extensions={"sni_hostname": target.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            chunks, size_bytes = [], 0
            async for chunk in response.aiter_raw():
                size_bytes += len(chunk)
                if size_bytes > REPLY_BYTES_MAX:
                    raise RemoteFailed(f"remote {target.host}: the answer is above {REPLY_BYTES_MAX} bytes")
                chunks.append(chunk)
        finally:
            await response.aclose()
            self._client.cookies.clear()
        return Reply(response.status_code, response.headers, b"".join(chunks))

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()
