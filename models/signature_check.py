"""Whether given inputs fit a signature: the one check, for every protocol, before bad input takes a place from good input.

The rule of datatypes: an array is taken as it is, or widened where every value survives (FP32 → FP64, INT32 → INT64, INT32 → FP64,
UINT8 → INT16 …), which is what a client that reads narrow columns needs. Nothing is ever narrowed, rounded or parsed here: a
caller who means FP32 says FP32. Of shapes only one leniency: a column of shape [-1, 1] may come as [N].
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final, cast

import numpy as np

from models.errors import InputInvalid
from models.signature import Signature, TensorSpec
from models.tensors import FLOATING, INTEGRAL, NUMPY_OF, Array, datatype_of

_COLUMN: Final = (-1, 1)
_LOSSY: Final = frozenset({"INT64", "UINT64"})
_WIDENED: Final = frozenset(
    (NUMPY_OF[got], NUMPY_OF[wanted])
    for got in FLOATING | INTEGRAL
    for wanted in FLOATING | INTEGRAL
    if np.can_cast(NUMPY_OF[got], NUMPY_OF[wanted], "safe") and not (got in _LOSSY and wanted in FLOATING)
)
"""Pairs (got, wanted) where every value survives; numpy calls INT64 → FP64 safe as well, which it is not above 2**53."""


def check(signature: Signature, inputs: Mapping[str, Array]) -> tuple[list[Array], int]:
    """The arrays in the order of `signature.inputs`, C-contiguous and of its datatypes, and the number of rows.

    Rows are the first dimension where the signature leaves it free, and then at least one and the same for all inputs; else 1.
    Optional inputs that were left out are filled (NaN, or the empty string). Raises InputInvalid, which the caller can mend; the
    message names the input, what was wanted and what was got, never a value.
    """
    arrays: list[Array | None] = []
    columns = signature.columns
    rows = -1
    taken = 0
    for spec in signature.inputs:
        array = inputs.get(spec.name)
        if array is None:
            if not spec.optional:
                raise InputInvalid(_missing(signature, inputs))
            arrays.append(None)
            continue
        taken += 1
        wanted = NUMPY_OF[spec.datatype]
        if (
            array.dtype is not wanted and array.dtype != wanted
        ):  # numpy's own dtypes are single objects: identity is the common case
            array = _widened(spec, array)
        if columns and array.ndim == 1 and spec.shape == _COLUMN:
            array = array.reshape(-1, 1)
        else:
            array = _shaped(spec, array)
        if spec.shape and spec.shape[0] == -1:
            if rows < 0:
                rows = array.shape[0]
                if rows == 0:
                    raise InputInvalid(f"input '{spec.name}': wanted at least one row, got {_form(array)}")
            elif array.shape[0] != rows:
                raise InputInvalid(
                    f"input '{spec.name}': wanted {rows} rows as in the inputs before it, got {_form(array)}"
                )
        arrays.append(array)
    if taken != len(inputs):
        raise InputInvalid(_unknown(signature, inputs))
    if taken == len(arrays):
        return cast("list[Array]", arrays), max(rows, 1)
    if rows < 0 and signature.inputs:
        raise InputInvalid("no input at all: one must be given, also where every one is optional")
    return [
        _filled(spec, rows) if array is None else array for spec, array in zip(signature.inputs, arrays, strict=True)
    ], rows


def is_widened(got: str, wanted: str) -> bool:
    """Whether values of one datatype are taken for another, because each of them survives."""
    return (NUMPY_OF[got], NUMPY_OF[wanted]) in _WIDENED


def refuse_nonfinite(signature: Signature, arrays: Sequence[Array]) -> None:
    """For routes that say `nonfinite: reject`: raises InputInvalid if a floating input holds NaN or infinity."""
    for spec, array in zip(signature.inputs, arrays, strict=True):
        if spec.datatype in FLOATING and not np.isfinite(array).all():
            raise InputInvalid(f"input '{spec.name}': wanted finite values (this endpoint refuses NaN and infinity)")


def _widened(spec: TensorSpec, array: Array) -> Array:
    wanted = NUMPY_OF[spec.datatype]
    if (array.dtype, wanted) in _WIDENED or (spec.datatype == "BYTES" and array.dtype.kind == "U"):
        return array.astype(wanted)
    raise InputInvalid(_difference(spec, array))


def _shaped(spec: TensorSpec, array: Array) -> Array:
    shape = spec.shape
    if array.ndim != len(shape):
        raise InputInvalid(_difference(spec, array))
    for wanted, got in zip(shape, array.shape, strict=True):
        if wanted not in (got, -1):
            raise InputInvalid(_difference(spec, array))
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _filled(spec: TensorSpec, rows: int) -> Array:
    shape = (rows, *(1 if length == -1 else length for length in spec.shape[1:])) if spec.shape else ()
    if spec.datatype in FLOATING:
        return cast("Array", np.full(shape, np.nan, dtype=NUMPY_OF[spec.datatype]))
    if spec.datatype == "BYTES":
        return cast("Array", np.array([""] * prod(shape), dtype=object).reshape(shape))
    raise InputInvalid(f"input '{spec.name}' is missing, and {spec.datatype} has no value that says so")


def _difference(spec: TensorSpec, array: Array) -> str:
    return f"input '{spec.name}': wanted {spec.datatype} {list(spec.shape)}, got {_form(array)}"


def _form(array: Array) -> str:
    try:
        return f"{datatype_of(array)} {list(array.shape)}"
    except ValueError:
        return f"{array.dtype} {list(array.shape)}"


def _missing(signature: Signature, inputs: Mapping[str, Array]) -> str:
    missing = [f"'{spec.name}'" for spec in signature.inputs if not spec.optional and spec.name not in inputs]
    return f"missing {_counted(missing)}: wanted {len(signature.inputs)} inputs, got {len(inputs)}"


def _unknown(signature: Signature, inputs: Mapping[str, Array]) -> str:
    known = {spec.name for spec in signature.inputs}
    unknown = [f"'{name[:64]}'" for name in inputs if name not in known]
    wanted = [f"'{spec.name}'" for spec in signature.inputs]
    return f"unknown {_counted(unknown)}: wanted {_counted(wanted)}"


def _counted(names: list[str]) -> str:
    """At most eight names, so that a message stays readable for a model of a thousand columns."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"input{'s' if len(names) > 1 else ''} {', '.join(names[:8])}{more}"
