"""Tensors as JSON values: nested or flat lists, of one element type each, read by a typed decoder that stops at the first wrong one.

A body of nothing but brackets costs a millisecond this way and a second the other (RELIABILITY.md B4). `null` in a floating tensor
is NaN; JSON knows no bare NaN or Infinity.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from gateway.rest.raw_tensors import datatype_unknown
from models.errors import InputInvalid
from models.tensors import FLOATING, NUMPY_OF, Array

RANK_MAX: Final = 32
"""Dimensions of a tensor, and so the depth of its lists."""
NONFINITE_REMEDY: Final = "JSON has no NaN or Infinity: send null for a missing value, or the tensor as binary data"


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a msgspec decoder raises for bytes that are no JSON, or JSON of another form (`ValidationError` is among the first)."""


class Base64(msgspec.Struct):
    """TensorFlow Serving's form of bytes in JSON."""

    b64: str


def read_json(name: str, datatype: str, raw: bytes | msgspec.Raw, *, base64_allowed: bool = False) -> Array:
    """The array of `datatype` that `raw` holds, in the shape its nesting has. Raises InputInvalid, without a value of the caller's."""
    dtype = NUMPY_OF.get(datatype)
    if dtype is None:
        raise InputInvalid(datatype_unknown(name, datatype))
    depth = depth_of(raw)
    if depth > RANK_MAX:
        raise InputInvalid(f"input '{name}': lists are nested deeper than {RANK_MAX}")
    kind: object = float | None
    if datatype == "BYTES":
        kind = str | Base64 if base64_allowed else str
    elif datatype == "BOOL":
        kind = bool
    elif datatype not in FLOATING:
        kind = int
    try:
        values = nested_decoder(kind, depth)(raw)
    except msgspec.ValidationError as error:
        raise InputInvalid(f"input '{name}': wanted {datatype} data: {error}") from None
    except UNREADABLE as error:
        raise InputInvalid(f"input '{name}': {malformed(raw, error)}") from None
    if datatype == "BYTES":
        array = _texts(name, values, depth, base64_allowed=base64_allowed)
    else:
        array = _numbers(name, datatype, values, depth)
    return array


def malformed(body: bytes | bytearray | msgspec.Raw | memoryview, error: Exception) -> str:
    """What to say of bytes that are not JSON; names the remedy when they hold a bare NaN or Infinity."""
    text = bytes(body)
    if b"NaN" in text or b"Infinity" in text:
        return NONFINITE_REMEDY
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "the JSON is not UTF-8"
    return str(error)


def _numbers(name: str, datatype: str, values: object, depth: int) -> Array:
    try:
        with np.errstate(over="raise"):
            array = np.array(values, dtype=NUMPY_OF[datatype])
    except (OverflowError, FloatingPointError):
        raise InputInvalid(f"input '{name}': a value is outside the range of {datatype}") from None
    except ValueError:
        raise InputInvalid(_ragged(name)) from None
    if array.ndim != depth:
        raise InputInvalid(_ragged(name))
    return array


def _texts(name: str, values: object, depth: int, *, base64_allowed: bool) -> Array:
    try:
        array = np.array(values, dtype=object)
    except ValueError:
        raise InputInvalid(_ragged(name)) from None
    if array.ndim != depth:
        raise InputInvalid(_ragged(name))
    if base64_allowed:
        flat = array.ravel()
        flat[:] = [_unpacked(name, value) if isinstance(value, Base64) else value for value in flat.tolist()]
        array = flat.reshape(array.shape)
    return array


def _unpacked(name: str, value: Base64) -> str:
    try:
        return base64.b64decode(value.b64, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InputInvalid(f"input '{name}': wanted base64 of UTF-8 text in 'b64'") from None


def _ragged(name: str) -> str:
    return f"input '{name}': lists of unequal length or depth are no tensor"


def joined(raws: Sequence[msgspec.Raw]) -> bytes:
    """The values of several rows as one JSON list, so that they are read in one go."""
    return b"[" + b",".join(bytes(raw) for raw in raws) + b"]"


def depth_of(raw: bytes | msgspec.Raw) -> int:
    """How many lists open before the first value; stops counting above `RANK_MAX`."""
    depth = 0
    for byte in memoryview(raw):
        if byte == 0x5B:
            depth += 1
            if depth > RANK_MAX:
                break
        elif byte not in b" \t\r\n":
            break
    return depth


@lru_cache(maxsize=256)
def nested_decoder(kind: object, depth: int) -> Callable[[bytes | msgspec.Raw], object]:
    """A decoder of `kind` inside `depth` lists."""
    wanted: object = kind
    for _ in range(depth):
        wanted = list[wanted]  # type: ignore[valid-type]  # built at run time, once a depth
    decode: Callable[[bytes | msgspec.Raw], object] = msgspec.json.Decoder(wanted).decode
    return decode
