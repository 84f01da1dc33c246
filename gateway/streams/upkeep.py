"""What leaves the lake: rows past their route's retention, and all that is about one unit.

Runs on the lake's own thread, so that no append is overtaken. Deleted rows are out of the tables at once, and out of the files with
the first compaction that comes a day later. Labels go before the predictions that they are found by, so that a crash in between
leaves nothing that the next run would not find.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from gateway.streams.arrow import id_floor
from gateway.streams.letters import DeadLetters
from gateway.streams.table import LakeTable

METRICS_KEPT_S: Final = 400 * 86_400
"""Minutes name nobody: they are kept for a year and a bit, so that a season can be compared with the last."""
_PARTS_KEPT_S: Final = 3 * 86_400
"""Parts are in their minutes within one; what comes later than this for a minute starts it anew."""
_WHOLE_DAYS_FROM_S: Final = 2 * 86_400
"""From this retention on days go whole, which costs no file its rewriting; a row then stays up to a day longer."""

_LABELS: Final = ("labels", "sensitive_labels")
_ENDPOINTLESS: Final = pc.field("endpoint").is_null()
"""Labels by prediction id do not say whose they are."""

Tables = Mapping[str, LakeTable]
Deleted = dict[str, int]
"""Rows that were deleted, by table."""


def expire(tables: Tables, letters: DeadLetters, retention_s: Mapping[str, int], now_us: int) -> Deleted:
    """Deletes rows of the endpoints in `retention_s` that are older than it says; raises CommitFailed.

    Age counts from the prediction, for a label by request id from its receipt. A label whose prediction is not (or no longer) there
    goes when the longest retention has passed. Endpoints that are not named are left alone.
    """
    deleted = dict.fromkeys(tables, 0)
    if not retention_s:
        return deleted
    stored = {name: _endpoints(table) for name, table in tables.items()}
    for endpoint, kept_s in retention_s.items():
        cutoff = _cutoff(now_us, kept_s)
        if endpoint in stored["predictions"]:
            for name in _LABELS:
                deleted[name] += _expire_labels_of(tables, name, endpoint, cutoff)
        for name in (*_LABELS, "sensitive", "predictions", "shadows"):
            if endpoint in stored[name]:
                deleted[name] += _expire_rows_of(tables[name], endpoint, cutoff)
    oldest = id_floor(_cutoff(now_us, max(retention_s.values())).timestamp())
    for name in _LABELS:
        if None in stored[name]:
            deleted[name] += tables[name].drop(_ENDPOINTLESS & (pc.field("prediction_id") < oldest))
    cutoffs = {endpoint: _cutoff(now_us, kept_s) for endpoint, kept_s in retention_s.items()}
    deleted["dead_letters"] = letters.expire(cutoffs, dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC))
    for name, kept_s in (("metrics", METRICS_KEPT_S), ("metric_parts", _PARTS_KEPT_S)):
        deleted[name] += tables[name].drop_partitions(f"date < '{_cutoff(now_us, kept_s).date()}'")
    return deleted


def forget(tables: Tables, letters: DeadLetters, units: Sequence[str], before_unix_us: int | None = None) -> Deleted:
    """Deletes every prediction of these units (as they are stored), its shadows and its labels, and dead letters that name any of these.

    Of predictions and shadows those whose request was received before that moment, None: all. Each step outlives a power loss before the next is
    taken. Raises CommitFailed, and OSError for letters that are still on their way.
    """
    is_theirs: Any = pc.field("unit").isin(list(units))
    if before_unix_us is not None:
        is_theirs &= pc.field("received_at") < pa.scalar(before_unix_us, pa.timestamp("us", "UTC"))
    requests = tables["predictions"].rows(("prediction_id", "endpoint", "request_id"), is_theirs)
    mirrored = tables["shadows"].rows(("prediction_id",), is_theirs)
    ids = pa.concat_tables([requests.select(["prediction_id"]), mirrored])["prediction_id"]
    # a unit with its length, or a short one would be found anywhere
    named_in = [msgspec.msgpack.encode(unit) for unit in units]
    named_in += [uuid.UUID(one).bytes for one in ids.unique().to_pylist()]
    deleted = {"dead_letters": letters.forget(named_in)}
    for name in _LABELS:
        deleted[name] = tables[name].drop(pc.field("prediction_id").isin(ids.unique()))
    for endpoint in requests["endpoint"].unique().to_pylist():
        named = requests.filter(pc.equal(requests["endpoint"], endpoint))["request_id"].drop_null()
        is_named = (pc.field("endpoint") == endpoint) & pc.field("request_id").isin(named.unique())
        for name in _LABELS:
            deleted[name] += tables[name].drop(is_named & pc.field("prediction_id").is_null())
    deleted["sensitive"] = tables["sensitive"].drop(pc.field("prediction_id").isin(ids.unique()))
    for name in (*_LABELS, "sensitive"):
        tables[name].sync()
    for name in ("predictions", "shadows"):
        deleted[name] = tables[name].drop(is_theirs)
        tables[name].sync()
    return deleted


def _expire_rows_of(table: LakeTable, endpoint: str, cutoff: dt.datetime) -> int:
    """Of whole days only the partition is asked, so that their files are dropped unread; the day of the cutoff is written anew."""
    dropped = table.drop_partitions(f"endpoint = {_text(endpoint)} AND date < '{cutoff.date()}'")
    if cutoff.time() != dt.time(0):
        is_day: Any = (pc.field("endpoint") == endpoint) & (pc.field("date") == cutoff.date())
        dropped += table.drop(is_day & (pc.field("received_at") < pa.scalar(cutoff)))
    return dropped


def _expire_labels_of(tables: Tables, name: str, endpoint: str, cutoff: dt.datetime) -> int:
    """Of the table `name` labels by prediction id of this endpoint's predictions that are about to go."""
    old_labels = _ENDPOINTLESS & (pc.field("prediction_id") < id_floor(cutoff.timestamp()))
    labelled = tables[name].rows(("prediction_id",), old_labels)
    if not labelled.num_rows:
        return 0
    is_old: Any = (pc.field("endpoint") == endpoint) & (pc.field("date") <= cutoff.date())
    gone = tables["predictions"].rows(("prediction_id",), is_old & (pc.field("received_at") < pa.scalar(cutoff)))
    is_gone = pc.is_in(labelled["prediction_id"], value_set=gone["prediction_id"].combine_chunks())
    return tables[name].drop(
        _ENDPOINTLESS & pc.field("prediction_id").isin(labelled.filter(is_gone)["prediction_id"].unique())
    )


def _cutoff(now_us: int, kept_s: int) -> dt.datetime:
    """What was received before this moment goes."""
    moment = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC) - dt.timedelta(seconds=kept_s)
    is_whole = kept_s >= _WHOLE_DAYS_FROM_S
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) if is_whole else moment


def _endpoints(table: LakeTable) -> set[str | None]:
    return {found["endpoint"] for found in table.partitions}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
