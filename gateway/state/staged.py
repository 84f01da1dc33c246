"""What is staged, by the names that people know: which artifact an exact reference led to."""

from gateway.state.database import Database
from models.staged import ModelKey


class StagedNames:
    """Part of the store."""

    def __init__(self, database: Database) -> None:
        self._connection = database.connection
        self._now = database.now_unix_us

    def remember(self, uri: str, *, key: ModelKey, digest: str) -> None:
        """Notes which artifact an exact reference led to."""
        self._connection.execute(
            "INSERT OR REPLACE INTO models (uri, name, version, digest, staged_unix_us) VALUES (?, ?, ?, ?, ?)",
            (uri, key.name, key.version, digest, self._now()),
        )

    def find(self, uri: str) -> tuple[ModelKey, str] | None:
        """Name, version and artifact of an exact reference that was staged before."""
        row = self._connection.execute("SELECT name, version, digest FROM models WHERE uri = ?", (uri,)).fetchone()
        return (ModelKey(row[0], row[1]), row[2]) if row else None

    def all(self) -> list[tuple[str, str, str, str]]:
        """(name, version, uri, digest) of everything staged, by name and version."""
        return self._connection.execute(
            "SELECT name, version, uri, digest FROM models ORDER BY name, length(version), version"
        ).fetchall()
