"""Spool blocks to Arrow columns, a whole run of blocks at a time: what the four tables' conversions share."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from gateway.streams.schema import ARROW_OF, Naming
from models.tensors import NUMPY_OF, Array
from routing.records import Column

DAY_US: Final = 86_400_000_000
_SCALAR: Final = ((), (1,))
_HYPHENS: Final = np.array([8, 13, 18, 23])
_DIGITS: Final = np.delete(np.arange(36), _HYPHENS)
_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)

Layout = tuple[tuple[str, str, tuple[int, ...], bool], ...]
"""Name, datatype, tail and whether it was recorded, of each column of a block."""


class BlockInvalid(Exception):
    """A block that decodes but does not add up: it goes to the dead letters, alone."""


class Tensor(NamedTuple):
    """All rows of one column over a run of blocks: Arrow values, and as numpy where the answer is read from it."""

    name: str
    datatype: str
    values: pa.Array
    array: Array


def layout(columns: Sequence[Column]) -> Layout:
    """What two blocks must share so that their columns can be joined end to end."""
    return tuple([(column.name, column.datatype, column.tail, column.data is not None) for column in columns])


def grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """Items by key, keys in the order they first came."""
    groups: dict[_Key, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def transposed(rows: Sequence[object], fields: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """The fields of all rows, one tuple a field."""
    return dict(zip(fields, zip(*map(attrgetter(*fields), rows), strict=True), strict=True))


def tensors(columns: Sequence[Sequence[Column]], rows: Sequence[int]) -> list[Tensor]:
    """Joins the columns of blocks of one layout; block i has `rows[i]` rows. Columns that were not recorded are left out.

    Raises BlockInvalid where a block's data is not as long as its rows say.
    """
    joined = []
    for parts in zip(*columns, strict=True):
        column = parts[0]
        if column.data is not None:
            array = _joined(parts, rows)
            joined.append(Tensor(column.name, column.datatype, _values(array, column), array))
    return joined


def _joined(parts: Sequence[Column], rows: Sequence[int]) -> Array:
    """The data of one column over all blocks, of shape (rows, width)."""
    data: Any = [part.data for part in parts]
    if isinstance(parts[0].data, list):
        size, flat = 1, np.array([value for part in data for value in part], dtype=object)
    else:
        dtype = NUMPY_OF[parts[0].datatype].newbyteorder("<")
        size, flat = dtype.itemsize, np.frombuffer(b"".join(data), dtype)
    total = sum(rows)
    width = len(flat) // total if total else 1
    if any(len(part) != size * width * count for part, count in zip(data, rows, strict=True)):
        raise BlockInvalid(f"column {parts[0].name!r}: the data does not divide into the rows")
    return flat.reshape(total, width)


def _values(array: Array, column: Column) -> pa.Array:
    """Scalars for a tail of () or (1,), lists for anything wider (C order)."""
    flat = array.reshape(-1)
    type_ = ARROW_OF[column.datatype]
    if flat.dtype == np.uint64:
        values = pa.array(flat).cast(type_)
    elif flat.dtype == object:
        values = pa.array(flat, pa.string())
    else:
        values = pa.array(flat.astype(type_.to_pandas_dtype(), copy=False))
    if column.tail in _SCALAR and array.shape[1] == 1:
        return values
    offsets = np.arange(len(array) + 1, dtype=np.int32) * array.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=pa.list_(pa.field("element", type_)))


def named(kind: str, found: Iterable[Tensor], naming: Naming) -> dict[str, pa.Array]:
    """The tensors under their names in the table."""
    return {naming.name(kind, tensor.name, tensor.datatype, tensor.values.type): tensor.values for tensor in found}


def uuids(ids: Sequence[bytes]) -> pa.Array:
    """16-byte ids as UUID text (RFC 9562), without a Python string each."""
    data = b"".join(ids)
    if len(data) != 16 * len(ids) or any(len(one) != 16 for one in ids):
        raise BlockInvalid("a prediction id has 16 bytes")
    text = np.full((len(ids), 36), ord("-"), np.uint8)
    text[:, _DIGITS] = np.frombuffer(data.hex().encode(), np.uint8).reshape(-1, 32)
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(text))


def id_floor(unix_s: float) -> str:
    """The least prediction id of a moment (UUIDv7, RFC 9562, section 5.7): as texts, ids order as their times."""
    digits = f"{int(unix_s * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def id_unix_s(prediction_id: str) -> float:
    """When an id was minted, to the millisecond: the other way round. Of a UUID that says no time, any moment up to the year 10889."""
    return int(prediction_id[:8] + prediction_id[9:13], 16) / 1000


def times(unix_us: Sequence[int]) -> tuple[pa.Array, pa.Array]:
    """Wall-clock microseconds as timestamps and as UTC dates."""
    instants = np.array(unix_us, np.int64)
    return (
        pa.array(instants).cast(pa.timestamp("us", "UTC")),
        pa.array((instants // DAY_US).astype(np.int32)).cast(pa.date32()),
    )


def choices(names: Sequence[str], places: Sequence[int]) -> pa.Array:
    """The name at each place; null outside of `names` (−1: none)."""
    index = np.array(places, np.int64)
    is_none = (index < 0) | (index >= len(names))
    return pa.array(names, pa.string()).take(pa.array(np.where(is_none, 0, index), mask=is_none))


def hexes(values: Iterable[bytes | None]) -> pa.Array:
    """Bytes as hexadecimal text."""
    return pa.array([None if value is None else value.hex() for value in values], pa.string())


def expanded(requests: dict[str, pa.Array], rows: Sequence[int]) -> dict[str, pa.Array]:
    """Columns of requests as columns of their input rows, with `row` (from 0) and `rows` beside them."""
    counts = np.array(rows, np.int32)
    if (counts == 1).all():
        return {**requests, "row": pa.array(np.zeros(len(counts), np.int32)), "rows": pa.array(counts)}
    at = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = pa.array(at)
    return {
        **{name: values.take(taken) for name, values in requests.items()},
        "row": pa.array(row.astype(np.int32)),
        "rows": pa.array(counts).take(taken),
    }


def table(columns: dict[str, pa.Array], base: pa.Schema) -> pa.Table:
    """The columns with the base schema's first, in its order and types; those of it that are missing are null."""
    rows = len(next(iter(columns.values())))
    ordered = {field.name: columns.pop(field.name, None) for field in base}
    filled = {
        name: pa.nulls(rows, base.field(name).type) if values is None else values.cast(base.field(name).type)
        for name, values in ordered.items()
    }
    return pa.table({**filled, **columns})
