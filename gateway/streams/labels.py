"""Label blocks to rows of the table `labels`, in the order in which they came."""

from collections.abc import Sequence
from math import isfinite

import msgspec
import numpy as np
import pyarrow as pa

from gateway.streams.arrow import table, times, uuids
from gateway.streams.schema import LABELS, SENSITIVE_LABELS
from models.answer import text_of
from routing.records import LabelBlock, LabelRow, SensitiveLabelBlock

Label = float | int | str | bool | list[float | int | str | bool]


def rows(blocks: Sequence[LabelBlock]) -> pa.Table | None:
    """The rows of `blocks`; None when there are none. Raises BlockInvalid."""
    labels = [label for block in blocks for label in block.labels]
    if not labels:
        return None
    received_at, date = times([label.received_unix_us for label in labels])
    values = [label.label for label in labels]
    columns = _about(labels) | {
        "date": date,
        "label_text": pa.array([None if value is None else text(value) for value in values], pa.string()),
        "label_number": pa.array([number(value) for value in values], pa.float64()),
        "at": pa.array([label.at_unix_us for label in labels], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "received_at": received_at,
        "keyed": pa.array([label.keyed for label in labels]),
        "retracted": pa.array([value is None for value in values]),
    }
    return table(columns, LABELS)


def apart(blocks: Sequence[SensitiveLabelBlock]) -> pa.Table | None:
    """The rows of the table `sensitive_labels`; None when there are none. Raises BlockInvalid."""
    labels = [label for block in blocks for label in block.labels]
    if not labels:
        return None
    received_at, date = times([label.received_unix_us for label in labels])
    return table(_about(labels) | {"date": date, "received_at": received_at}, SENSITIVE_LABELS)


def text(value: Label) -> str:
    """A label as text, the same as `models.answer` writes a prediction; a list is JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, list) else text_of(value)


def number(value: Label | None) -> float | None:
    """A label as a number: numbers, booleans as 0 and 1, and text that is a finite number."""
    try:
        found = None if value is None or isinstance(value, list) else float(value)
    except (ValueError, OverflowError):
        return None
    return found if found is not None and isfinite(found) else None


def _about(labels: list[LabelRow]) -> dict[str, pa.Array]:
    """What the labels are about, and what they carry beside their values."""
    return {
        "prediction_id": _ids(labels),
        "endpoint": pa.array([label.endpoint for label in labels], pa.string()),
        "request_id": pa.array([label.request_id for label in labels], pa.string()),
        "row": pa.array([label.row for label in labels], pa.int32()),
        "attributes": pa.array([_attributes(label) for label in labels], pa.string()),
    }


def _ids(labels: list[LabelRow]) -> pa.Array:
    """UUID text; null for labels by request id."""
    is_none = np.array([label.prediction_id is None for label in labels])
    found = uuids([label.prediction_id for label in labels if label.prediction_id is not None])
    place = np.cumsum(~is_none) - 1
    return found.take(pa.array(place, mask=is_none)) if len(found) else pa.nulls(len(labels), pa.string())


def _attributes(label: LabelRow) -> str | None:
    return msgspec.json.encode(label.attributes).decode() if label.attributes else None
