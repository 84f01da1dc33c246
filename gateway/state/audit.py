"""The audit: append-only rows, each holding the hash of the one before, so that a change of the past shows."""

import hashlib
import sqlite3
from collections.abc import Callable
from typing import Any, Final

import msgspec

GENESIS: Final = "0" * 64
SYSTEM: Final = "system:control"
"""The author of what control does as a consequence of what somebody asked for."""
_COLUMNS: Final = "sequence, at_unix_us, author, action, endpoint, revision, reason, detail, previous_hash, hash"


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, when and why. `hash` = SHA-256 over the canonical JSON (sorted keys) of all other fields."""

    sequence: int
    at_unix_us: int
    author: str
    action: str
    endpoint: str | None
    revision: int | None
    reason: str
    detail: dict[str, Any]
    previous_hash: str
    hash: str = ""

    def digest(self) -> str:
        fields = msgspec.structs.asdict(self)
        del fields["hash"]
        return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()


class Audit:
    """Writes inside the transaction of what it tells about, so that neither exists without the other."""

    def __init__(self, connection: sqlite3.Connection, now_unix_us: Callable[[], int]) -> None:
        """`now_unix_us`: the wall clock of all times in the state, in microseconds."""
        self._connection = connection
        self._now_unix_us = now_unix_us

    def append(
        self,
        author: str,
        action: str,
        *,
        endpoint: str | None = None,
        revision: int | None = None,
        reason: str = "",
        detail: dict[str, Any] | None = None,
    ) -> None:
        """A row as of now, inside the transaction of what it tells about."""
        sequence, previous_hash = self.newest()
        row = AuditRow(
            sequence=sequence + 1,
            at_unix_us=self._now_unix_us(),
            author=author,
            action=action,
            endpoint=endpoint,
            revision=revision,
            reason=reason,
            detail=detail or {},
            previous_hash=previous_hash,
        )
        self._connection.execute(
            f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # a constant
            (
                row.sequence,
                row.at_unix_us,
                row.author,
                row.action,
                row.endpoint,
                row.revision,
                row.reason,
                msgspec.json.encode(row.detail).decode(),
                row.previous_hash,
                row.digest(),
            ),
        )

    def rows(self, *, limit: int, before: int | None = None, endpoint: str | None = None) -> list[AuditRow]:
        """Newest first; `before` is a sequence to page on from."""
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM audit WHERE (?1 IS NULL OR sequence < ?1) AND (?2 IS NULL OR endpoint = ?2) "  # noqa: S608
            "ORDER BY sequence DESC LIMIT ?3",
            (before, endpoint, limit),
        )
        return [_row(values) for values in found]

    def first(self, revision: int) -> AuditRow | None:
        """The first row about a revision; None: none is."""
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM audit WHERE revision = ? ORDER BY sequence LIMIT 1",  # noqa: S608  # a constant
            (revision,),
        ).fetchone()
        return _row(found) if found else None

    def newest(self) -> tuple[int, str]:
        """Sequence and hash of the last row; (0, GENESIS) before the first. Kept elsewhere, it shows when rows are cut off the end."""
        found = self._connection.execute("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
        return found or (0, GENESIS)

    def broken_at(self) -> int | None:
        """The first sequence that does not follow from the one before it; None: the chain holds."""
        expected, previous_hash = 1, GENESIS
        for values in self._connection.execute(f"SELECT {_COLUMNS} FROM audit ORDER BY sequence"):  # noqa: S608
            try:
                row = _row(values)
            except msgspec.MsgspecError:
                return expected
            if row.sequence != expected or row.previous_hash != previous_hash or row.hash != row.digest():
                return expected
            expected, previous_hash = expected + 1, row.hash
        return None


def _row(values: tuple[Any, ...]) -> AuditRow:
    fields = dict(zip(_COLUMNS.split(", "), values, strict=True))
    try:
        fields["detail"] = msgspec.json.decode(fields["detail"], type=dict[str, Any])
    except (msgspec.MsgspecError, TypeError):  # somebody else's words, which must not hide the other rows
        fields["detail"] = {"unreadable": str(fields["detail"])}
    return AuditRow(**fields)
