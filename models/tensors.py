"""The one table of tensor datatypes: Open Inference Protocol names, numpy, ONNX Runtime and MLflow column types."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
"""Any tensor; strings travel as object arrays of `str` (BYTES)."""

NUMPY_OF: Final[dict[str, np.dtype[np.generic]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""V2 datatype → numpy dtype. BF16 exists only raw and is refused where a model does not take it."""

V2_OF_ONNX: Final[dict[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""ONNX Runtime's type strings → V2 datatype."""

V2_OF_MLFLOW: Final[dict[str, str]] = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
"""MLflow column types that a served column may have → V2 datatype (`datetime`, `binary` and nested types are refused at staging)."""

FLOATING: Final = frozenset({"FP16", "FP32", "FP64"})
INTEGRAL: Final = frozenset({"UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"})


def datatype_of(array: Array) -> str:
    """The V2 datatype of a numpy array; object and `str` arrays are BYTES."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    for name, dtype in NUMPY_OF.items():
        if dtype == array.dtype:
            return name
    raise ValueError(f"no V2 datatype for numpy dtype {array.dtype}")


def save_rows(path: Path, rows: Mapping[str, Array]) -> None:
    """Rows by input name as npz, without pickled objects: a missing string is the empty string, as everywhere on the wire.

    numpy's own `savez` takes names as keyword arguments, and so cannot write a column that is called `file`.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in rows.items():
            plain = values
            if values.dtype == object:
                texts = ["" if value is None else str(value) for value in values.ravel().tolist()]
                plain = np.array(texts, dtype=np.str_).reshape(values.shape)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, plain, allow_pickle=False)


def in_sizes(run: Callable[[list[Array]], Sequence[Array]], inputs: Sequence[Array], size: int) -> list[Array]:
    """Runs a model that takes exactly `size` rows on any number of them: cut, the last part filled up with its last row, joined again."""
    rows = len(inputs[0])
    parts = []
    for start in range(0, rows, size):
        cut = [array[start : start + size] for array in inputs]
        short = size - len(cut[0])
        if short:
            cut = [np.concatenate([array, np.repeat(array[-1:], short, axis=0)]) for array in cut]
        parts.append(run(cut))
    return [np.concatenate(outputs)[:rows] for outputs in zip(*parts, strict=True)]


def size_bytes(array: Array) -> int:
    """What the values weigh: numbers by their bytes, texts by their length."""
    return sum(map(len, array.ravel().tolist())) if array.dtype == object else array.nbytes
