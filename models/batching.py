"""How requests share a run: rows of several requests end to end, and the outputs cut apart again. Plain functions on arrays."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from models.signature import TensorSpec
from models.staged import StagedModel
from models.tensors import NUMPY_OF, Array

FlatRows = list[float | None]
"""A floating tensor as the JSON decoder left it: all values row-major, count already checked against the shape, null for NaN."""

_CODES: Final = {"FP32": "f", "FP64": "d"}

Part = Array | FlatRows
"""One request's rows of one input."""


def gather(parts: Sequence[Part], spec: TensorSpec) -> Array:
    """Joins the requests' rows of one input into one array of shape (Σ rows, *tail), C-contiguous.

    Flat lists of all requests become one array in one step: numpy's cost is per call, not per value, for small requests.
    """
    values: FlatRows = []
    for part in parts:
        if type(part) is not list:
            break
        values += part
    else:
        return _packed(values, spec)
    arrays = [to_array(part, spec) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def to_array(part: Part, spec: TensorSpec) -> Array:
    """One request's rows as an array."""
    if type(part) is list:
        return _packed(part, spec)
    return part  # type: ignore[return-value]  # the only other kind of Part


def _packed(values: FlatRows, spec: TensorSpec) -> Array:
    """Flat values as an array. `struct` writes them in a quarter of numpy's time, but knows neither null nor a double beyond a float."""
    dtype = NUMPY_OF[spec.datatype]
    try:
        flat = np.frombuffer(struct.pack(f"{len(values)}{_CODES[spec.datatype]}", *values), dtype)
    except (struct.error, OverflowError, KeyError):
        flat = np.array(values, dtype=dtype)
    return flat.reshape(-1, *spec.shape[1:])


def fill_samples(staged: StagedModel, folder: Path) -> list[Array]:
    """Rows to warm a model with: the staged samples, else zeros and empty strings with every free dimension one."""
    stored: dict[str, Array] = {}
    if staged.samples_file:
        with np.load(folder / staged.samples_file, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
    samples = []
    for spec in staged.signature.inputs:
        if spec.name in stored:
            array = stored[spec.name]
            samples.append(array.astype(object) if spec.datatype == "BYTES" else array.astype(NUMPY_OF[spec.datatype]))
        else:
            shape = tuple(1 if dim < 0 else dim for dim in spec.shape)
            samples.append(
                np.full(shape, "", dtype=object)
                if spec.datatype == "BYTES"
                else np.zeros(shape, NUMPY_OF[spec.datatype])
            )
    return samples
