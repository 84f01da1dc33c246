"""Metric blocks, what shadow blocks tell of mirrors, and looks at quality to rows of the table `metric_parts`."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa

from gateway.streams.arrow import grouped, table, times
from gateway.streams.schema import MEASURES, METRIC_PARTS
from gateway.telemetry.catalogue import DURATION_BOUNDS_S
from routing.records import MetricBlock, MinuteRow, QualityBlock, QualityRow, ShadowBlock

_MINUTE_US: Final = 60_000_000
_BOUNDS_US: Final = [round(bound * 1e6) for bound in DURATION_BOUNDS_S]

Row = dict[str, Any]
"""The columns of a row; `at`: the instant of its minute."""


class Told(NamedTuple):
    """A block of a writer, and when it was read (microseconds), for blocks that carry no time of their own."""

    writer: str
    block: MetricBlock | ShadowBlock | QualityBlock
    read_unix_us: int


def rows(told: Sequence[Told]) -> pa.Table | None:
    """The rows of `told`; None when there are none."""
    found = [{**row, "writer": one.writer} for one in told for row in _of_block(one)]
    found += _of_mirrors([one for one in told if isinstance(one.block, ShadowBlock)])
    if not found:
        return None
    minute, date = times([row["at"] for row in found])
    names = [name for name in METRIC_PARTS.names if name not in ("minute", "date")]
    columns = {name: pa.array([row.get(name) for row in found], METRIC_PARTS.field(name).type) for name in names}
    return table({**columns, "minute": minute, "date": date}, METRIC_PARTS)


def _of_block(one: Told) -> Iterable[Row]:
    if isinstance(one.block, MetricBlock):
        return map(_of_minute, one.block.minutes)
    return map(_of_look, one.block.rows) if isinstance(one.block, QualityBlock) else ()


def _of_minute(minute: MinuteRow) -> Row:
    counted = (
        "endpoint",
        "variant",
        "model",
        "version",
        "requests",
        "errors",
        "rows",
        "latency_sum_s",
        "latency_buckets",
    )
    return {
        "at": minute.minute_unix_s * 1_000_000,
        "role": "live",
        **{name: getattr(minute, name) for name in counted},
    }


def _of_look(look: QualityRow) -> Row:
    row = {name: getattr(look, name) for name in ("endpoint", "role", "variant", "model", "version", "labelled")}
    row |= {name: value for name, value in look.measures.items() if name in MEASURES}
    if look.drift:
        worst = max(look.drift, key=lambda name: look.drift[name])
        row |= {"drift_psi_max": look.drift[worst], "drift_input": worst, "drift_psi": list(look.drift.items())}
    return {"at": look.minute_unix_s * 1_000_000, **row}


def _of_mirrors(told: Sequence[Told]) -> Iterable[Row]:
    """What each mirror did, a row a minute of those that came together; and what it dropped, a row a minute and reason."""
    for (writer, *who), blocks in grouped(told, _mirror).items():
        mirror = dict(zip(("endpoint", "variant", "model", "version"), who, strict=True))
        shown = {"role": "mirror", "writer": writer, **mirror}
        minutes: dict[int, Row] = {}
        dropped: Counter[tuple[int, str]] = Counter()
        for one in blocks:
            block = one.block
            assert isinstance(block, ShadowBlock)
            _count(block, minutes)
            for reason, count in block.dropped.items():
                at = block.requests[0].received_unix_us if block.requests else one.read_unix_us
                dropped[at - at % _MINUTE_US, reason] += count
        yield from ({**shown, **row} for row in minutes.values())
        for (at, reason), count in dropped.items():
            yield {**shown, "at": at, "reason": reason, "dropped": count}


def _mirror(one: Told) -> tuple[str, ...]:
    block = one.block
    assert isinstance(block, ShadowBlock)
    return one.writer, block.endpoint, block.mirror, block.model, block.version


def _count(block: ShadowBlock, minutes: dict[int, Row]) -> None:
    """Adds a block's requests to their minutes. Latency is the mirror's own computing time."""
    place = 0
    for request in block.requests:
        at = request.received_unix_us - request.received_unix_us % _MINUTE_US
        row = minutes.get(at)
        if row is None:
            row = minutes[at] = dict.fromkeys(("requests", "errors", "rows", "compared", "agreed"), 0)
            row |= {"at": at, "latency_sum_s": 0.0, "latency_buckets": [0] * (len(_BOUNDS_US) + 1)}
        row["requests"] += 1
        row["rows"] += request.rows
        if request.outcome == "recorded":
            row["latency_sum_s"] += request.compute_us / 1e6
            row["latency_buckets"][bisect_left(_BOUNDS_US, request.compute_us)] += 1
            ours, theirs = (found[place : place + request.rows] for found in (block.labels, block.live_labels))
            both = [(a, b) for a, b in zip(ours, theirs, strict=False) if a is not None and b is not None]
            row["compared"] += len(both)
            row["agreed"] += sum(a == b or _plain(a) == _plain(b) for a, b in both)
        else:
            row["errors"] += 1
        place += request.rows


def _plain(label: str) -> object:
    """Labels are equal as numbers and as booleans too, as in the ledger."""
    try:
        return {"true": 1.0, "false": 0.0}[label.lower()] if label.lower() in ("true", "false") else float(label)
    except ValueError:
        return label
