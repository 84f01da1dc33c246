"""Keys as the state keeps them: who they are for, what they may do, until when, and the digest of the key; never the key."""

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway.state.database import Database

_COLUMNS: Final = "id, name, digest, scopes, rate_per_s, burst, created_unix_us, created_by, expires_unix_us, revoked_unix_us, replaces, last_used_unix_us"
USED_EVERY_US: Final = 60_000_000
"""How exact a last use is: a key in use is written down once a minute, not more often."""


_USED_WAIT_S: Final = 0.05


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One key. `digest` is the SHA-256 of its text.

    None: no quota, no end, not revoked, a first key (not the result of a rotation), never used (or not by a release that noted it).
    """

    id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    rate_per_s: float | None = None
    burst: int | None = None
    created_unix_us: int = 0
    created_by: str = ""
    expires_unix_us: int | None = None
    revoked_unix_us: int | None = None
    replaces: str | None = None
    last_used_unix_us: int | None = None

    def is_good(self, now_unix_us: int) -> bool:
        """Whether it opens anything."""
        return self.revoked_unix_us is None and (self.expires_unix_us is None or now_unix_us < self.expires_unix_us)


class KeySet(msgspec.Struct, frozen=True):
    """The public keys of a token issuer, as it published them (RFC 7517), and when it was last heard."""

    document: str
    fetched_unix_us: int


class KeyTable:
    """Part of the store: writes inside its transactions, with a line in the audit for each change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection

    def all(self) -> list[KeyRecord]:
        """Every key that there ever was, oldest first."""
        return read_keys(self._connection)

    def find(self, key_id: str) -> KeyRecord | None:
        return next((key for key in self.all() if key.id == key_id), None)

    def add(self, key: KeyRecord, *, author: str, reason: str, old_ends_unix_us: int | None = None) -> KeyRecord:
        """Stores a new key. One that `replaces` another ends that one at `old_ends_unix_us`, or earlier where it ends earlier."""
        made = msgspec.structs.replace(key, created_unix_us=self._database.now_unix_us(), created_by=author)
        detail: dict[str, Any] = {"key": made.id, "name": made.name, "scopes": list(made.scopes)}
        with self._database.transaction():
            self._connection.execute(
                f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # a constant
                (
                    *msgspec.structs.astuple(made)[:3],
                    msgspec.json.encode(made.scopes).decode(),
                    *msgspec.structs.astuple(made)[4:],
                ),
            )
            if made.replaces is not None:
                detail["replaces"] = made.replaces
                self._connection.execute(
                    "UPDATE keys SET expires_unix_us = min(coalesce(expires_unix_us, ?1), ?1) WHERE id = ?2",
                    (old_ends_unix_us, made.replaces),
                )
            action = "key_made" if made.replaces is None else "key_rotated"
            self._database.audit.append(author, action, reason=reason, detail=detail)
        return made

    def revoke(self, key_id: str, *, author: str, reason: str) -> KeyRecord | None:
        """Ends a key now, for good; again is no change. None: there is no such key."""
        key = self.find(key_id)
        if key is None or key.revoked_unix_us is not None:
            return key
        now = self._database.now_unix_us()
        with self._database.transaction():
            self._connection.execute("UPDATE keys SET revoked_unix_us = ? WHERE id = ?", (now, key_id))
            self._database.audit.append(
                author,
                "key_revoked",
                reason=reason,
                detail={"key": key_id, "name": key.name},
            )
        return self.find(key_id)

    def used(self, ids: Iterable[str]) -> None:
        """These were used in the last seconds. Waits for nobody: it is told again."""
        now = self._database.now_unix_us()
        due = [(now, key_id, now - USED_EVERY_US) for key_id in ids]
        with self._database.transaction(wait_s=_USED_WAIT_S):
            self._connection.executemany(
                "UPDATE keys SET last_used_unix_us = ? WHERE id = ? AND coalesce(last_used_unix_us, 0) <= ?", due
            )

    def keep_key_set(self, issuer: str, document: str) -> None:
        """The issuer's keys, freshly fetched; workers find them with their next look."""
        self._connection.execute(
            "INSERT OR REPLACE INTO key_sets (issuer, document, fetched_unix_us) VALUES (?, ?, ?)",
            (issuer, document, self._database.now_unix_us()),
        )


def read_keys(connection: sqlite3.Connection) -> list[KeyRecord]:
    """Every key, oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_unix_us, id")  # noqa: S608  # a constant
    return [_key(row) for row in rows]


def read_key_set(connection: sqlite3.Connection, issuer: str) -> KeySet | None:
    """What was last fetched from this issuer; None: nothing yet."""
    row = connection.execute("SELECT document, fetched_unix_us FROM key_sets WHERE issuer = ?", (issuer,)).fetchone()
    return KeySet(*row) if row else None


def _key(row: tuple[Any, ...]) -> KeyRecord:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    fields["scopes"] = msgspec.json.decode(fields["scopes"], type=tuple[str, ...])
    return KeyRecord(**fields)
