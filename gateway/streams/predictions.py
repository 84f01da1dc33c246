"""Prediction blocks to rows of the table `predictions`: one a row of input, failures included."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from gateway.streams.arrow import (
    BlockInvalid,
    choices,
    expanded,
    grouped,
    hexes,
    layout,
    named,
    table,
    tensors,
    times,
    transposed,
    uuids,
)
from gateway.streams.schema import ARROW_OF, PREDICTIONS, Naming
from models.answer import read
from models.signature import Answer
from routing.records import ASSIGNED_BY, LOOKUPS, PROTOCOLS, PredictionBlock, RequestRow

Answers = Callable[[str], Answer | None]
"""How a model's prediction is read, by artifact digest; None when that is not known."""

_FIELDS: Final = RequestRow.__struct_fields__
_INTEGERS: Final = ("bucket", "status", "queue_us", "compute_us", "total_us", "batch_rows")
_TEXTS: Final = ("request_id", "rule", "code", "unit")
_FLAGS: Final = ("unit_missing", "experiment")


def tables(blocks: Sequence[PredictionBlock], naming: Naming, answers: Answers) -> list[pa.Table]:
    """The rows of `blocks`, one table for each set of columns. Raises BlockInvalid when any block does not add up."""
    return [_table(group, naming, answers) for group in grouped(blocks, _kind).values()]


def _kind(block: PredictionBlock) -> tuple[object, ...]:
    return (
        block.endpoint,
        block.revision,
        block.variants,
        block.digest,
        block.model,
        block.version,
        block.fallback_of,
        block.inputs_digest is None,
        layout(block.inputs),
        layout(block.outputs),
        tuple([(key.name, key.datatype) for key in block.keys]),
        layout(block.lookups),
    )


def _table(blocks: list[PredictionBlock], naming: Naming, answers: Answers) -> pa.Table:
    rows = [sum([request.rows for request in block.requests]) for block in blocks]
    first = blocks[0]
    requests = _requests(blocks)
    columns = expanded(requests, requests.pop("rows").to_pylist())
    inputs = tensors([block.inputs for block in blocks], rows)
    outputs = tensors([block.outputs for block in blocks], rows)
    answer = answers(first.digest) if outputs else None
    if answer is not None:
        shaped = [output.array if output.array.shape[1] > 1 else output.array[:, 0] for output in outputs]
        labels, scores = read(answer, [output.name for output in outputs], shaped)
        columns |= {"answer_label": pa.array(labels, pa.string()), "answer_score": pa.array(scores, pa.float64())}
    columns |= named("input", inputs, naming) | _features(blocks, rows, naming) | named("output", outputs, naming)
    return table(columns, PREDICTIONS)


def _features(blocks: list[PredictionBlock], rows: list[int], naming: Naming) -> dict[str, pa.Array]:
    """`key_<name>`, and what came of the lookup of each input: `lookup_<input>` and `lookup_age_s_<input>`."""
    first = blocks[0]
    columns: dict[str, pa.Array] = {}
    for place, key in enumerate(first.keys):
        type_ = ARROW_OF[key.datatype]
        values = pa.array([value for block in blocks for value in block.keys[place].values], type_)
        if len(values) != sum(rows):
            raise BlockInvalid(f"key {key.name!r}: wanted {sum(rows)} values, got {len(values)}")
        columns[naming.name("key", key.name, key.datatype, type_)] = values
    for found in tensors([block.lookups for block in blocks], rows):
        columns[naming.name("lookup", found.name, "BYTES", pa.string())] = choices(LOOKUPS, found.array[:, 0].tolist())
    for found in tensors([block.ages_s for block in blocks], rows):
        known = pa.array(found.array[:, 0], mask=np.isnan(found.array[:, 0]))
        columns[naming.name("lookup_age_s", found.name, "FP64", pa.float64())] = known
    return columns


def _requests(blocks: list[PredictionBlock]) -> dict[str, pa.Array]:
    """The columns that each request has one value of."""
    first = blocks[0]
    requests = [request for block in blocks for request in block.requests]
    values = transposed(requests, _FIELDS)
    received_at, date = times(values["received_unix_us"])
    assigned, answered = np.array(values["assigned"]), np.array(values["answered"])
    constants = {
        "endpoint": first.endpoint,
        "revision": first.revision,
        "model": first.model,
        "version": first.version,
        "digest": first.digest,
        "fallback_of": first.fallback_of,
    }
    columns = {
        "rows": pa.array(values["rows"], pa.int32()),
        "prediction_id": uuids(values["prediction_id"]),
        "received_at": received_at,
        "date": date,
        "assigned": choices(first.variants, values["assigned"]),
        "variant": choices(first.variants, values["answered"]),
        "assigned_by": choices(ASSIGNED_BY, values["assigned_by"]),
        "protocol": choices(PROTOCOLS, values["protocol"]),
        "fallback": pa.array((answered >= 0) & (answered != assigned) | (first.fallback_of is not None)),
        "propensity": pa.array(values["propensity"], pa.float64()),
        "trace_id": hexes(values["trace_id"]),
        **{name: pa.array(np.array(values[name], np.int64)) for name in _INTEGERS},
        **{name: pa.array(values[name], pa.string()) for name in _TEXTS},
        **{name: pa.array(values[name], pa.bool_()) for name in _FLAGS},
        **{name: pa.repeat(pa.scalar(value), len(requests)) for name, value in constants.items() if value is not None},
    }
    if first.inputs_digest is not None:
        digests = [digest for block in blocks for digest in block.inputs_digest or ()]
        if len(digests) != len(requests):
            raise BlockInvalid("inputs_digest: one digest a request is wanted")
        columns["inputs_digest"] = pa.array(digests, pa.string())
    return columns
