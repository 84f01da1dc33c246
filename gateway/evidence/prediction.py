"""The life of one prediction: its record, what every shadow said of the same rows, and the labels that came."""

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from gateway.evidence.query import Queries, Row, Snapshot
from gateway.evidence.truths import hold_latest, resolve

_PER_ROW: Final = ("row", "answer_label", "answer_score")
_KINDS: Final = ("input", "output", "key", "lookup")
"""`key_<name>`, `lookup_<input>` and `lookup_age_s_<input>` are there where features were looked up."""
_DAY: Final = dt.timedelta(days=1)


def prediction(queries: Queries, prediction_id: str, windows_s: Mapping[str, float]) -> dict[str, Any] | None:
    """What the lake holds of one prediction; None when it holds nothing of it. Raises ValueError for what is no UUID.

    `record` is None where the request was not sampled or has not arrived yet; its `rows` carry inputs, outputs and the answer.
    Of the `labels`, `holds` marks the one that counts for its row: `windows_s` says by endpoint how long after a prediction labels do,
    and where it does not, they do for ever.
    """
    key = str(uuid.UUID(prediction_id))
    with queries.snapshot("predictions", "shadows", "labels", prediction_id=key) as snapshot:
        where, values = _place(key)
        snapshot.narrow("predictions", where, values)
        rows = snapshot.rows("SELECT * FROM predictions ORDER BY row")
        shadows = snapshot.rows(f"SELECT * FROM shadows WHERE {where} ORDER BY row", values)  # noqa: S608  # our own text
        endpoint = (rows or shadows or [{"endpoint": ""}])[0]["endpoint"]
        labels = (
            _labels(snapshot, key, endpoint, windows_s.get(endpoint)) if _narrow_labels(snapshot, key, rows) else []
        )
    if not (rows or shadows or labels):
        return None
    return {
        "prediction_id": key,
        "endpoint": endpoint or None,
        "record": _record(rows) if rows else None,
        "shadows": [_split(row, ("output",)) for row in shadows],
        "labels": [_plain(label) for label in labels],
    }


def _place(key: str) -> tuple[str, list[object]]:
    """Where the rows of one prediction are; the id's own time says in which days to look (RFC 9562, version 7)."""
    if key[14] != "7":
        return "prediction_id = ?", [key]
    made = dt.datetime.fromtimestamp((uuid.UUID(key).int >> 80) / 1000, dt.UTC).date()
    return "prediction_id = ? AND date BETWEEN ? AND ?", [key, made - _DAY, made + _DAY]


def _narrow_labels(snapshot: Snapshot, key: str, rows: list[Row]) -> bool:
    """Leaves the labels that may be about the prediction, if any. One look by id and one by request, as an OR would read every row."""
    request_id = rows[0]["request_id"] if rows else None
    if request_id is None:
        snapshot.narrow("labels", "prediction_id = ?", [key])
    else:
        by_request = "SELECT * FROM labels WHERE prediction_id IS NULL AND endpoint = ? AND request_id = ?"
        snapshot.narrow("labels", f"prediction_id = ? UNION ALL {by_request}", [key, rows[0]["endpoint"], request_id])
    return bool(snapshot.rows("SELECT 1 FROM labels LIMIT 1"))


def _labels(snapshot: Snapshot, key: str, endpoint: str, window_s: float | None) -> list[Row]:
    resolve(snapshot, endpoint, prediction_id=key)
    every = snapshot.rows("SELECT * EXCLUDE (id), id::VARCHAR AS prediction_id FROM resolved ORDER BY sequence")
    snapshot.run("DROP TABLE resolved")
    resolve(snapshot, endpoint, prediction_id=key, window_s=window_s)
    hold_latest(snapshot)
    held = {row["sequence"] for row in snapshot.rows("SELECT sequence FROM latest_labels WHERE NOT retracted")}
    return [{**row, "holds": row["sequence"] in held} for row in every]


def _record(rows: list[Row]) -> dict[str, Any]:
    split = [_split(row, _KINDS) for row in rows]
    parts = [f"{kind}s" for kind in _KINDS]
    shared = {name: value for name, value in split[0].items() if name not in (*_PER_ROW, *parts)}
    shown = [part for part in parts if part in ("inputs", "outputs") or any(row[part] for row in split)]
    return {**shared, "rows": [{name: row[name] for name in (*_PER_ROW, *shown)} for row in split]}


def _split(row: Row, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Tensor columns under `inputs` and `outputs`, those that are null left out; everything else as it is."""
    tensors: dict[str, dict[str, Any]] = {f"{kind}s": {} for kind in kinds}
    plain = {}
    for name, value in _plain(row).items():
        kind, _, tensor = name.partition("_")
        if kind in kinds:
            if value is not None:
                tensors[f"{kind}s"][tensor] = value
        else:
            plain[name] = value
    return {**plain, **tensors}


def _plain(row: Row) -> dict[str, Any]:
    """Values that JSON has: times as RFC 3339 in UTC, the widest integers (stored as decimals) as integers."""
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value)
    return [_value(one) for one in value] if isinstance(value, list) else value
