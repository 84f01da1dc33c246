"""Files of others into the lake, under `ingested/<table>`: each file once, by its digest, and every row of it."""

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import fs

from gateway.streams.files import SIZE_MAX, FileUnreadable, rows_of
from gateway.streams.schema import INGESTED, kind_of
from gateway.streams.table import KEPT_H, CommitFailed, LakeTable

_UNFIT: Final = str.maketrans(dict.fromkeys(" ,;{}()\n\r\t=", "_"))
"""Characters that Delta has not in names of columns."""
_DIGITS_MAX: Final = 38
_STORED: Final[Sequence[tuple[Callable[[pa.DataType], bool], pa.DataType]]] = [
    (pa.types.is_boolean, pa.bool_()),
    (pa.types.is_int8, pa.int8()),
    (pa.types.is_int16, pa.int16()),
    (pa.types.is_int32, pa.int32()),
    (pa.types.is_int64, pa.int64()),
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_float32, pa.float32()),
    (pa.types.is_float64, pa.float64()),
    (pa.types.is_date, pa.date32()),
    (lambda type_: pa.types.is_null(type_) or kind_of(type_) == "string", pa.string()),
    (lambda type_: "binary" in str(type_), pa.binary()),
]
"""Types as Delta stores them; what is not here has none."""
_TRIES: Final = 5
_COMPACT_FILES: Final = 64


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one file: `added`, `known` (the same bytes are in the table already) or `refused` with the reason."""

    file: str
    state: str
    rows: int = 0
    reason: str | None = None


def ingest(uri: str, source: str, now: dt.datetime) -> Iterator[Taken]:
    """Takes the file, or all files of the folder `source` (a path or an address such as s3://bucket/folder) into the table at `uri`.

    A file that was taken is in the table whole, and once, whatever happens; the same call again takes what is left.
    Raises CommitFailed, and OSError where `source` cannot be listed or read.
    """
    table = LakeTable(uri, INGESTED, ())
    system, files = _found(source)
    for info in files:
        name = info.path
        if info.size > SIZE_MAX:
            yield Taken(file=name, state="refused", reason=f"larger than {SIZE_MAX >> 30} GiB: split it")
            continue
        with system.open_input_file(name) as file:
            data = file.read()
        try:
            yield _take(table, name, data, now)
        except FileUnreadable as error:
            yield Taken(file=name, state="refused", reason=str(error))
    if table.files > _COMPACT_FILES:
        table.compact(KEPT_H)


def _found(source: str) -> tuple[fs.FileSystem, Iterable[fs.FileInfo]]:
    """The files, by name; hidden ones (`.x`, `_x`) are left out, as every reader of folders does."""
    if "://" in source:
        system, path = fs.FileSystem.from_uri(source)
    else:
        system, path = fs.LocalFileSystem(), str(Path(source).absolute())
    info = system.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"{source}: no such file or folder")
    if info.type == fs.FileType.File:
        return system, [info]
    inside = system.get_file_info(fs.FileSelector(path, recursive=True))
    return system, sorted((one for one in inside if _is_file(one, path)), key=lambda one: one.path)


def _is_file(info: fs.FileInfo, folder: str) -> bool:
    parts = Path(info.path.removeprefix(folder)).parts
    return info.type == fs.FileType.File and not any(part.startswith((".", "_")) for part in parts)


def _take(table: LakeTable, name: str, data: bytes, now: dt.datetime) -> Taken:
    digest = hashlib.sha256(data).hexdigest()
    transaction = f"file:{digest}"
    rows: pa.Table | None = None
    for attempt in range(_TRIES):
        if table.committed(transaction):
            return Taken(file=name, state="known")
        rows = rows if rows is not None else rows_of(name, data)
        try:
            table.append(_fitted(rows, table.fields, name, digest, now), {transaction: 1})
        except CommitFailed:
            if attempt == _TRIES - 1:
                raise
            table.reload()
        else:
            return Taken(file=name, state="added", rows=rows.num_rows)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _fitted(rows: pa.Table, fields: Sequence[pa.Field], name: str, digest: str, now: dt.datetime) -> pa.Table:
    """The rows under names and types that the table has or can take. A column of another type than before gets its type's name added."""
    known = {field.name.lower(): field for field in fields}
    columns = {
        "_file": pa.repeat(pa.scalar(name), rows.num_rows),
        "_file_sha256": pa.repeat(pa.scalar(digest), rows.num_rows),
        "_row": pa.array(np.arange(rows.num_rows)),
        "_ingested_at": pa.repeat(pa.scalar(now, INGESTED.field("_ingested_at").type), rows.num_rows),
    }
    taken = {name.lower() for name in columns}
    for place, (title, values) in enumerate(zip(rows.column_names, rows.columns, strict=True)):
        column, stored = title.translate(_UNFIT) or f"column_{place}", _storable(values.combine_chunks())
        found = known.get(column.lower())
        if found is not None and kind_of(found.type) != kind_of(stored.type):
            column, stored = _reconciled(column, found, stored)
        unique, copy = column, 2
        while unique.lower() in taken:
            unique, copy = f"{column}_{copy}", copy + 1
        taken.add(unique.lower())
        columns[known[unique.lower()].name if unique.lower() in known else unique] = stored
    return pa.table(columns)


def _reconciled(column: str, found: pa.Field, values: pa.Array) -> tuple[str, pa.Array]:
    """As the type that the table has, where every value can be that and back; else as a column of its own, nested values as JSON."""
    try:
        fitted = values.cast(found.type)
        if _is_same(found.type, values, fitted):
            return column, fitted
    except pa.ArrowException:
        pass
    if pa.types.is_nested(values.type) and "struct" in str(values.type):
        return f"{column}__json", _as_json(values)
    kind = re.sub(r"[^0-9A-Za-z]+", "_", kind_of(values.type)).strip("_")
    return f"{column}__{kind}", values


def _is_same(found: pa.DataType, values: pa.Array, fitted: pa.Array) -> bool:
    if pa.types.is_temporal(found):
        # A text says the same moment in other words; a clock without a zone says none, and a number no moment at all.
        is_clock = pa.types.is_temporal(values.type) and getattr(found, "tz", None) == getattr(values.type, "tz", None)
        return is_clock or pa.types.is_string(values.type)
    return bool(fitted.cast(values.type).equals(values))


def _storable(values: pa.Array) -> pa.Array:
    """Values of a type that Delta has; what it has not is stored as text, nested values as JSON."""
    if isinstance(values, pa.ExtensionArray):
        return _storable(values.storage)
    type_ = _type(values.type)
    if type_ is None:
        return _as_json(values) if pa.types.is_nested(values.type) else _as_text(values)
    return values if type_ == values.type else values.cast(type_, safe=False)  # which cuts moments to microseconds


def _as_text(values: pa.Array) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())


def _as_json(values: pa.Array) -> pa.Array:
    encoder = msgspec.json.Encoder(enc_hook=str)
    texts = [None if value is None else encoder.encode(value).decode() for value in values.to_pylist()]
    return pa.array(texts, pa.string())


def _type(type_: pa.DataType) -> pa.DataType | None:
    """The type of Delta that holds all values of `type_`; None: there is none."""
    if pa.types.is_nested(type_):
        return _nested(type_)
    if pa.types.is_dictionary(type_):
        return _type(type_.value_type)
    if pa.types.is_unsigned_integer(type_):
        return {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}.get(type_.bit_width, pa.decimal128(20, 0))
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", "UTC" if type_.tz else None)
    if pa.types.is_decimal(type_):
        return (
            pa.decimal128(type_.precision, type_.scale) if type_.precision <= _DIGITS_MAX and type_.scale >= 0 else None
        )
    return next((stored for fits, stored in _STORED if fits(type_)), None)


def _nested(type_: pa.DataType) -> pa.DataType | None:
    if pa.types.is_struct(type_):
        fields = [(field.name, _type(field.type)) for field in type_]
        return pa.struct(fields) if fields and all(found is not None for _, found in fields) else None
    if pa.types.is_map(type_):
        key, item = _type(type_.key_type), _type(type_.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        element = _type(type_.value_type)
        return None if element is None else pa.list_(pa.field("element", element))
    return None
