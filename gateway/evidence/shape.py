"""The shape of an endpoint's traffic: how many rows its requests have, for tuning."""

import datetime as dt
from typing import Final

from gateway.evidence.query import Queries
from models.staged import Traffic

_ROWS_MAX: Final = 1_000_000
"""The newest whole days with so many rows are looked at, at least one day."""


def shape_of_traffic(queries: Queries, endpoint: str) -> Traffic | None:
    """Requests by their rows, of the newest days; None: there are none."""
    recent = queries.recent("predictions", endpoint, _ROWS_MAX)
    if recent is None:
        return None
    first, _ = recent
    since = dt.datetime.combine(first, dt.time(), dt.UTC).timestamp()
    with queries.snapshot("predictions", endpoint=endpoint, since_unix_s=since) as snapshot:
        found = snapshot.rows(
            'SELECT count(*) AS requests, quantile_disc("rows", 0.5) AS rows_p50, quantile_disc("rows", 0.95) AS rows_p95,'
            ' max("rows") AS rows_max FROM predictions WHERE endpoint = ? AND date >= ? AND "row" = 0 AND status < 400',
            [endpoint, first],
        )[0]
    return Traffic(endpoint=endpoint, **found) if found["requests"] else None
