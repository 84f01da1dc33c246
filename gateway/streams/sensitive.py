"""Sensitive blocks to rows of the table `sensitive`: one a row of input, with the attributes that no other table has."""

from collections.abc import Sequence

import pyarrow as pa

from gateway.streams.arrow import BlockInvalid, expanded, grouped, layout, named, table, tensors, times, uuids
from gateway.streams.schema import ARROW_OF, SENSITIVE, Naming
from routing.records import SensitiveBlock


def tables(blocks: Sequence[SensitiveBlock], naming: Naming) -> list[pa.Table]:
    """The rows of `blocks`, one table for each set of columns. Raises BlockInvalid when any block does not add up."""
    groups = grouped([one for one in blocks if one.prediction_ids], _kind)
    return [_table(group, naming) for group in groups.values()]


def _kind(block: SensitiveBlock) -> tuple[object, ...]:
    return block.endpoint, layout(block.attributes), tuple([(one.name, one.datatype) for one in block.looked_up])


def _table(blocks: list[SensitiveBlock], naming: Naming) -> pa.Table:
    if any(not len(one.prediction_ids) == len(one.rows) == len(one.received_unix_us) for one in blocks):
        raise BlockInvalid("a prediction has an id, a number of rows and a time")
    rows = [count for block in blocks for count in block.rows]
    received_at, date = times([at for block in blocks for at in block.received_unix_us])
    requests = {
        "prediction_id": uuids([one for block in blocks for one in block.prediction_ids]),
        "received_at": received_at,
        "date": date,
        "endpoint": pa.repeat(pa.scalar(blocks[0].endpoint), len(rows)),
    }
    attributes = tensors([block.attributes for block in blocks], [sum(block.rows) for block in blocks])
    columns = expanded(requests, rows) | named("attribute", attributes, naming)
    for place, found in enumerate(blocks[0].looked_up):
        type_ = ARROW_OF[found.datatype]
        values = pa.array([value for block in blocks for value in block.looked_up[place].values], type_)
        if len(values) != sum(rows):
            raise BlockInvalid(f"attribute {found.name!r}: wanted {sum(rows)} values, got {len(values)}")
        columns[naming.name("attribute", found.name, found.datatype, type_)] = values
    return table(columns, SENSITIVE)
