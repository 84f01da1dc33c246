"""`state.db`, open to be written: its form, its transactions, the clock of all times in it, and the audit that stands inside each transaction."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final

from gateway.state.audit import Audit

SCHEMA_VERSION: Final = 1
WAIT_S: Final = 5.0
_ADDED: Final = (("alias_moves", "found", "TEXT"), ("keys", "last_used_unix_us", "INTEGER"))


class StateError(Exception):
    """Root of what the state refuses."""


class StateForeign(StateError):
    """The file was written by a newer release."""


class Database:
    """One process (control), one thread; beside it only `runoff keys … --local`, for one transaction.

    `clock` is the wall clock in seconds. Raises StateForeign, or sqlite3.Error when the disk does not let it work.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._clock = clock
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=WAIT_S)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")  # an acknowledged revision survives power loss
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StateForeign(f"{path.name} has version {version}, this release knows {SCHEMA_VERSION}")
        self.connection.executescript((resources.files("gateway.state") / "schema.sql").read_text("utf-8"))
        self._add_columns()
        self.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.audit = Audit(self.connection, self.now_unix_us)

    def close(self) -> None:
        self.connection.close()

    def now_unix_us(self) -> int:
        """The wall clock by which all times here are, in microseconds."""
        return int(self._clock() * 1_000_000)

    @contextmanager
    def transaction(self, *, wait_s: float = WAIT_S) -> Iterator[None]:
        """All of it, or nothing. `wait_s`: for somebody else who writes; the loop stands still meanwhile."""
        self._waits(wait_s)
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        finally:
            self._waits(WAIT_S)
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def _waits(self, seconds: float) -> None:
        self.connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def _add_columns(self) -> None:
        """Columns that a file of an earlier build of this version lacks; each may be NULL, so that either build can go on with it."""
        for table, column, kind in _ADDED:
            if column not in {row[1] for row in self.connection.execute(f"PRAGMA table_info({table})")}:
                self.connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
