"""Shadow blocks to rows of the table `shadows`: one a row of input and mirror, with production's answer beside the candidate's."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from gateway.streams.arrow import (
    BlockInvalid,
    choices,
    expanded,
    grouped,
    layout,
    named,
    table,
    tensors,
    times,
    transposed,
    uuids,
)
from gateway.streams.schema import SHADOWS, Naming
from routing.records import ShadowBlock, ShadowRow

_FIELDS: Final = ShadowRow.__struct_fields__
_ANSWERS: Final = {
    "answer_label": ("labels", pa.string()),
    "answer_score": ("scores", pa.float64()),
    "live_label": ("live_labels", pa.string()),
    "live_score": ("live_scores", pa.float64()),
}


def tables(blocks: Sequence[ShadowBlock], naming: Naming) -> list[pa.Table]:
    """The rows of `blocks`, one table for each set of columns. Raises BlockInvalid when any block does not add up."""
    return [_table(group, naming) for group in grouped([one for one in blocks if one.requests], _kind).values()]


def _kind(block: ShadowBlock) -> tuple[object, ...]:
    return (
        block.endpoint,
        block.revision,
        block.variants,
        block.mirror,
        block.model,
        block.version,
        block.live_model,
        block.live_version,
        layout(block.outputs),
    )


def _table(blocks: list[ShadowBlock], naming: Naming) -> pa.Table:
    rows = [sum([request.rows for request in block.requests]) for block in blocks]
    requests = _requests(blocks)
    columns = expanded(requests, requests.pop("rows").to_pylist())
    for name, (field, type_) in _ANSWERS.items():
        columns[name] = pa.array(_answers(blocks, field, rows), type_)
    outputs = tensors([block.outputs for block in blocks], rows)
    return table(columns | named("output", outputs, naming), SHADOWS)


def _answers(blocks: Sequence[ShadowBlock], field: str, rows: Sequence[int]) -> list[object]:
    """A label or score a row; a block may leave them all out."""
    joined: list[object] = []
    for block, count in zip(blocks, rows, strict=True):
        found = getattr(block, field) or [None] * count
        if len(found) != count:
            raise BlockInvalid(f"{field}: wanted {count}, one a row, got {len(found)}")
        joined += found
    return joined


def _requests(blocks: list[ShadowBlock]) -> dict[str, pa.Array]:
    first = blocks[0]
    counts = [len(block.requests) for block in blocks]
    requests = [request for block in blocks for request in block.requests]
    values = transposed(requests, _FIELDS)
    received_at, date = times(values["received_unix_us"])
    constants = {
        "endpoint": first.endpoint,
        "revision": first.revision,
        "mirror": first.mirror,
        "model": first.model,
        "version": first.version,
        "live_model": first.live_model,
        "live_version": first.live_version,
    }
    sequences = np.repeat(np.array([block.source_sequence for block in blocks], np.int64), counts)
    sources = pa.array([block.source_writer for block in blocks], pa.string())
    return {
        "rows": pa.array(values["rows"], pa.int32()),
        "prediction_id": uuids(values["prediction_id"]),
        "received_at": received_at,
        "date": date,
        "live_variant": choices(first.variants, values["live_variant"]),
        "unit": pa.array(values["unit"], pa.string()),
        "experiment": pa.array(values["experiment"], pa.bool_()),
        "outcome": pa.array(values["outcome"], pa.string()),
        **{name: pa.array(np.array(values[name], np.int64)) for name in ("compute_us", "batch_rows", "lag_us")},
        **{name: pa.repeat(pa.scalar(value), len(requests)) for name, value in constants.items()},
        "source_sequence": pa.array(sequences),
        "source_writer": sources.take(pa.array(np.repeat(np.arange(len(blocks)), counts))),
    }
