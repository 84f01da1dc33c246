"""The feature store as a sink: each unit's newest answer, and how right each variant is, go to the online store of a Feast
repository within seconds.

The repository says what is pushed: every push source whose batch source bears an endpoint's tag, as `runoff feast init` writes it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore, PushSource
from feast.data_source import PushMode

from gateway.streams.feast_store import ENDPOINT_TAG
from gateway.streams.relay import SinkFailed

_UNIT: Final = "unit"
_ARM: Final = ("role", "variant", "version")


class FeastSink:
    """The repository at `repo`. Raises SinkFailed where it is none, or has no push source of ours."""

    def __init__(self, repo: str) -> None:
        try:
            self._store = FeatureStore(repo)
            self._sources = self._found()
            self._minutes: dict[str, datetime] = {}
        except Exception as error:  # Feast raises whatever its parts raise
            raise SinkFailed(f"the feature repository {repo}: {error}") from error
        if not self._sources:
            raise SinkFailed(
                f"the feature repository {repo} has no push source of an endpoint: run `feast apply` there"
            )

    def send(self, table: str, rows: pa.Table) -> Sequence[int]:
        """Answered rows with a unit, and measures; of several of one unit or variant only the newest. A repetition changes nothing."""
        keys = {"predictions": (_UNIT,), "metrics": _ARM}.get(table)
        if keys is None:
            return ()
        known = rows[_UNIT if table == "predictions" else "labelled"]
        told = rows.filter(pc.and_(pc.is_valid(known), pc.is_valid(rows["variant"])))
        for (of, endpoint), (source, columns) in self._sources.items():
            if of != table:
                continue
            mine = told.filter(pc.equal(told["endpoint"], endpoint))
            mine = _newest(self._not_older(endpoint, mine) if table == "metrics" else mine, keys)
            if mine.num_rows:
                try:
                    self._store.push(source, mine.select(columns).to_pandas(), to=PushMode.ONLINE)
                except Exception as error:  # Feast raises whatever its parts raise
                    raise SinkFailed(f"{source}: {error}") from error
        return ()

    def close(self) -> None:
        """Nothing is held open."""

    def _not_older(self, endpoint: str, rows: pa.Table) -> pa.Table:
        """Without minutes before the last one that was pushed: one that something came late for is sent again."""
        last = self._minutes.get(endpoint)
        kept = rows if last is None else rows.filter(pc.greater_equal(rows["minute"], pa.scalar(last)))
        if kept.num_rows:
            self._minutes[endpoint] = pc.max(kept["minute"]).as_py()
        return kept

    def _found(self) -> dict[tuple[str, str], tuple[str, list[str]]]:
        """By table and endpoint, the name of its push source and the columns that its views take."""
        found = {}
        for source in self._store.list_data_sources():
            batch: Any = getattr(source, "batch_source", None)
            endpoint = None if batch is None else (batch.tags or {}).get(ENDPOINT_TAG)
            if isinstance(source, PushSource) and endpoint is not None:
                views = [
                    view
                    for view in cast("list[Any]", self._store.list_feature_views())
                    if view.stream_source is not None and view.stream_source.name == source.name
                ]
                names = [field.name for view in views for field in (*view.entity_columns, *view.features)]
                table = batch.path.rstrip("/").rpartition("/")[2]
                found[table, endpoint] = source.name, list(dict.fromkeys([*names, batch.timestamp_field]))
        return found


def _newest(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The row with the largest sequence of each key."""
    last = rows.group_by(list(keys)).aggregate([("sequence", "max")])["sequence_max"]
    return rows.filter(
        pc.is_in(rows["sequence"], value_set=last.combine_chunks() if last.num_chunks else pa.array([], pa.int64()))
    )
