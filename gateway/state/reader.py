"""How workers and the shadow process see the state: read only, polled by one pragma, never waiting for the writer."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from gateway.state.compiled import CompiledRoute, RouteState, Unread
from gateway.state.keys import KeyRecord, KeySet, read_key_set, read_keys
from gateway.telemetry.log import EventLog

_ROUTES: Final = """
    SELECT routes.endpoint, live.number, live.compiled, warming.number, warming.compiled, previous.number, previous.compiled
    FROM routes
    LEFT JOIN revisions AS live ON live.number = routes.live
    LEFT JOIN revisions AS previous ON previous.number = routes.previous
    LEFT JOIN revisions AS warming ON warming.number = (
        SELECT max(number) FROM revisions WHERE endpoint = routes.endpoint AND state = 'warming' AND compiled IS NOT NULL)
    WHERE routes.live IS NOT NULL OR warming.number IS NOT NULL
    ORDER BY routes.endpoint
"""


class StateReader:
    """Reads `state.db` through one connection; one thread at a time. Until control has made the database, there are no routes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._decoder = msgspec.msgpack.Decoder(CompiledRoute)

    def data_version(self) -> int:
        """A number that changes when anything was committed by another process; about 2 µs. 0: there is no database yet."""
        connection = self._opened()
        if connection is None:
            return 0
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def routes(self) -> list[RouteState]:
        """Every endpoint that is live or warming, by name. Deleted endpoints are absent."""
        connection = self._opened()
        if connection is None:
            return []
        try:
            rows = connection.execute(_ROUTES).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # control is just making it
                return []
            raise
        states = []
        for endpoint, *numbered in rows:
            live, pending, previous = (self._compiled(*numbered[place : place + 2]) for place in (0, 2, 4))
            states.append(
                RouteState(
                    endpoint=endpoint,
                    live=_read(live),
                    pending=_read(pending),
                    previous=_read(previous),
                    unread_live=_unread(live),
                    unread_pending=_unread(pending),
                )
            )
        return states

    def keys(self) -> list[KeyRecord]:
        """Every key, those that open nothing any more included."""
        connection = self._opened()
        if connection is None or not self._has(connection, "keys"):
            return []
        try:
            return read_keys(connection)
        except sqlite3.OperationalError as error:
            if "no such column" in str(error):  # after an upgrade, until control has added it
                return []
            raise

    def key_set(self, issuer: str) -> KeySet | None:
        """The public keys of a token issuer; None while control has not fetched them."""
        connection = self._opened()
        return None if connection is None or not self._has(connection, "key_sets") else read_key_set(connection, issuer)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _has(connection: sqlite3.Connection, table: str) -> bool:
        """Whether control has made this table: it may be just starting."""
        return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None

    def _compiled(self, number: int, blob: bytes | None) -> CompiledRoute | Unread | None:
        try:
            return None if blob is None else self._decoder.decode(blob)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return Unread(number, f"another release has written it: {error}")

    def _opened(self) -> sqlite3.Connection | None:
        if self._connection is None and self._path.exists():
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            # check_same_thread: at its end a process may close on another thread what it read on the loop.
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=0.05, isolation_level=None, check_same_thread=False
            )
        return self._connection


def _read(found: CompiledRoute | Unread | None) -> CompiledRoute | None:
    return found if isinstance(found, CompiledRoute) else None


def _unread(found: CompiledRoute | Unread | None) -> Unread | None:
    return found if isinstance(found, Unread) else None


async def follow(look: Callable[[], None], poll_s: float, log: EventLog) -> NoReturn:
    """Looks again and again until it is cancelled. A look that fails is told once, and what was there before it goes on."""
    problem = None
    while True:
        try:
            look()
        except Exception as error:  # noqa: BLE001  # a busy or damaged file, another release's words: no reason to stop serving
            if problem is None or type(error) is not type(problem):
                log.error("look_failed", error=error)
            problem = error
        else:
            if problem is not None:
                log.info("look_succeeded")
            problem = None
        await asyncio.sleep(poll_s)
