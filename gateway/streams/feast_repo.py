"""A working feature repository for one endpoint, as text: entities, views, a feature service, and the two calls that train and serve.

Nothing here imports Feast: what is written does, where it is run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from gateway.streams.schema import DRIFT, MEASURES

_SCALARS: Final = {
    "bool": "Bool",
    "int8": "Int32",
    "int16": "Int32",
    "int32": "Int32",
    "int64": "Int64",
    "float": "Float32",
    "double": "Float64",
    "string": "String",
    "large_string": "String",
}
"""Arrow type → Feast's; what is not here (unsigned 64-bit integers) Feast has no type for."""

OFFLINE_STORE: Final = "gateway.streams.feast_store.DeltaOfflineStore"
"""What reads the lake in every repository that endpoints are added to."""

_STORE: Final = """\
# Made by `runoff feast init`. The offline store reads the lake's own log, so that a row counts once also after compactions.
project: {project}
provider: local
registry: data/registry.db
offline_store:
  type: {store}
online_store:
  type: sqlite
  path: data/online.db
entity_key_serialization_version: 3
"""

_VIEWS: Final = '''\
"""Features of the endpoint {endpoint}: what was asked and answered, what was true, and each unit's newest answer.

Made by `runoff feast init`; yours from now on. `feast apply` makes it known.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import {types}

LAKE = {lake!r}
TAGS = {{"runoff.endpoint": {endpoint!r}}}

prediction = Entity(name="prediction", join_keys=["prediction_id"], value_type=ValueType.STRING)
row = Entity(name="prediction_row", join_keys=["row"], value_type=ValueType.INT32, description="from 0, of a request of several rows")
unit = Entity(name="unit", join_keys=["unit"], value_type=ValueType.STRING, description="as recorded: keyed hash, or raw")

answers = FileSource(
    name="{prefix}_answers",
    path=f"{{LAKE}}/predictions",
    file_format=DeltaFormat(),
    timestamp_field="received_at",
    tags=TAGS,
)
truths = FileSource(
    name="{prefix}_truths",
    path=f"{{LAKE}}/labels",
    file_format=DeltaFormat(),
    timestamp_field="known_at",
    created_timestamp_column="received_at",
    tags=TAGS,
)

# One row a predicted row, from the moment it was answered.
{prefix}_predictions = FeatureView(
    name="{prefix}_predictions",
    entities=[prediction, row],
    ttl=timedelta(0),
    schema=[
{inputs}
        Field(name="answer_label", dtype=String),
        Field(name="answer_score", dtype=Float64),
        Field(name="variant", dtype=String),
        Field(name="model", dtype=String),
        Field(name="version", dtype=String),
        Field(name="revision", dtype=Int64),
    ],
    source=answers,
    online=False,
)

# The truth about it, from the moment it was known; a correction or a retraction holds from its own moment on.
{prefix}_labels = FeatureView(
    name="{prefix}_labels",
    entities=[prediction, row],
    ttl=timedelta(0),
    schema=[Field(name="label_text", dtype=String), Field(name="label_number", dtype=Float64)],
    source=truths,
    online=False,
)

# Each unit's newest answer, pushed by the gateway ([sinks.feast] in runoff.toml) within seconds.
{prefix}_push = PushSource(name="{prefix}_push", batch_source=answers)
{prefix}_latest = FeatureView(
    name="{prefix}_latest",
    entities=[unit],
    ttl=timedelta(days=1),
    schema=[
        Field(name="answer_label", dtype=String),
        Field(name="answer_score", dtype=Float64),
        Field(name="variant", dtype=String),
        Field(name="version", dtype=String),
        Field(name="prediction_id", dtype=String),
    ],
    source={prefix}_push,
    online=True,
)

# What each variant and mirror did, minute by minute, and how right it was as of then; the newest measures are pushed as well.
role = Entity(name="role", join_keys=["role"], value_type=ValueType.STRING, description="live or mirror")
variant = Entity(name="variant", join_keys=["variant"], value_type=ValueType.STRING, description="of a variant or a mirror, its name")
version = Entity(name="version", join_keys=["version"], value_type=ValueType.STRING)
minutes = FileSource(
    name="{prefix}_per_minute",
    path=f"{{LAKE}}/metrics",
    file_format=DeltaFormat(),
    timestamp_field="minute",
    tags=TAGS,
)
{prefix}_minutes = FeatureView(
    name="{prefix}_minutes",
    entities=[role, variant, version],
    ttl=timedelta(0),
    schema=[
        Field(name="requests", dtype=Int64),
        Field(name="errors", dtype=Int64),
        Field(name="rows", dtype=Int64),
        Field(name="latency_sum_s", dtype=Float64),
        Field(name="compared", dtype=Int64),
        Field(name="agreed", dtype=Int64),
        Field(name="dropped", dtype=Int64),
    ],
    source=minutes,
    online=False,
)
{prefix}_quality_push = PushSource(name="{prefix}_quality_push", batch_source=minutes)
{prefix}_quality = FeatureView(
    name="{prefix}_quality",
    entities=[role, variant, version],
    ttl=timedelta(days=30),
    schema=[
        Field(name="labelled", dtype=Int64),
{measures}
    ],
    source={prefix}_quality_push,
    online=True,
)

{prefix}_training = FeatureService(name="{prefix}_training", features=[{prefix}_predictions, {prefix}_labels])
{prefix}_online = FeatureService(name="{prefix}_online", features=[{prefix}_latest])
{prefix}_monitoring = FeatureService(name="{prefix}_monitoring", features=[{prefix}_minutes, {prefix}_quality])
'''

_TRAIN: Final = '''\
"""Last month's predictions of {endpoint} with the truth as it was known on a day: `python {train}`."""

from datetime import UTC, datetime, timedelta

import pandas as pd
from deltalake import DeltaTable
from feast import FeatureStore

LAKE = {lake!r}


def training_rows(since: datetime, known_by: datetime) -> pd.DataFrame:
    """Each row predicted since then once, with its inputs, its answer, and the label that was known by `known_by` (None: none)."""
    filters = [("endpoint", "=", {endpoint!r}), ("date", ">=", since.date()), ("received_at", ">=", since)]
    rows = DeltaTable(f"{{LAKE}}/predictions").to_pandas(columns=["prediction_id", "row"], filters=filters)
    rows["event_timestamp"] = known_by
    store = FeatureStore(".")
    service = store.get_feature_service("{prefix}_training")
    return store.get_historical_features(rows, service, filter_by_created_timestamp=True).to_df()


if __name__ == "__main__":
    now = datetime.now(UTC)
    rows = training_rows(now - timedelta(days=30), known_by=now)
    labelled = rows[rows["label_text"].notna()]
    print(f"{{len(rows)}} predictions, {{len(labelled)}} of them with a label")
    # What a model is fitted on, under the names that callers of the endpoint send.
    inputs = labelled.filter(regex="^input_").rename(columns=lambda name: name.removeprefix("input_"))
    print(inputs.assign(label=labelled["label_text"]).head())
'''


def repo(folder: Path, endpoint: str, lake: str, columns: Sequence[pa.Field]) -> dict[Path, str]:
    """The files of a feature repository; what is to be run stands last. `columns` are the endpoint's recorded inputs (`input_…`), in order.

    Inputs of types that Feast has not are left out.
    """
    store = _STORE.format(project=_prefix(endpoint).lower(), store=OFFLINE_STORE)
    return {folder / "feature_store.yaml": store, **_files(folder, endpoint, lake, columns, "train.py")}


def addition(folder: Path, endpoint: str, lake: str, columns: Sequence[pa.Field]) -> dict[Path, str]:
    """The files that bring one more endpoint to a repository of ours, as `repo` has them."""
    return _files(folder, endpoint, lake, columns, f"train_{_prefix(endpoint)}.py")


def _prefix(endpoint: str) -> str:
    prefix = "".join(one if one.isalnum() else "_" for one in endpoint)
    return prefix if prefix.isidentifier() else f"e_{prefix}"


def _files(folder: Path, endpoint: str, lake: str, columns: Sequence[pa.Field], train: str) -> dict[Path, str]:
    typed = [(field.name, type_of(field.type)) for field in columns]
    fields = [(name, type_) for name, type_ in typed if type_ is not None]
    used = {part for _, type_ in fields for part in type_.replace(")", "").split("(")}
    inputs = "\n".join(f"        Field(name={name!r}, dtype={type_})," for name, type_ in fields)
    words = {"endpoint": endpoint, "lake": lake, "prefix": _prefix(endpoint)}
    measures = "\n".join(f"        Field(name={name!r}, dtype=Float64)," for name in (*MEASURES, *DRIFT))
    views = _VIEWS.format(
        **words, inputs=inputs, measures=measures, types=", ".join(sorted({*used, "String", "Float64", "Int64"}))
    )
    return {folder / f"{words['prefix']}.py": views, folder / train: _TRAIN.format(**words, train=train)}


def type_of(type_: pa.DataType) -> str | None:
    """Feast's name of an Arrow type; None where it has none."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        inner = type_of(type_.value_type)
        return None if inner is None or inner.startswith("Array") else f"Array({inner})"
    return _SCALARS.get(str(type_))
