"""Where the two things stand that control does to an endpoint by itself: following its aliases, and the steps of its ramp."""

import sqlite3
from typing import Final, Literal

import msgspec

from routing.errors import Problem
from routing.following import Following


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """Following of one endpoint, and what came of it.

    `revision` is the one that tries what is wanted; `attempts` says how often a registry that went away stood in its way, `retry_unix_us`
    when it is tried again. `problems` stand against what is wanted or was refused. `is_checked`: what is proposed was made ready and
    compared. Times are wall clock, microseconds.
    """

    following: Following = Following()
    since_unix_us: int = 0
    revision: int | None = None
    attempts: int = 0
    retry_unix_us: int = 0
    problems: tuple[Problem, ...] = ()
    is_checked: bool = False


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """How far the steps of a route have come.

    `revision` is the newest one that belongs to it: that of the route, or of the step. `step` counts from 0; its weights hold until
    `due_unix_us`; while it is paused, `left_us` is what was left of it. `reason` says why it is paused. `base` are the weights of the
    document that it began with: while that is applied again, the ramp's own weights stay.
    """

    state: Literal["running", "paused", "finished"]
    revision: int
    base: dict[str, float] = {}
    step: int = 0
    due_unix_us: int = 0
    left_us: int = 0
    reason: str = ""


_FOLLOWED: Final = msgspec.json.Decoder(Followed)
_RAMP: Final = msgspec.json.Decoder(Ramp)


class Standings:
    """Reads and writes them through the store's connection, inside whatever transaction it has open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def followed(self, endpoint: str) -> Followed:
        found = self._read("following", endpoint)
        return Followed() if found is None else _FOLLOWED.decode(found)

    def keep_followed(self, endpoint: str, followed: Followed) -> None:
        self._write("following", endpoint, msgspec.json.encode(followed))

    def ramp(self, endpoint: str) -> Ramp | None:
        """None: the live route has no steps, or they have not begun."""
        found = self._read("ramps", endpoint)
        return None if found is None else _RAMP.decode(found)

    def ramps(self) -> dict[str, Ramp]:
        """All that there are, by endpoint."""
        rows = self._connection.execute("SELECT endpoint, document FROM ramps")
        return {endpoint: _RAMP.decode(document) for endpoint, document in rows}

    def keep_ramp(self, endpoint: str, ramp: Ramp | None) -> None:
        if ramp is None:
            self._connection.execute("DELETE FROM ramps WHERE endpoint = ?", (endpoint,))
        else:
            self._write("ramps", endpoint, msgspec.json.encode(ramp))

    def _read(self, table: Literal["following", "ramps"], endpoint: str) -> str | None:
        row = self._connection.execute(f"SELECT document FROM {table} WHERE endpoint = ?", (endpoint,)).fetchone()  # noqa: S608  # one of two
        return None if row is None else str(row[0])

    def _write(self, table: Literal["following", "ramps"], endpoint: str, document: bytes) -> None:
        self._connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (endpoint, document.decode()))  # noqa: S608  # one of two
