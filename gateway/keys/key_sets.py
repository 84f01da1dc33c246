"""Fetches the issuer's public keys for control: from a file or over HTTPS, again and again; what was fetched last stays when it fails.

Workers never ask: they read what control has written into the state, and the answer is believed for `auth.oidc.stale_s` seconds.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.keys.tokens import usable_keys
from gateway.settings import Oidc
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

_BYTES_MAX: Final = 1 << 20
_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 5.0


class KeySetUnavailable(Exception):
    """The key set could not be had, or is none; the message says why."""


class KeySetSource:
    """`keep` is called with each good document."""

    def __init__(self, settings: Oidc, keep: Callable[[str], None]) -> None:
        self._settings = settings
        self._keep = keep

    async def run(self) -> None:
        """Fetches until it is cancelled."""
        while True:
            try:
                self._keep(await self.fetch())
                pause_s = self._settings.refresh_s
            except KeySetUnavailable as error:
                log.warning("key_set_not_fetched", issuer=self._settings.issuer, problem=str(error))
                pause_s = min(_RETRY_S, self._settings.refresh_s)
            except sqlite3.Error as error:  # the state cannot be written now, which is no reason for control to end
                log.warning("key_set_not_kept", issuer=self._settings.issuer, problem=str(error))
                pause_s = min(_RETRY_S, self._settings.refresh_s)
            await asyncio.sleep(pause_s)

    async def fetch(self) -> str:
        """The document, once. Raises KeySetUnavailable."""
        where = self._settings.jwks or ""
        try:
            document = await (
                _get(where) if urlsplit(where).scheme in ("http", "https") else asyncio.to_thread(_read, where)
            )
            await asyncio.to_thread(usable_keys, document, self._settings.algorithms)
        except ValueError as error:
            raise KeySetUnavailable(f"{where}: {error}") from None
        return document


def _read(where: str) -> str:
    try:
        with Path(where.removeprefix("file://")).open(encoding="utf-8") as file:
            return file.read(_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise KeySetUnavailable(f"{where}: {error}") from None


async def _get(url: str) -> str:
    """Follows no redirect: the address is the operator's word."""
    import httpx

    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as client,
            client.stream("GET", url) as reply,
        ):
            if reply.status_code != 200:
                raise KeySetUnavailable(f"{url}: answered {reply.status_code}")
            taken = b""
            async for chunk in reply.aiter_bytes():
                taken += chunk
                if len(taken) > _BYTES_MAX:
                    raise KeySetUnavailable(f"{url}: more than {_BYTES_MAX} bytes")
            return taken.decode("utf-8")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeDecodeError) as error:
        raise KeySetUnavailable(f"{url}: {type(error).__name__}: {error}") from None
