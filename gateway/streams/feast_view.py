"""The rows of somebody's Feast view, as its own offline store gives them."""

import datetime as dt
from collections.abc import Sequence

import pyarrow as pa
from feast import FeatureStore
from feast.infra.provider import get_provider


def rows_of_view(repo: str, view: str, columns: Sequence[str], since: dt.datetime, until: dt.datetime) -> pa.Table:
    """Some columns of the rows whose event lies in [since, until]. Raises whatever Feast and its stores raise."""
    store = FeatureStore(repo)
    source = store.get_feature_view(view).batch_source
    stamp = source.timestamp_field
    job = get_provider(store.config).offline_store.pull_all_from_table_or_query(
        config=store.config,
        data_source=source,
        join_key_columns=[],
        feature_name_columns=[column for column in columns if column != stamp],
        timestamp_field=stamp,
        start_date=since,
        end_date=until,
    )
    return job.to_arrow()
