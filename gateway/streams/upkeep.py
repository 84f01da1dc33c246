"""What leaves the lake: rows past their route's retention, and all that is about one unit.

Runs on the lake's own thread, so that no append is overtaken. Deleted rows are out of the tables at once, and out of the files with
the first compaction after `KEPT_H`. Labels go before the predictions that they are found by, so that a crash in between
leaves nothing that the next run would not find.
"""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from gateway.streams.arrow import id_floor, id_unix_s
from gateway.streams.letters import DeadLetters
from gateway.streams.table import LakeTable
from routing.traffic import Retention

_PARTS_KEPT_S: Final = 3 * 86_400
"""Parts are in their minutes within one; what comes later than this for a minute starts it anew."""
_WHOLE_DAYS_FROM_S: Final = 2 * 86_400
"""From this retention on days go whole, which costs no file its rewriting; a row then stays up to a day longer."""

_LABELS: Final = ("labels", "sensitive_labels")
_ENDPOINTLESS: Final = pc.field("endpoint").is_null()
"""Labels by prediction id do not say whose they are."""

Tables = Mapping[str, LakeTable]
Looked = dict[tuple[str, str], dt.datetime]
"""By table and endpoint, up to which cutoff labels of predictions that stay longer were looked for."""
Deleted = dict[str, int]
"""Rows that were deleted, by table."""
Request = tuple[str, str | None, str | None]
"""A prediction's id; its endpoint and its caller's request id, None where they are not known or there is none."""


def expire(
    tables: Tables,
    letters: DeadLetters,
    retention: Mapping[str, Retention],
    now_us: int,
    looked: Looked | None = None,
) -> Deleted:
    """Deletes rows of the endpoints in `retention` that are older than it says of their table; raises CommitFailed.

    Age counts from the prediction, for a label by request id from its receipt. A label whose prediction is not (or no longer) there
    goes when the longest retention of labels has passed. Endpoints that are not named are left alone, but for their parts of minutes.

    `looked` is kept from call to call: where predictions stay longer than their labels all of them are asked, which is done once a cutoff.
    """
    deleted = dict.fromkeys(tables, 0)
    if not retention:
        return deleted
    stored = {name: _endpoints(table) for name, table in tables.items()}
    for endpoint, kept in retention.items():
        if endpoint in stored["predictions"]:
            for name in _LABELS:
                before, is_shorter = cutoff(now_us, kept.kept_s(name)), kept.kept_s(name) < kept.predictions_s
                if looked is None or not is_shorter or looked.get((name, endpoint)) != before:
                    deleted[name] += _expire_labels_of(tables, name, endpoint, before)
                if looked is not None:
                    looked[name, endpoint] = before
        for name in (*_LABELS, "sensitive", "predictions", "shadows"):
            if endpoint in stored[name]:
                deleted[name] += _expire_rows_of(tables[name], endpoint, cutoff(now_us, kept.kept_s(name)))
        if endpoint in stored["metrics"]:
            day = cutoff(now_us, kept.kept_s("metrics")).date()
            deleted["metrics"] += tables["metrics"].drop_partitions(_days_before(endpoint, day))
    for name in _LABELS:
        if None in stored[name]:
            longest_s = max(kept.kept_s(name) for kept in retention.values())
            oldest = id_floor(cutoff(now_us, longest_s).timestamp())
            deleted[name] += tables[name].drop(_ENDPOINTLESS & (pc.field("prediction_id") < oldest))
    cutoffs = {endpoint: cutoff(now_us, kept.kept_s("dead_letters")) for endpoint, kept in retention.items()}
    deleted["dead_letters"] = letters.expire(cutoffs, dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC))
    deleted["metric_parts"] = tables["metric_parts"].drop_partitions(f"date < '{cutoff(now_us, _PARTS_KEPT_S).date()}'")
    return deleted


def cutoff(now_us: int, kept_s: int) -> dt.datetime:
    """What was received before this moment goes."""
    moment = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC) - dt.timedelta(seconds=kept_s)
    is_whole = kept_s >= _WHOLE_DAYS_FROM_S
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) if is_whole else moment


def requests_of(tables: Tables, units: Sequence[str], before_unix_us: int | None = None) -> list[Request]:
    """The predictions of these units (as they are stored) that were received before that moment, None: all. Raises CommitFailed."""
    is_theirs = _is_of(units, before_unix_us)
    found = tables["predictions"].rows(("prediction_id", "endpoint", "request_id"), is_theirs)
    mirrored = tables["shadows"].rows(("prediction_id",), is_theirs)["prediction_id"].to_pylist()
    requests = {one["prediction_id"]: (one["endpoint"], one["request_id"]) for one in found.to_pylist()}
    return [(one, *requests.get(one, (None, None))) for one in {**requests, **dict.fromkeys(mirrored)}]


def forget(
    tables: Tables,
    letters: DeadLetters,
    units: Sequence[str],
    before_unix_us: int | None = None,
    gone: Sequence[Request] = (),
) -> Deleted:
    """Deletes every prediction of these units (as they are stored), its shadows and its labels, and dead letters that name any of these.

    Of predictions and shadows those whose request was received before that moment, None: all. `gone` are predictions of theirs that were
    deleted before: of them what has come since. Each step outlives a power loss before the next is taken. Raises CommitFailed, and OSError
    for letters that are still on their way.
    """
    requests = [*requests_of(tables, units, before_unix_us), *_without_successor(tables, gone)]
    ids = pa.array({one for one, _, _ in requests}, pa.string())
    # a unit with its length, or a short one would be found anywhere
    named_in = [msgspec.msgpack.encode(unit) for unit in units]
    named_in += [uuid.UUID(one).bytes for one in ids.to_pylist()]
    deleted = {"dead_letters": letters.forget(named_in)}
    for name in _LABELS:
        deleted[name] = tables[name].drop(pc.field("prediction_id").isin(ids))
    for endpoint in {endpoint for _, endpoint, request_id in requests if request_id is not None}:
        named = pa.array({request_id for _, of, request_id in requests if of == endpoint and request_id}, pa.string())
        is_named = (pc.field("endpoint") == endpoint) & pc.field("request_id").isin(named)
        for name in _LABELS:
            deleted[name] += tables[name].drop(is_named & pc.field("prediction_id").is_null())
    deleted["sensitive"] = tables["sensitive"].drop(pc.field("prediction_id").isin(ids))
    for name in (*_LABELS, "sensitive"):
        tables[name].sync()
    for name in ("predictions", "shadows"):
        deleted[name] = tables[name].drop(_is_of(units, before_unix_us))
        tables[name].sync()
    return deleted


def _is_of(units: Sequence[str], before_unix_us: int | None) -> Any:
    is_theirs: Any = pc.field("unit").isin(list(units))
    if before_unix_us is not None:
        is_theirs &= pc.field("received_at") < pa.scalar(before_unix_us, pa.timestamp("us", "UTC"))
    return is_theirs


def _without_successor(tables: Tables, gone: Sequence[Request]) -> list[Request]:
    """Without the request ids that another prediction bears now: labels by them are that one's."""
    ids = pa.array({request_id for _, _, request_id in gone if request_id is not None}, pa.string())
    if not len(ids):
        return list(gone)
    found = tables["predictions"].rows(("endpoint", "request_id"), pc.field("request_id").isin(ids)).to_pylist()
    taken = {(one["endpoint"], one["request_id"]) for one in found}
    return [(one, None, None) if (of, named) in taken else (one, of, named) for one, of, named in gone]


def _expire_rows_of(table: LakeTable, endpoint: str, before: dt.datetime) -> int:
    """Of whole days only the partition is asked, so that their files are dropped unread; the day of the cutoff is written anew."""
    dropped = table.drop_partitions(_days_before(endpoint, before.date()))
    if before.time() != dt.time(0):
        is_day: Any = (pc.field("endpoint") == endpoint) & (pc.field("date") == before.date())
        dropped += table.drop(is_day & (pc.field("received_at") < pa.scalar(before)))
    return dropped


def _days_before(endpoint: str, day: dt.date) -> str:
    return f"endpoint = {_text(endpoint)} AND date < '{day}'"


def _expire_labels_of(tables: Tables, name: str, endpoint: str, before: dt.datetime) -> int:
    """Of the table `name` labels by prediction id of this endpoint's predictions from before that moment.

    Day by day, and only days that such labels may be of: where predictions stay longer than their labels there are many of them.
    """
    old_labels = _ENDPOINTLESS & (pc.field("prediction_id") < id_floor(before.timestamp()))
    labelled = tables[name].rows(("prediction_id",), old_labels)["prediction_id"].unique()
    if not len(labelled):
        return 0
    oldest = dt.datetime.fromtimestamp(id_unix_s(pc.min(labelled).as_py()), dt.UTC)
    first = oldest.date() - dt.timedelta(days=1)  # an id may be older than its arrival
    gone: list[pa.Array] = []
    for day in _days(tables["predictions"], endpoint):
        if first <= day <= before.date():
            is_old: Any = (pc.field("endpoint") == endpoint) & (pc.field("date") == day)
            found = tables["predictions"].rows(
                ("prediction_id",), is_old & (pc.field("received_at") < pa.scalar(before))
            )
            is_gone = pc.is_in(labelled, value_set=found["prediction_id"].combine_chunks())
            gone.append(labelled.filter(is_gone))
            labelled = labelled.filter(pc.invert(is_gone))
    ids = pa.concat_arrays(gone) if gone else pa.array([], pa.string())
    return tables[name].drop(_ENDPOINTLESS & pc.field("prediction_id").isin(ids)) if len(ids) else 0


def _days(table: LakeTable, endpoint: str) -> list[dt.date]:
    found = {one["date"] for one in table.partitions if one["endpoint"] == endpoint}
    return sorted(dt.date.fromisoformat(day) for day in found if day is not None)


def _endpoints(table: LakeTable) -> set[str | None]:
    return {found["endpoint"] for found in table.partitions}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
