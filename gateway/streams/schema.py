"""The tables of the lake: their columns, types and partitions, and how input and output columns are named beside them."""

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

_TEXT: Final = pa.string()
_TIME: Final = pa.timestamp("us", "UTC")
_WHO: Final = [("endpoint", _TEXT), ("date", pa.date32())]
PARTITIONS: Final = ("endpoint", "date")

_NUMBER: Final = ("sequence", pa.int64())
"""Counts the rows of all tables together in the order in which they were first committed: what a verdict is a function of."""

PREDICTIONS: Final = pa.schema(
    [
        _NUMBER,
        ("prediction_id", _TEXT),
        ("row", pa.int32()),
        ("rows", pa.int32()),
        ("request_id", _TEXT),
        *_WHO,
        ("received_at", _TIME),
        ("revision", pa.int64()),
        ("assigned", _TEXT),
        ("variant", _TEXT),
        ("assigned_by", _TEXT),
        ("rule", _TEXT),
        ("fallback", pa.bool_()),
        ("fallback_of", _TEXT),
        ("bucket", pa.int32()),
        ("propensity", pa.float64()),
        ("unit", _TEXT),
        ("unit_missing", pa.bool_()),
        ("experiment", pa.bool_()),
        ("protocol", _TEXT),
        ("status", pa.int32()),
        ("code", _TEXT),
        ("model", _TEXT),
        ("version", _TEXT),
        ("digest", _TEXT),
        ("queue_us", pa.int64()),
        ("compute_us", pa.int64()),
        ("total_us", pa.int64()),
        ("batch_rows", pa.int32()),
        ("trace_id", _TEXT),
        ("inputs_digest", _TEXT),
        ("answer_label", _TEXT),
        ("answer_score", pa.float64()),
    ]
)
"""One row an input row; `input_<name>` and `output_<name>` follow, by what was recorded. Outputs are null where the request failed."""

SHADOWS: Final = pa.schema(
    [
        _NUMBER,
        ("prediction_id", _TEXT),
        ("row", pa.int32()),
        ("rows", pa.int32()),
        *_WHO,
        ("received_at", _TIME),
        ("revision", pa.int64()),
        ("mirror", _TEXT),
        ("model", _TEXT),
        ("version", _TEXT),
        ("live_variant", _TEXT),
        ("live_model", _TEXT),
        ("live_version", _TEXT),
        ("unit", _TEXT),
        ("experiment", pa.bool_()),
        ("outcome", _TEXT),
        ("compute_us", pa.int64()),
        ("batch_rows", pa.int32()),
        ("lag_us", pa.int64()),
        ("answer_label", _TEXT),
        ("answer_score", pa.float64()),
        ("live_label", _TEXT),
        ("live_score", pa.float64()),
        ("source_writer", _TEXT),
        ("source_sequence", pa.int64()),
    ]
)
"""One row an input row and mirror that saw it; `outcome` is `recorded` or why there is no answer. `output_<name>` follow."""

LABELS: Final = pa.schema(
    [
        _NUMBER,
        ("prediction_id", _TEXT),
        *_WHO,
        ("request_id", _TEXT),
        ("row", pa.int32()),
        ("label_text", _TEXT),
        ("label_number", pa.float64()),
        ("at", _TIME),
        ("received_at", _TIME),
        ("keyed", pa.bool_()),
        ("retracted", pa.bool_()),
        ("attributes", _TEXT),
    ]
)
"""One row a label as it came. `at` null: the first receipt of that content counts.
`endpoint` is null for labels by prediction id; the prediction's own is found by joining."""

SENSITIVE: Final = pa.schema(
    [
        _NUMBER,
        ("prediction_id", _TEXT),
        ("row", pa.int32()),
        ("rows", pa.int32()),
        *_WHO,
        ("received_at", _TIME),
    ]
)
"""One row an input row of a route with `record.sensitive`; `attribute_<name>` follow. They are in no other table."""

SENSITIVE_LABELS: Final = pa.schema(
    [
        _NUMBER,
        ("prediction_id", _TEXT),
        *_WHO,
        ("request_id", _TEXT),
        ("row", pa.int32()),
        ("received_at", _TIME),
        ("attributes", _TEXT),
    ]
)
"""One row a label that came with attributes which its route calls sensitive (JSON); the label itself is in `labels`, without them."""

MEASURES: Final = (
    "coverage", "agreement", "accuracy", "precision", "recall", "f1", "log_loss", "brier", "auc", "calibration_error", "mae", "rmse",
    "bias", "r2",
)  # fmt: skip
"""What a look at quality stores of a variant or mirror, beside the number of its labelled rows."""

DRIFT: Final = ("drift_psi_max",)
"""What a feature store takes of it."""

_DRIFT: Final = [
    ("drift_psi_max", pa.float64()),
    ("drift_input", _TEXT),
    ("drift_psi", pa.map_(pa.field("key", _TEXT, nullable=False), pa.field("value", pa.float64()))),
]
"""The largest population stability index of a variant's recent inputs and answers, of which it is, and all of them by name."""

_MINUTE: Final = [
    _NUMBER,
    *_WHO,
    ("minute", _TIME),
    ("role", _TEXT),
    ("variant", _TEXT),
    ("model", _TEXT),
    ("version", _TEXT),
    ("requests", pa.int64()),
    ("errors", pa.int64()),
    ("rows", pa.int64()),
    ("latency_sum_s", pa.float64()),
    ("latency_buckets", pa.list_(pa.field("element", pa.int64()))),
    ("compared", pa.int64()),
    ("agreed", pa.int64()),
    ("dropped", pa.int64()),
]
_SEEN: Final = [("labelled", pa.int64()), *[(name, pa.float64()) for name in MEASURES], *_DRIFT]

METRICS: Final = pa.schema(
    [
        *_MINUTE,
        ("dropped_by", pa.map_(pa.field("key", _TEXT, nullable=False), pa.field("value", pa.int64()))),
        *_SEEN,
    ]
)
"""One row a minute, endpoint, variant (role `live`) or mirror, and model version. `requests` to `dropped` are of that minute alone;
`labelled` and what follows is how right it was, over the label window, when control last looked in it."""

METRIC_PARTS: Final = pa.schema([*_MINUTE, ("reason", _TEXT), ("writer", _TEXT), *_SEEN])
"""What the rows of `metrics` are made of: one row for what a writer told of a minute. `dropped` is for one `reason`."""

DEAD_LETTERS: Final = pa.schema(
    [
        ("letter", _TEXT),
        *_WHO,
        ("at", _TIME),
        ("writer", _TEXT),
        ("writer_sequence", pa.int64()),
        ("kind", _TEXT),
        ("table", _TEXT),
        ("reason", _TEXT),
        ("payload", pa.binary()),
    ]
)
"""One row a frame of the spool that could not be read, or that `table` could not take; `kind` and `endpoint` where so much could be read.
It is not numbered: what it holds is no record yet."""

INGESTED: Final = pa.schema(
    [
        ("_file", _TEXT),
        ("_file_sha256", _TEXT),
        ("_row", pa.int64()),
        ("_ingested_at", _TIME),
    ]
)
"""Of the tables of `runoff ingest`: where each row came from; the columns of the files follow, as they come."""

SCHEMAS: Final = {
    "predictions": PREDICTIONS,
    "shadows": SHADOWS,
    "labels": LABELS,
    "metrics": METRICS,
    "metric_parts": METRIC_PARTS,
    "sensitive": SENSITIVE,
    "sensitive_labels": SENSITIVE_LABELS,
    "dead_letters": DEAD_LETTERS,
}

ARROW_OF: Final = {
    "BOOL": pa.bool_(),
    "UINT8": pa.int16(),
    "UINT16": pa.int32(),
    "UINT32": pa.int64(),
    "UINT64": pa.decimal128(20, 0),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float32(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}
"""V2 datatype → the narrowest type of Delta that holds all its values: Delta has neither unsigned nor half-precision numbers."""


class Naming:
    """Gives tensor columns their names in one table, whose columns so far are `fields`.

    A name belongs to the type it was first used with; the same tensor under another type gets `__<datatype>` added, and so does a
    name that differs from an older one in case only, which Spark could not tell apart.
    """

    def __init__(self, fields: Iterable[pa.Field]) -> None:
        self._known = {field.name.lower(): (field.name, kind_of(field.type)) for field in fields}

    def name(self, kind: str, tensor: str, datatype: str, type_: pa.DataType) -> str:
        """The column of `tensor`; `kind` is `input` or `output`."""
        plain = f"{kind}_{tensor}"
        for name in (plain, f"{plain}__{datatype}"):
            if self._known.setdefault(name.lower(), (name, kind_of(type_))) == (name, kind_of(type_)):
                return name
        return f"{plain}__{datatype}_{kind_of(type_)}"


def kind_of(type_: pa.DataType) -> str:
    """A type by its values alone: how lists name their elements, and how wide offsets are, differs from reader to reader."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return "list_" + kind_of(type_.value_type)
    return "string" if pa.types.is_large_string(type_) or pa.types.is_string_view(type_) else str(type_)
