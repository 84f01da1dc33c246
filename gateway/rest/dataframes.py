"""Data frames without pandas: JSON rows and CSV lines into the columns of a signature, cast as MLflow's scoring server casts them.

What is taken over from mlflow 3.17 (`cast_df_types_according_to_schema`, `_enforce_named_col_schema`), where a caller can see it:
whole columns are cast to the declared type (1 → 1.0, "1.5" → 1.5, 1.5 → 1 for integers); null is NaN in floating columns, false in
boolean ones, an error in integer ones; extra columns are ignored, missing ones refused unless optional. Refused here, where MLflow
would pass on something wrong: integers outside the range of their column (it wraps them), and null or a number in a column of text.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from gateway.errors import RequestMalformed
from models.errors import InputInvalid
from models.signature import Signature, TensorSpec
from models.tensors import FLOATING, NUMPY_OF, Array

Cell = bool | int | float | str | None
_MLFLOW_TYPE: Final = {
    "BOOL": "bool",
    "INT32": "int32",
    "INT64": "int64",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
_MISSING: Final = frozenset(
    (
        *("", "NA", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A", "<NA>", "NULL", "null", "None"),
        *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    )
)
"""What pandas' read_csv takes for a missing value by default."""
_TRUTHS: Final = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}


def from_split(columns: Sequence[str | int], data: Sequence[Sequence[Cell]], signature: Signature) -> dict[str, Array]:
    """`dataframe_split`: rows of cells under column names. Raises RequestMalformed, InputInvalid."""
    width = len(columns)
    for place, row in enumerate(data):
        if len(row) != width:
            raise RequestMalformed(
                "Invalid input. Provided dataframe_split field is not a valid dataframe representation in 'split' format. "
                f"Row {place} has {len(row)} values for {width} columns"
            )
    places = {str(name): place for place, name in enumerate(columns)}
    if len(places) != width:
        raise RequestMalformed("Invalid input. Provided dataframe_split field names a column twice")
    return cast_columns(
        signature,
        {spec.name: [row[places[spec.name]] for row in data] for spec in signature.inputs if spec.name in places},
    )


def from_records(
    records: Sequence[Mapping[str, Cell]], signature: Signature, *, as_text: bool = False
) -> dict[str, Array]:
    """`dataframe_records`: one object a row; a name that only some rows have is null in the others."""
    columns = {}
    for spec in signature.inputs:
        name = spec.name
        if any(name in record for record in records):
            columns[name] = [record.get(name) for record in records]
    return cast_columns(signature, columns, as_text=as_text)


def from_csv(text: str, signature: Signature) -> dict[str, Array]:
    """CSV with a header line, as `pandas.DataFrame.to_csv` writes it."""
    try:
        header, *lines = [line for line in csv.reader(text.splitlines(keepends=True), strict=True) if line]
    except (csv.Error, ValueError):
        raise RequestMalformed(_CSV) from None
    if any(len(line) != len(header) for line in lines):
        raise RequestMalformed(_CSV)
    places = {name: place for place, name in enumerate(header)}
    columns: dict[str, list[Cell]] = {}
    for spec in signature.inputs:
        if spec.name in places:
            place = places[spec.name]
            read = _CSV_CELL.get(spec.datatype, _number_cell if spec.datatype in FLOATING else _integer_cell)
            try:
                columns[spec.name] = [None if line[place] in _MISSING else read(line[place]) for line in lines]
            except ValueError:
                raise _inconvertible(spec) from None
    return cast_columns(signature, columns)


def cast_columns(
    signature: Signature, columns: Mapping[str, Sequence[Cell]], *, as_text: bool = False
) -> dict[str, Array]:
    """Columns of the signature, each cast to its datatype, shape (rows,). Those that are optional may be absent.

    `as_text`: numbers in text columns are written as text, which numpy does for `instances` and `inputs`; a data frame keeps them,
    and no model of text columns knows them. Raises InputInvalid for missing columns, RequestMalformed for values.
    """
    missing = [spec.name for spec in signature.inputs if not spec.optional and spec.name not in columns]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise InputInvalid(f"Failed to enforce schema of data. Error: Model is missing inputs {missing[:8]}{more}.")
    return {
        spec.name: _cast(spec, columns[spec.name], as_text=as_text) for spec in signature.inputs if spec.name in columns
    }


def _cast(spec: TensorSpec, values: Sequence[Cell], *, as_text: bool) -> Array:
    if spec.datatype == "BYTES":
        return _text_column(spec, values, as_text=as_text)
    try:
        if spec.datatype == "FP64":
            return np.array(values, dtype=np.float64)
        if spec.datatype in FLOATING:
            with np.errstate(over="ignore"):  # a double outside FP32 is infinite there, as in MLflow's cast
                return np.array(values, dtype=np.float64).astype(NUMPY_OF[spec.datatype])
        if spec.datatype == "BOOL":
            return np.array([bool(value) for value in values], dtype=np.bool_)
        return np.array([_integer(value) for value in values], dtype=NUMPY_OF[spec.datatype])
    except (ValueError, TypeError, OverflowError):
        raise _inconvertible(spec) from None


def _text_column(spec: TensorSpec, values: Sequence[Cell], *, as_text: bool) -> Array:
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        if value is None and spec.optional:
            array[place] = ""
        elif isinstance(value, str):
            array[place] = value
        elif as_text and value is not None:
            array[place] = str(value)
        else:
            raise _inconvertible(spec)
    return array


def _integer(value: Cell) -> int:
    if value is None:
        raise TypeError
    return int(value)


def _inconvertible(spec: TensorSpec) -> RequestMalformed:
    return RequestMalformed(
        "Invalid input. Data is not compatible with model signature. "
        f"Failed to convert column {spec.name} to type '{_MLFLOW_TYPE.get(spec.datatype, spec.datatype)}'."
    )


def _number_cell(text: str) -> float:
    return float(text)


def _integer_cell(text: str) -> int:
    return int(text)


def _truth_cell(text: str) -> bool:
    try:
        return _TRUTHS[text]
    except KeyError:
        raise ValueError from None


_CSV_CELL: Final[dict[str, Callable[[str], Cell]]] = {"BOOL": _truth_cell, "BYTES": str}
_CSV: Final = (
    "Failed to parse input as a Pandas DataFrame. Ensure that the input is a valid CSV-formatted Pandas DataFrame produced using the"
    " `pandas.DataFrame.to_csv()` method."
)
