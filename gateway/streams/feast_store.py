"""Feast's offline store for Delta tables: `offline_store: {type: gateway.streams.feast_store.DeltaOfflineStore}`. One room of Feast.

Feast's own stores read a Delta table by its files or not at all, so that rows double after a compaction; this one asks the table's log.
A source whose tags name an endpoint sees that endpoint's rows only, and `labels` as what is known of each prediction and when.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import duckdb
import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from feast.data_format import DeltaFormat
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    offline_write_batch_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from gateway.streams.schema import DRIFT, MEASURES, SCHEMAS
from gateway.streams.truth_sql import KNOWN_AT, RESOLVED

ENDPOINT_TAG: Final = "runoff.endpoint"
_LABELS: Final = f"""
    SELECT id::VARCHAR AS prediction_id, row, label_text, label_number, {KNOWN_AT} AS known_at, received_at, keyed, sequence
    FROM ({RESOLVED.format(narrow_id="", sized="predictions")}) WHERE fault IS NULL
"""  # noqa: S608  # our own names


_SO_FAR: Final = ", ".join(
    f"last_value({name} IGNORE NULLS) OVER so_far AS {name}" for name in ("labelled", *MEASURES, *DRIFT)
)
_MINUTES: Final = f"""
    SELECT role, variant, version, minute, requests, errors, rows, latency_sum_s, compared, agreed, dropped, {_SO_FAR}
    FROM metrics WHERE endpoint = $1 WINDOW so_far AS (PARTITION BY role, variant, version ORDER BY minute)
"""  # noqa: S608  # our own names


class DeltaOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast is not followed by mypy
    """`offline_store` in feature_store.yaml."""

    type: StrictStr = "gateway.streams.feast_store.DeltaOfflineStore"
    staging_location: str | None = None
    staging_location_endpoint_override: str | None = None


class NotOurs(Exception):
    """A write to one of the gateway's own tables: the gateway alone writes them, each record once."""


class DeltaOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]  # see above
    """Every read is of one snapshot of the table's log; every write one commit. All else as Feast's DuckDB store."""

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        return pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            **_callbacks(config),
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        return pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            **_callbacks(config),
        )

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        return get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            filter_by_created_timestamp=filter_by_created_timestamp,
            **_callbacks(config),
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        offline_write_batch_ibis(config, feature_view, table, progress, _write)


def _callbacks(config: RepoConfig) -> dict[str, Any]:
    store = config.offline_store
    return {
        "data_source_reader": _read,
        "data_source_writer": _write,
        "staging_location": store.staging_location,
        "staging_location_endpoint_override": store.staging_location_endpoint_override,
    }


def _read(source: DataSource, repo_path: str) -> ibis.Table:
    """A source's rows as of now. Only Delta tables: others have their own stores."""
    if not isinstance(source, FileSource) or not isinstance(source.file_format, DeltaFormat):
        raise TypeError(f"source '{source.name}': wanted a FileSource with file_format=DeltaFormat()")
    uri = FileSource.get_uri_for_file_path(repo_path, source.path)
    endpoint = (source.tags or {}).get(ENDPOINT_TAG)
    if endpoint is None:
        return ibis.memtable(DeltaTable(uri).to_pyarrow_dataset())
    if uri.rstrip("/").rpartition("/")[2] == "metrics":
        return ibis.memtable(_minutes(uri, endpoint))
    if uri.rstrip("/").rpartition("/")[2] == "labels":
        return ibis.memtable(_labels(uri.rstrip("/").removesuffix("labels"), endpoint))
    return ibis.memtable(DeltaTable(uri).to_pyarrow_dataset().filter(pc.field("endpoint") == endpoint))


def _labels(lake: str, endpoint: str) -> pa.Table:
    """Each label at its prediction, with the moment from which it was known; a retraction is a row without a label."""
    with duckdb.connect(":memory:", config={"threads": 2}) as connection:
        for name in ("labels", "predictions"):
            connection.register(name, DeltaTable(f"{lake}{name}").to_pyarrow_dataset())
        return connection.sql(_LABELS, params=[endpoint]).to_arrow_table()


def _minutes(uri: str, endpoint: str) -> pa.Table:
    """One row a variant or mirror, version and minute, over all workers; how right it was goes on until that changed."""
    with duckdb.connect(":memory:", config={"threads": 2}) as connection:
        connection.register("metrics", DeltaTable(uri).to_pyarrow_dataset())
        return connection.sql(_MINUTES, params=[endpoint]).to_arrow_table()


def _write(
    table: ibis.Table, source: DataSource, repo_path: str, mode: str = "append", allow_overwrite: bool = False
) -> None:
    """One commit. Raises NotOurs for a table that the gateway writes."""
    uri = FileSource.get_uri_for_file_path(repo_path, source.path)
    if (source.tags and ENDPOINT_TAG in source.tags) or uri.rstrip("/").rpartition("/")[2] in SCHEMAS:
        raise NotOurs(f"'{source.name}' is written by the gateway alone; push with to=PushMode.ONLINE")
    how: dict[str, Any] = {"mode": "append", "schema_mode": "merge"}
    if mode == "overwrite":
        how = {"mode": "overwrite" if allow_overwrite else "error"}
    write_deltalake(uri, table.to_pyarrow(), **how)
