"""How workers and the shadow process see the state: read only, polled by one pragma, never waiting for the writer."""

import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from gateway.state.compiled import CompiledRoute, RouteState
from gateway.state.keys import KeyRecord, KeySet, read_key_set, read_keys

_ROUTES: Final = """
    SELECT routes.endpoint, live.compiled, warming.compiled, previous.compiled
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
        return [
            RouteState(
                endpoint=endpoint,
                live=self._compiled(live),
                pending=self._compiled(warming),
                previous=self._compiled(previous),
            )
            for endpoint, live, warming, previous in rows
        ]

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

    def _compiled(self, blob: bytes | None) -> CompiledRoute | None:
        return None if blob is None else self._decoder.decode(blob)

    def _opened(self) -> sqlite3.Connection | None:
        if self._connection is None and self._path.exists():
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            # check_same_thread: at its end a process may close on another thread what it read on the loop.
            self._connection = sqlite3.connect(
                uri, uri=True, timeout=0.05, isolation_level=None, check_same_thread=False
            )
        return self._connection
