"""How many units were given each variant, each unit counted once: what the split may be judged by where requests of one unit belong together."""

import datetime as dt

from gateway.evidence.query import Queries


def units_assigned(
    queries: Queries, endpoint: str, revision: int, since_unix_s: float, until_unix_s: float
) -> dict[str, int]:
    """Units by variant that the split of one revision gave their first request in [since, until); pinned and ruled requests are left out."""
    first = dt.datetime.fromtimestamp(since_unix_s, dt.UTC).date()
    with queries.snapshot("predictions", endpoint=endpoint, since_unix_s=since_unix_s) as snapshot:
        found = snapshot.rows(
            "SELECT assigned, count(DISTINCT unit) AS units FROM predictions WHERE endpoint = ? AND date >= ? AND revision = ?"
            " AND assigned_by = 'split' AND unit IS NOT NULL"
            " AND received_at >= to_timestamp(?) AND received_at < to_timestamp(?) GROUP BY 1",
            [endpoint, first, revision, since_unix_s, until_unix_s],
        )
    return {row["assigned"]: row["units"] for row in found}
