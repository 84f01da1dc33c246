"""Tensors as little-endian bytes: the binary extension of V2 over REST, and the raw contents of gRPC.

Row-major; BOOL is one byte an element; BYTES is a 4-byte length before each element (Triton, "Binary Tensor Data Extension").
Every count is checked against the bytes that are there before anything is allocated.
"""

import struct
from collections.abc import Sequence
from math import prod
from typing import Final

import numpy as np

from models.errors import InputInvalid
from models.tensors import NUMPY_OF, Array

_LENGTH: Final = struct.Struct("<I")
_EMPTY_MAX: Final = 65_536
"""To what the lengths beside a 0 may multiply: no bytes bound them, and a model would make as many rows of nothing as they say."""
_LOOK: Final = 256
_FEW: Final = 64
"""So many different strings among the first are few."""


def read_raw(name: str, datatype: str, shape: Sequence[int], data: bytes | bytearray | memoryview) -> Array:
    """The array that `data` holds; a view on it wherever its alignment allows. Raises InputInvalid."""
    dtype = NUMPY_OF.get(datatype)
    if dtype is None:
        raise InputInvalid(datatype_unknown(name, datatype))
    count = prod(shape)
    if datatype == "BYTES":
        return shaped(name, _texts(name, count, data), shape)
    if len(data) != count * dtype.itemsize:
        raise InputInvalid(
            f"input '{name}': wanted {count * dtype.itemsize} bytes for {datatype} {list(shape)}, got {len(data)}"
        )
    if datatype == "BOOL":  # a byte other than 0 and 1 would be no valid numpy bool
        flags: Array = np.frombuffer(data, dtype=np.uint8) != 0
        return shaped(name, flags, shape)
    array = shaped(name, np.frombuffer(data, dtype=dtype.newbyteorder("<")), shape)
    return array if array.flags.aligned else array.copy()


def write_raw(array: Array) -> bytes:
    """The bytes of an array."""
    if array.dtype.kind in "OUS":
        texts = array.ravel().tolist()
        # Labels: each is written once, and every further one costs 70 ns instead of 310.
        if len(texts) > _LOOK and len(set(texts[:_LOOK])) <= _FEW:
            written = {text: _lengthed(text) for text in set(texts)}
            return b"".join([written[text] for text in texts])
        return b"".join([_lengthed(text) for text in texts])
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def shaped(name: str, array: Array, shape: Sequence[int]) -> Array:
    """The array, which has as many elements as the shape, in that shape. Raises InputInvalid."""
    if not array.size and prod(length for length in shape if length) > _EMPTY_MAX:
        raise InputInvalid(f"input '{name[:64]}': wanted a smaller shape where nothing is in it, got {list(shape)}")
    return array.reshape(shape)


def datatype_unknown(name: str, datatype: str) -> str:
    """The message for a datatype that no model here takes; BF16 is one."""
    return f"input '{name}': datatype '{datatype[:16]}' is not taken here; known are {', '.join(NUMPY_OF)}"


def encoded_texts(array: Array) -> list[bytes]:
    """Elements as BYTES travel: UTF-8 text, and bytes as they are."""
    return [_encoded(value) for value in array.ravel().tolist()]


def _encoded(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _lengthed(value: object) -> bytes:
    encoded = _encoded(value)
    return _LENGTH.pack(len(encoded)) + encoded


def texts_of(name: str, values: Sequence[bytes]) -> Array:
    """BYTES elements as a flat object array of str. Raises InputInvalid for what is not UTF-8: models take text."""
    array = np.empty(len(values), dtype=object)
    try:
        array[:] = [value.decode() for value in values]
    except UnicodeDecodeError:
        raise InputInvalid(f"input '{name}': wanted BYTES that are UTF-8 text") from None
    return array


def _texts(name: str, count: int, data: bytes | bytearray | memoryview) -> Array:
    values: list[bytes] = []
    at, end = 0, len(data)
    if count * 4 > end:
        raise InputInvalid(
            f"input '{name}': wanted {count} BYTES elements, got {end} bytes, and each has a length of 4"
        )
    while at < end and len(values) < count:
        start = at + 4
        at = start + (_LENGTH.unpack_from(data, at)[0] if start <= end else end)
        if at > end:
            raise InputInvalid(f"input '{name}': the BYTES element at {len(values)} is longer than the data")
        values.append(bytes(data[start:at]))
    if at != end or len(values) != count:
        more = " and more" if at != end else ""
        raise InputInvalid(f"input '{name}': wanted {count} BYTES elements, got {len(values)}{more}")
    return texts_of(name, values)
