"""Rows that production has seen, as a model takes them: to certify, to warm, and to compare a version with the one it would replace."""

import time
from math import prod
from typing import Final

import numpy as np

from gateway.evidence.query import Queries, quoted
from models.signature import Signature, TensorSpec
from models.tensors import NUMPY_OF, Array

ROWS_MAX: Final = 1000
_DAYS: Final = 30


def recorded_rows(
    queries: Queries, endpoint: str, signature: Signature, *, rows_max: int = ROWS_MAX
) -> dict[str, Array]:
    """The newest rows that were recorded whole, by input name, of the signature's datatypes and shapes, rows first.

    Empty where an input is not recorded, is masked, or was recorded under another type.
    """
    columns = {spec.name: f"input_{spec.name}" for spec in signature.inputs}
    with queries.snapshot("predictions", endpoint=endpoint, since_unix_s=time.time() - _DAYS * 86_400) as snapshot:
        if not columns or not set(columns.values()) <= snapshot.columns("predictions"):
            return {}
        names = [quoted(column) for column in columns.values()]
        whole = " AND ".join(f"{name} IS NOT NULL" for name in names)
        found = snapshot.arrays(
            f"SELECT {', '.join(names)} FROM predictions WHERE endpoint = ? AND date > current_date - {_DAYS} AND {whole}"  # noqa: S608
            " ORDER BY sequence DESC LIMIT ?",
            [endpoint, rows_max],
        )
    try:
        rows = {spec.name: _shaped(spec, found[columns[spec.name]]) for spec in signature.inputs}
    except (ValueError, TypeError):
        return {}
    return rows if all(len(values) for values in rows.values()) else {}


def _shaped(spec: TensorSpec, values: Array) -> Array:
    """One column as a tensor. Raises ValueError or TypeError for what does not fit."""
    tail = spec.shape[1:]
    if any(length < 0 for length in tail):
        raise ValueError(f"input '{spec.name}' has no fixed row")
    count = len(values)
    flat = np.concatenate([np.asarray(value) for value in values]) if count and prod(tail) != 1 else np.asarray(values)
    if spec.datatype == "BYTES":
        return flat.astype(object).reshape(count, *tail)
    if flat.dtype.kind in "OUS":
        raise ValueError(f"input '{spec.name}' was masked")
    shaped: Array = flat.astype(NUMPY_OF[spec.datatype]).reshape(count, *tail)
    return shaped
