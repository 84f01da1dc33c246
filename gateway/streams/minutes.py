"""Metric blocks, the drops that shadow blocks tell of, and looks at quality to rows of the table `metrics`."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from gateway.streams.arrow import table, times
from gateway.streams.schema import MEASURES, METRICS
from routing.records import MetricBlock, QualityBlock, ShadowBlock

_MINUTE_US = 60_000_000


class Told(NamedTuple):
    """A block of a writer, and when it was read (microseconds), for blocks that carry no time of their own."""

    writer: str
    block: MetricBlock | ShadowBlock | QualityBlock
    read_unix_us: int


def rows(told: Sequence[Told]) -> pa.Table | None:
    """The rows of `told`; None when there are none."""
    found = [row for one in told for row in _rows(one)]
    if not found:
        return None
    minute, date = times([at for at, _ in found])
    names = [name for name in METRICS.names if name not in ("minute", "date")]
    columns = {name: pa.array([row.get(name) for _, row in found], METRICS.field(name).type) for name in names}
    return table({**columns, "minute": minute, "date": date}, METRICS)


def _rows(one: Told) -> list[tuple[int, dict[str, object]]]:
    """The instant of each row's minute, and its other columns."""
    block = one.block
    if isinstance(block, QualityBlock):
        return [
            (
                row.minute_unix_s * 1_000_000,
                {
                    "endpoint": row.endpoint,
                    "role": row.role,
                    "variant": row.variant,
                    "model": row.model,
                    "version": row.version,
                    "labelled": row.labelled,
                    "writer": one.writer,
                    **{name: value for name, value in row.measures.items() if name in MEASURES},
                },
            )
            for row in block.rows
        ]
    if isinstance(block, ShadowBlock):
        at = block.requests[0].received_unix_us if block.requests else one.read_unix_us
        mirror = {"endpoint": block.endpoint, "role": "mirror", "variant": block.mirror, "model": block.model}
        return [
            (
                at - at % _MINUTE_US,
                {**mirror, "version": block.version, "reason": reason, "dropped": dropped, "writer": one.writer},
            )
            for reason, dropped in block.dropped.items()
        ]
    return [
        (
            minute.minute_unix_s * 1_000_000,
            {
                "endpoint": minute.endpoint,
                "role": "live",
                "variant": minute.variant,
                "model": minute.model,
                "version": minute.version,
                "requests": minute.requests,
                "errors": minute.errors,
                "rows": minute.rows,
                "latency_sum_s": minute.latency_sum_s,
                "latency_buckets": minute.latency_buckets,
                "writer": one.writer,
            },
        )
        for minute in block.minutes
    ]
