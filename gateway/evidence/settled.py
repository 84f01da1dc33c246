"""Labels that are old enough to judge: whether their prediction was found, and the row that they mean. Counted in the order of their
sequence, each once.
"""

import datetime as dt
from typing import Final

import msgspec

from gateway.evidence.query import Queries, Snapshot
from gateway.streams.arrow import id_unix_s

REQUEST_DAYS: Final = 31
"""A label by request id is looked for among predictions of so many days before it."""

LABELS_MAX: Final = 200_000
"""Of one look, lest those of a week are held at once; the next look goes on from there."""

_SPAN: Final = """
    SELECT least(
        coalesce(min(sequence) FILTER (received_at >= make_timestamptz($2)) - 1, max(sequence)),
        (SELECT max(sequence) FROM (SELECT sequence FROM labels WHERE sequence > $1 ORDER BY sequence LIMIT $3))
    ) AS last
    FROM labels WHERE sequence > $1
"""
_DUE: Final = """
    CREATE TEMP TABLE due AS SELECT prediction_id, endpoint, request_id, "row", received_at FROM labels WHERE sequence > $1 AND sequence <= $2
"""
_OLDEST: Final = """
    SELECT min(prediction_id) FILTER (uuid_extract_version(prediction_id::UUID) = 7) AS id,
        min(received_at) FILTER (prediction_id IS NULL) AS received_at
    FROM due
"""
_OUTCOMES: Final = """
    WITH of_id AS (
        SELECT prediction_id, min("rows") AS least, max("rows") AS most FROM (
            SELECT prediction_id, "rows" FROM predictions WHERE date >= $1
            UNION ALL SELECT prediction_id, "rows" FROM shadows WHERE date >= $1
        ) SEMI JOIN due USING (prediction_id) GROUP BY 1
    ), of_request AS (
        SELECT endpoint, request_id, min("rows") AS least, max("rows") AS most FROM predictions
        SEMI JOIN (SELECT endpoint, request_id FROM due WHERE prediction_id IS NULL) USING (endpoint, request_id)
        WHERE date >= $2 GROUP BY ALL
    ), found AS (
        SELECT "row", least, most FROM due LEFT JOIN of_id USING (prediction_id) WHERE prediction_id IS NOT NULL
        UNION ALL
        SELECT "row", least, most FROM due LEFT JOIN of_request USING (endpoint, request_id) WHERE prediction_id IS NULL
    )
    SELECT CASE WHEN most IS NULL THEN 'orphaned' WHEN "row" IS NULL AND least > 1 THEN 'row_missing'
        WHEN "row" >= most THEN 'row_unknown' ELSE 'joined' END AS outcome, count(*) AS labels
    FROM found GROUP BY 1
"""
_NEVER: Final = dt.date(2100, 1, 1)
_LAST_UNIX_S: Final = 4e9
_DAY: Final = dt.timedelta(days=1)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """`last`: the sequence up to which all labels are counted by now. A label by request id is `joined` if it is of a row of any of them.

    `row_missing`: the request had several rows, and the label names none; `row_unknown`: it had fewer. Neither is used.
    """

    last: int
    joined: int = 0
    orphaned: int = 0
    row_missing: int = 0
    row_unknown: int = 0


def settle(queries: Queries, after: int, before_unix_s: float, *, labels_max: int = LABELS_MAX) -> Settled:
    """Judges the labels above sequence `after`, up to the first one that was received at `before_unix_s` or later, and at most `labels_max`."""
    with queries.snapshot("labels") as snapshot:
        last = snapshot.rows(_SPAN, [after, int(before_unix_s * 1e6), labels_max])[0]["last"]
        if last is None or last <= after:
            return Settled(last=after)
        snapshot.run(_DUE, [after, last])
        by_id, by_request = _days(snapshot)
        due = snapshot.batches("FROM due", rows=LABELS_MAX).read_all()
    since = dt.datetime.combine(min(by_id, by_request), dt.time(), dt.UTC).timestamp()
    with queries.snapshot("predictions", "shadows", since_unix_s=since) as snapshot:
        snapshot.take("due", due)
        counts = {row["outcome"]: row["labels"] for row in snapshot.rows(_OUTCOMES, [by_id, by_request])}
    return Settled(last=last, **counts)


def _days(snapshot: Snapshot) -> tuple[dt.date, dt.date]:
    """From which days on predictions are looked for: by their id, and by their request."""
    oldest = snapshot.rows(_OLDEST)[0]
    by_id = _NEVER if oldest["id"] is None else _day_of(oldest["id"])
    by_request = (
        _NEVER
        if oldest["received_at"] is None
        else oldest["received_at"].astimezone(dt.UTC).date() - REQUEST_DAYS * _DAY
    )
    return by_id, by_request


def _day_of(prediction_id: str) -> dt.date:
    """The day before a prediction's own: its date is that of its arrival, which may be a moment earlier than its id's.

    Anybody may send any UUID: one of the year 10889 is of no day that there will be.
    """
    return dt.datetime.fromtimestamp(min(id_unix_s(prediction_id), _LAST_UNIX_S), dt.UTC).date() - _DAY
