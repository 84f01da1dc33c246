"""The outbox of registry aliases that shall follow a promotion or a rollback: what waits, what was tried, what came of it."""

from typing import Any, Final

from gateway.state.audit import SYSTEM
from gateway.state.database import Database
from gateway.state.revision import AliasMove

_COLUMNS: Final = "id, revision, name, alias, version, alias_moves.state, attempts, problem, found"
_NAMES: Final = ("id", "revision", "name", "alias", "version", "state", "attempts", "problem", "found")


class AliasMoves:
    """Part of the store: writes inside its transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection

    def add(self, revision: int, move: AliasMove) -> None:
        """Inside the transaction that writes the revision; the move waits until that is live."""
        self._connection.execute(
            "INSERT INTO alias_moves (revision, name, alias, version) VALUES (?, ?, ?, ?)",
            (revision, move.name, move.alias, move.version),
        )

    def waiting(self, endpoint: str | None = None) -> list[AliasMove]:
        """Moves whose revision was or is live and that the registry has not confirmed, oldest first; of all endpoints, or of one."""
        return self._many(
            "alias_moves.state = 'pending' AND revisions.state IN ('live', 'superseded') "
            "AND (?1 IS NULL OR endpoint = ?1) AND (replaced IS NOT NULL OR revisions.state = 'live') ORDER BY id",
            endpoint,
        )

    def given_up(self, endpoint: str | None = None) -> list[AliasMove]:
        """Moves of live revisions that nobody tries any more: somebody has to look."""
        return self._many(
            "alias_moves.state = 'failed' AND revisions.state = 'live' AND (?1 IS NULL OR endpoint = ?1) ORDER BY id",
            endpoint,
        )

    def keep_found(self, move: AliasMove, version: str) -> None:
        """Notes what the alias named before it is written for the first time (empty: nothing)."""
        self._connection.execute("UPDATE alias_moves SET found = ? WHERE id = ?", (version, move.id))

    def tried(self, move: AliasMove, *, problem: str = "", is_final: bool = False) -> None:
        """Records an attempt: without a problem it is done; with one it is tried again unless `is_final`."""
        state = "done" if not problem else "failed" if is_final else "pending"
        with self._database.transaction():
            self._connection.execute(
                "UPDATE alias_moves SET state = ?, attempts = attempts + 1, problem = ? WHERE id = ?",
                (state, problem, move.id),
            )
            if state == "pending":
                return
            row = self._connection.execute("SELECT endpoint FROM revisions WHERE number = ?", (move.revision,))
            self._database.audit.append(
                SYSTEM,
                "alias_moved" if state == "done" else "alias_refused",
                endpoint=row.fetchone()[0],
                revision=move.revision,
                detail={"name": move.name, "alias": move.alias, "version": move.version, "problem": problem},
            )

    def _many(self, where: str, *values: Any) -> list[AliasMove]:
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM alias_moves JOIN revisions ON number = revision WHERE {where}",  # noqa: S608  # constants
            values,
        )
        return [AliasMove(**dict(zip(_NAMES, row, strict=True))) for row in rows]
