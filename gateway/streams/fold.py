"""The table `metrics`, one row a minute of each variant and mirror, made of what its writers told of that minute.

Each part is folded once: a commit carries the last sequence number that was looked at and the last minute that was over, as transactions
of the table. What comes for a minute that has its row already is added to it, under a new number.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.streams.schema import METRIC_PARTS, METRICS
from gateway.streams.table import LakeTable

NUMBERED: Final = "sequence"
"""The transaction that counts rows over all tables: its version in a table is the last number that was given out there."""
_LOOKED_TO: Final = "folded"
_OVER_TO: Final = "folded_minute"
_GRACE_US: Final = 10_000_000
"""Workers tell of a minute in the second after it, and what they tell is in the lake a second later."""
_MINUTE_US: Final = 60_000_000
_WHO: Final = ("endpoint", "role", "variant", "model", "version", "minute")
_SUMS: Final = ("requests", "errors", "rows", "latency_sum_s", "compared", "agreed", "dropped")
_SEEN: Final = METRICS.names[METRICS.names.index("labelled") :]

Row = dict[str, Any]


def fold(
    parts: LakeTable, metrics: LakeTable, now_us: int, numbered_to: Callable[[], int], *, everything: bool = False
) -> int:
    """Folds the parts of minutes that are over (`everything`: also of the present one); answers how many rows that made.

    Minutes that are yet to come wait for their time, or one worker's wrong clock would pass for the end of all before. Raises CommitFailed.
    """
    looked_to, over_to = metrics.committed(_LOOKED_TO), metrics.committed(_OVER_TO)
    is_open: Any = pc.field("minute") >= pa.scalar((over_to + 1) * _MINUTE_US, pa.timestamp("us", "UTC"))
    found = parts.rows(METRIC_PARTS.names, (pc.field("sequence") > looked_to) | is_open)
    if not found.num_rows:
        return 0
    minutes = pc.cast(found["minute"], pa.int64())
    over = now_us // _MINUTE_US if everything else (now_us - _GRACE_US) // _MINUTE_US - 1
    over = max(over, over_to)  # also where the clock was set back
    due = found.filter(pc.less(minutes, (over + 1) * _MINUTE_US)).sort_by("sequence")
    if not due.num_rows:
        return 0
    parts.sync()  # or a part that a power loss took would come again, under a new number, and be added twice
    made = _merged({}, due.to_pylist())
    done = {_LOOKED_TO: max(looked_to, pc.max(found["sequence"]).as_py()), _OVER_TO: over}
    here = _here(metrics, due)
    again = {_key(row) for row in here} & made.keys()
    if not again:
        rows = numbered(_table(made.values()), after := numbered_to())
        metrics.append(rows, done | {NUMBERED: after + rows.num_rows})
        return len(made)
    added = _merged({_key(row): _as_part(row) for row in here if _key(row) in again}, due.to_pylist())
    after = numbered_to()
    rows = numbered(_table(added.values()), after)
    kept = _table(row for row in here if _key(row) not in again)
    metrics.replace(pa.concat_tables([kept, rows]), done | {NUMBERED: after + rows.num_rows})
    return len(added) - len(again)


def numbered(rows: pa.Table, after: int) -> pa.Table:
    """The rows with their `sequence`, from `after` + 1 on."""
    numbers = pa.array(np.arange(after + 1, after + 1 + rows.num_rows))
    return rows.set_column(rows.column_names.index(NUMBERED), NUMBERED, numbers)


def _here(metrics: LakeTable, due: pa.Table) -> list[Row]:
    """All rows of the partitions that `due` touches; none of them, in the usual case that no minute of it is there yet."""
    only = {name: [str(value) for value in due[name].unique().to_pylist()] for name in ("date", "endpoint")}
    oldest = pa.scalar(pc.min(due["minute"]))
    if not metrics.rows(["minute"], pc.field("minute") >= oldest, only).num_rows:
        return []
    partitions = {(row["endpoint"], row["date"]) for row in due.select(["endpoint", "date"]).to_pylist()}
    rows = metrics.rows(METRICS.names, only=only).to_pylist()
    return [row for row in rows if (row["endpoint"], row["date"]) in partitions]


def _merged(made: dict[tuple[object, ...], Row], parts: Iterable[Row]) -> dict[tuple[object, ...], Row]:
    """Sums of what can be added up, and the last of what was seen; `parts` in the order of their numbers."""
    for part in parts:
        row = made.setdefault(_key(part), {name: part[name] for name in (*_WHO, "date")} | {"dropped_by": {}})
        for name in _SUMS:
            if part[name] is not None:
                row[name] = (row.get(name) or 0) + part[name]
        if part["latency_buckets"] is not None:
            have = row.get("latency_buckets")
            both = [part["latency_buckets"]] if have is None else [have, part["latency_buckets"]]
            row["latency_buckets"] = [sum(counts) for counts in zip(*both, strict=True)]
        if part["reason"] is not None:
            row["dropped_by"][part["reason"]] = row["dropped_by"].get(part["reason"], 0) + part["dropped"]
        row |= {name: part[name] for name in _SEEN if part[name] is not None}
    return made


def _as_part(row: Row) -> Row:
    """A row that is there already, as what the next parts are added to."""
    return {**row, "dropped_by": dict(row["dropped_by"] or ())}


def _key(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in _WHO)


def _table(rows: Iterable[Row]) -> pa.Table:
    told = sorted(rows, key=lambda row: row["minute"])  # the newest has the greatest number
    columns = {}
    for field in METRICS:
        values = [row.get(field.name) for row in told]
        if pa.types.is_map(field.type):
            values = [list(dict(value).items()) if value else None for value in values]
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, METRICS)
