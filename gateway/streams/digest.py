"""The digest of a table's values: the same for the same values, whatever file, compression, chunks or library version hold them."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.streams.schema import kind_of


def digest_of(rows: pa.Table) -> str:
    """SHA-256 as hex, over names and types, then column by column: which values are null, then the values, nulls as nought."""
    digest = hashlib.sha256()
    for field in rows.schema:
        digest.update(f"{field.name}\0{kind_of(field.type)}\0".encode())
    for column in rows.columns:
        _absorb(digest, column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    return digest.hexdigest()


def _absorb(digest: Any, values: pa.Array) -> None:
    digest.update(len(values).to_bytes(8, "little"))
    digest.update(np.packbits(pc.is_valid(values).to_numpy(zero_copy_only=False)).tobytes())
    type_ = values.type
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        digest.update(_integers(pc.list_value_length(values)))
        _absorb(digest, pc.list_flatten(values))
    elif pa.types.is_floating(type_) or pa.types.is_integer(type_):
        digest.update(pc.fill_null(values, 0).to_numpy(zero_copy_only=False).tobytes())
    elif pa.types.is_boolean(type_):
        digest.update(
            np.packbits(pc.fill_null(values, False).to_numpy(zero_copy_only=False)).tobytes()
        )  # its only form
    else:
        texts = values.cast(pa.int64()) if pa.types.is_timestamp(type_) else values
        texts = pc.fill_null(texts.cast(pa.large_string()), "")
        digest.update(_integers(pc.binary_length(texts)))
        digest.update("".join(texts.to_pylist()).encode())


def _integers(values: pa.Array) -> bytes:
    data: bytes = pc.fill_null(values.cast(pa.int64()), 0).to_numpy(zero_copy_only=False).tobytes()
    return data
