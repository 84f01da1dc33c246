"""What of a request's or a label's values a record may hold: join keys as the route masks them, and sensitive attributes, which go their own way.

Sensitive attributes are a block of their own in the spool and a table of their own in the lake, so that who reads predictions never has them.
"""

import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from gateway.features.served import ServedFeatures
from gateway.live import ServedEndpoint
from gateway.ticket import Ticket
from models.tensors import Array
from routing.records import Column, KeyColumn, LabelBlock, LabelRow, SensitiveLabelBlock
from routing.traffic import Record, Route

_ENCODER: Final = msgspec.msgpack.Encoder()
_TAG_SENSITIVE: Final = "a"
_SENT: Final = 0
"""Index of `sent` in routing.records.LOOKUPS."""

Attribute = str | float | int | bool | None
"""What a label may carry beside its value."""

LookupColumns = tuple[list[KeyColumn], list[Column], list[Column]]
"""`keys`, `lookups` and `ages_s` of a PredictionBlock."""


def keyed_hashes(unit_key: bytes, values: Iterable[object]) -> list[str]:
    """`mask: hmac`: equal values stay equal, and nobody without the key can try which they are."""
    return [hmac.digest(unit_key, str(value).encode(), "sha256")[:16].hex() for value in values]


def routes_of_labels(rows: Sequence[LabelRow], routes: Mapping[str, Route]) -> list[list[Route]]:
    """Of each label the routes whose rules it is under. One by prediction id does not say whose it is, and one of an endpoint that is not
    there says it in vain: it is under all.
    """
    everyone, of = [*routes.values()], {endpoint: [route] for endpoint, route in routes.items()}
    return [everyone if row.endpoint is None else of.get(row.endpoint, everyone) for row in rows]


def label_blocks(rows: Sequence[LabelRow], concerned: Sequence[Collection[Route]], unit_key: bytes) -> list[bytes]:
    """One block with the labels; one more with their sensitive attributes, where there are any. `concerned`: of each, the routes it is under."""
    plain, apart = list[LabelRow](), list[LabelRow]()
    for row, routes in zip(rows, concerned, strict=True):
        if not row.attributes:
            plain.append(row)
            continue
        kept, sensitive = parted(row.attributes, routes, unit_key)
        plain.append(msgspec.structs.replace(row, attributes=kept))
        if sensitive:
            apart.append(msgspec.structs.replace(row, label=None, attributes=sensitive))
    blocks = [LabelBlock(plain), *([SensitiveLabelBlock(apart)] if apart else [])]
    return [_ENCODER.encode(block) for block in blocks]


def parted(
    attributes: Mapping[str, Attribute], routes: Collection[Route], unit_key: bytes
) -> tuple[dict[str, Attribute] | None, dict[str, Attribute]]:
    """A label's attributes, masked as the strictest of `routes` says for inputs of their names, and those of them that are sensitive."""
    rules = [dict(route.record.mask) for route in routes]
    apart = {name for route in routes for name in (*route.record.sensitive, *route.label.sensitive)}
    kept, sensitive = dict[str, Attribute](), dict[str, Attribute]()
    for name, value in attributes.items():
        masks = {mask.get(name) for mask in rules}
        if "drop" in masks:
            continue
        if name in apart:
            sensitive[name] = value
        elif "hmac" in masks and value is not None:
            kept[name] = keyed_hashes(unit_key, [value])[0]
        else:
            kept[name] = value
    return kept or None, sensitive


def looked_up(
    features: ServedFeatures, tickets: Sequence[Ticket], record: Record, unit_key: bytes, *, is_kept: bool
) -> LookupColumns:
    """What came of the lookups of these tickets, row by row; join keys where inputs are recorded (`is_kept`)."""
    masks = dict(record.mask)
    keys = [
        KeyColumn(spec.name, *_key_values(spec.name, spec.datatype, tickets, masks.get(spec.name), unit_key))
        for spec in features.key_specs
        if is_kept and masks.get(spec.name) != "drop"
    ]
    lookups, ages = [], []
    for name in features.input_names:
        outcomes = bytearray()
        seconds: list[Array] = []
        for ticket in tickets:
            found = ticket.lookup
            if found is None or name not in found.outcomes:
                outcomes += bytes([_SENT]) * ticket.rows
                seconds.append(np.full(ticket.rows, np.nan))
            else:
                outcomes += found.outcomes[name]
                seconds.append(found.ages_s[name])
        lookups.append(Column(name, "UINT8", (), bytes(outcomes)))
        ages.append(Column(name, "FP64", (), np.concatenate(seconds).tobytes()))
    return keys, lookups, ages


def _key_values(
    name: str, datatype: str, tickets: Sequence[Ticket], mask: str | None, unit_key: bytes
) -> tuple[str, list[int | str | float | bool | None]]:
    values: list[int | str | float | bool | None] = []
    for ticket in tickets:
        given = None if ticket.lookup is None else ticket.lookup.keys.get(name)
        if given is None:
            values += [None] * ticket.rows
        elif mask == "hmac":
            values += keyed_hashes(unit_key, given.ravel().tolist())
        else:
            values += given.ravel().tolist()
    return "BYTES" if mask == "hmac" else datatype, values


def sensitive_block(
    endpoint: ServedEndpoint, tickets: Sequence[Ticket], inputs: Sequence[Array], offset_us: int
) -> bytes | None:
    """`routing.records.SensitiveBlock` of these tickets, None where nothing is known; `inputs` are all declared ones, the rows of `tickets`
    end to end.
    """
    names = endpoint.route.record.sensitive
    columns = [
        Column(spec.name, spec.datatype, array.shape[1:], _data(array))
        for spec, array in zip(endpoint.signature.inputs, inputs, strict=True)
        if spec.name in names
    ]
    found = {} if endpoint.features is None else endpoint.features.attribute_types
    looked_up = [KeyColumn(name, datatype, _attribute_values(name, tickets)) for name, datatype in found.items()]
    if not columns and all(value is None for one in looked_up for value in one.values):
        return None
    return _ENCODER.encode(
        (
            _TAG_SENSITIVE,
            endpoint.name,
            [ticket.prediction_bytes for ticket in tickets],
            [ticket.rows for ticket in tickets],
            [offset_us + ticket.received_ns // 1000 for ticket in tickets],
            columns,
            looked_up,
        )
    )


def _attribute_values(name: str, tickets: Sequence[Ticket]) -> list[int | str | float | bool | None]:
    values: list[int | str | float | bool | None] = []
    for ticket in tickets:
        found = None if ticket.lookup is None else ticket.lookup.attributes.get(name)
        values += [None] * ticket.rows if found is None else found
    return values


def _data(array: Array) -> bytes | list[str]:
    return array.ravel().tolist() if array.dtype == object else array.tobytes()
