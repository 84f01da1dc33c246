"""Labels that are old enough to judge: whether their prediction was found. Counted in the order of their sequence, each once."""

import datetime as dt
import uuid
from typing import Final

import msgspec

from gateway.evidence.query import Queries, Snapshot

REQUEST_DAYS: Final = 31
"""A label by request id is looked for among predictions of so many days before it."""

_SPAN: Final = """
    SELECT coalesce(min(sequence) FILTER (received_at >= make_timestamptz($2)) - 1, max(sequence)) AS last
    FROM labels WHERE sequence > $1
"""
_DUE: Final = """
    CREATE TEMP TABLE due AS SELECT prediction_id, endpoint, request_id, received_at FROM labels WHERE sequence > $1 AND sequence <= $2
"""
_OLDEST: Final = """
    SELECT count(*) AS labels, min(prediction_id) FILTER (uuid_extract_version(prediction_id::UUID) = 7) AS id,
        min(received_at) FILTER (prediction_id IS NULL) AS received_at
    FROM due
"""
_JOINED: Final = """
    SELECT count(*) AS joined FROM due
    WHERE prediction_id IN (SELECT prediction_id FROM predictions WHERE date >= $1)
        OR prediction_id IN (SELECT prediction_id FROM shadows WHERE date >= $1)
        OR (prediction_id IS NULL AND (endpoint, request_id) IN (
            SELECT (endpoint, request_id) FROM predictions WHERE request_id IS NOT NULL AND date >= $2))
"""
_NEVER: Final = dt.date(2100, 1, 1)
_DAY: Final = dt.timedelta(days=1)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """`last`: the sequence up to which all labels are counted by now."""

    last: int
    joined: int = 0
    orphaned: int = 0


def settle(queries: Queries, after: int, before_unix_s: float) -> Settled:
    """Judges the labels above sequence `after`, up to the first one that was received at `before_unix_s` or later."""
    with queries.snapshot("predictions", "shadows", "labels") as snapshot:
        last = snapshot.rows(_SPAN, [after, int(before_unix_s * 1e6)])[0]["last"]
        if last is None or last <= after:
            return Settled(last=after)
        snapshot.run(_DUE, [after, last])
        return _judged(snapshot, last)


def _judged(snapshot: Snapshot, last: int) -> Settled:
    oldest = snapshot.rows(_OLDEST)[0]
    by_id = _NEVER if oldest["id"] is None else _day_of(oldest["id"])
    by_request = (
        _NEVER
        if oldest["received_at"] is None
        else oldest["received_at"].astimezone(dt.UTC).date() - REQUEST_DAYS * _DAY
    )
    joined = snapshot.rows(_JOINED, [by_id, by_request])[0]["joined"]
    return Settled(last=last, joined=joined, orphaned=oldest["labels"] - joined)


def _day_of(prediction_id: str) -> dt.date:
    """The day before a prediction's own: its date is that of its arrival, which may be a moment earlier than its id's."""
    return dt.datetime.fromtimestamp((uuid.UUID(prediction_id).int >> 80) / 1000, dt.UTC).date() - _DAY
