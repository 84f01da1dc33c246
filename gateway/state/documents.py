"""The route document of every endpoint there is or was, for those who only look: upkeep, evidence and the command line."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

_NEWEST: Final = """
    SELECT routes.endpoint, revisions.document FROM routes
    JOIN revisions ON revisions.number = coalesce(routes.live, routes.previous)
    WHERE revisions.document IS NOT NULL
"""


def documents(path: Path) -> Mapping[str, dict[str, Any]]:
    """By endpoint, the document that is live, or was last before the endpoint was deleted; empty while there is no database.

    From any thread and any process, also beside a running gateway. Raises sqlite3.Error.
    """
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'routes'").fetchone() is None:
            return {}  # control is just making it
        return {endpoint: msgspec.json.decode(document) for endpoint, document in connection.execute(_NEWEST)}
