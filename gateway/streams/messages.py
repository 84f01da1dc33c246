"""Rows of the lake as messages: a JSON document each, with an id by which its repetition is known. For the sinks that send messages."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_ROWS: Final = 256
"""Rows that are Python objects at once, which take several times what they took as columns."""


class Message(NamedTuple):
    """`id` is `<table>:<sequence>`. `key`: the prediction that it is about, else the request, else the endpoint. Nulls are left out of `value`."""

    id: str
    sequence: int
    key: str
    endpoint: str
    value: bytes


def messages(table: str, rows: pa.Table) -> Iterator[list[Message]]:
    """The rows of a table, some at a time, in their order."""
    for portion in rows.to_batches(_ROWS):
        yield [_message(table, row) for row in portion.to_pylist()]


def _message(table: str, row: dict[str, Any]) -> Message:
    sequence, endpoint = row["sequence"], row.get("endpoint") or ""
    key = row.get("prediction_id") or row.get("request_id") or endpoint
    value = _ENCODER.encode({name: one for name, one in row.items() if one is not None})
    return Message(f"{table}:{sequence}", sequence, key, endpoint, value)
