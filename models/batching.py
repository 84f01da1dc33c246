"""How requests share a run: rows of several requests end to end, and the outputs cut apart again. Plain functions on arrays."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from models.signature import TensorSpec
from models.staged import StagedModel
from models.tensors import NUMPY_OF, Array

FlatRows = list[float | None]
"""A floating tensor as the JSON decoder left it: all values row-major, count already checked against the shape, null for NaN."""

Part = Array | FlatRows
"""One request's rows of one input."""


def gather(parts: Sequence[Part], spec: TensorSpec) -> Array:
    """Joins the requests' rows of one input into one array of shape (Σ rows, *tail), C-contiguous.

    Flat lists of all requests become one array in one step: numpy's cost is per call, not per value, for small requests.
    """
    if all(type(part) is list for part in parts):
        values = parts[0] if len(parts) == 1 else list(chain.from_iterable(parts))
        tail = spec.shape[1:]
        return np.array(values, dtype=NUMPY_OF[spec.datatype]).reshape(-1, *tail)
    arrays = [to_array(part, spec) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def to_array(part: Part, spec: TensorSpec) -> Array:
    """One request's rows as an array."""
    if type(part) is list:
        return np.array(part, dtype=NUMPY_OF[spec.datatype]).reshape(-1, *spec.shape[1:])
    return part  # type: ignore[return-value]  # the only other kind of Part


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
