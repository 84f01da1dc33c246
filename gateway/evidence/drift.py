"""How far what is asked and answered now lies from the reference, input by input: the population stability index.

    PSI = Σ over bins (q − p)·ln(q/p),    p, q: the shares of a bin in the reference and in the recent rows

Without drift PSI is near (1/n + 1/m)·χ² with bins − 1 degrees of freedom, n and m the rows of both; so the usual limit of 0.1 alone
alarms for nothing where rows are few (research: 86% of windows of 50 rows), and below 500 rows there is no figure at all.
"""

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.evidence.query import Queries, quoted

ROWS_LEAST: Final = 500
ROWS_MAX: Final = 5_000
"""Rows of the reference's first window, and of the recent ones."""
_WINDOW_S: Final = 86_400.0
_BINS: Final = 10
_VALUES_MAX: Final = 20
"""A number that takes no more values than this counts by value, as texts do; of texts the most frequent are told apart."""
_VALUE_UNITS_LEAST: Final = 10
"""A value that fewer units of the reference had is not remembered: it might name somebody."""
_ELEMENTS_MAX: Final = 32
_FEATURES_MAX: Final = 200
_LIMIT: Final = 0.1
_ALPHA: Final = 0.05


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of the reference. `edges` of numbers, or `values`; `counts` by bin, then those of no bin (other values), then missing ones."""

    edges: list[float] | None
    values: list[str] | None
    counts: list[int]


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What recent rows are compared with. `source`: the ingested table and its version, or whose first window; rows after `until_unix_s` are recent."""

    source: str
    rows: int
    until_unix_s: float
    features: dict[str, Bins]


class Stability(msgspec.Struct, frozen=True, kw_only=True):
    """`psi` above `threshold` is more than chance and more than a little, all features of the variant together at 5%."""

    psi: float
    threshold: float


def reference(queries: Queries, endpoint: str, model: str, version: str, now_unix_s: float) -> Reference | None:
    """The table `ingested/reference_<endpoint>` where there is one (a sample of the training data, by `runoff ingest`); else the first rows
    that this version answered: 5,000 of them, or those of its first day. None while these are not there yet.
    """
    given = queries.ingested(table_of(endpoint), ROWS_MAX * 20)
    if given is not None:
        number, rows = given
        kept = rows.select([column for column in rows.column_names if not column.startswith("_")])
        return _made(source_of(endpoint, number), kept, 0.0) if rows.num_rows >= ROWS_LEAST else None
    rows = _recorded(queries, endpoint, {"model": model, "version": version}, "ASC", 0.0)
    if rows is None or rows.num_rows < ROWS_LEAST:
        return None
    first, last = (bound(rows["_unix_s"]).as_py() for bound in (pc.min, pc.max))
    if rows.num_rows < ROWS_MAX and now_unix_s - first < _WINDOW_S:
        return None
    within = rows.filter(pc.less_equal(rows["_unix_s"], first + _WINDOW_S)) if rows.num_rows < ROWS_MAX else rows
    if within.num_rows < ROWS_LEAST:
        within = rows  # little is asked: all that there is
    last = pc.max(within["_unix_s"]).as_py()
    return _made(f"{model}/{version}", within, last)


def table_of(endpoint: str) -> str:
    """The table of `runoff ingest` that is the reference of an endpoint."""
    return f"reference_{endpoint.replace('.', '_')}"


def source_of(endpoint: str, table_version: int) -> str:
    """`Reference.source` of that table."""
    return f"ingested/{table_of(endpoint)}@{table_version}"


def drift(
    queries: Queries, against: Reference, endpoint: str, variant: str, version: str, now_unix_s: float
) -> dict[str, Stability]:
    """By feature, the stability of the newest rows of the last day that this variant and version answered; empty below 500 rows."""
    since = max(against.until_unix_s, now_unix_s - _WINDOW_S)
    rows = _recorded(queries, endpoint, {"variant": variant, "version": version}, "DESC", since)
    if rows is None or rows.num_rows < ROWS_LEAST:
        return {}
    found = {name: values for name, values in _features(rows) if name in against.features}
    return {name: _stability(against.features[name], values, len(found)) for name, values in found.items()}


def _recorded(
    queries: Queries, endpoint: str, who: Mapping[str, str], order: str, since_unix_s: float
) -> pa.Table | None:
    """The first or newest rows with all that was recorded of inputs and answers; None where nothing is."""
    with queries.snapshot("predictions", endpoint=endpoint, since_unix_s=since_unix_s) as snapshot:
        names = [name for name in snapshot.columns("predictions") if name.startswith("input_")]
        chosen = "".join(f", {quoted(name)} AS {quoted(name.removeprefix('input_'))}" for name in names)
        is_one = " AND ".join(f"{name} = ?" for name in who)
        is_kept = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in names) or "TRUE"
        reader = snapshot.batches(
            f"SELECT epoch_us(received_at) / 1e6 AS _unix_s, coalesce('u' || unit, 'p' || prediction_id) AS _unit, answer_label, answer_score{chosen} FROM predictions"  # noqa: S608  # our own names
            f" WHERE endpoint = ? AND {is_one} AND variant IS NOT NULL AND ({is_kept}) AND date >= ? AND received_at > make_timestamptz(?)"
            f" ORDER BY received_at {order}, prediction_id, row LIMIT {ROWS_MAX}",
            [endpoint, *who.values(), dt.datetime.fromtimestamp(since_unix_s, dt.UTC).date(), int(since_unix_s * 1e6)],
            rows=ROWS_MAX,
        )
        return reader.read_all()


def _made(source: str, rows: pa.Table, until_unix_s: float) -> Reference:
    # In a sample of the training data each row is one of its own.
    units = rows["_unit"].to_pylist() if "_unit" in rows.column_names else range(rows.num_rows)
    features = {name: _bins(values, units) for name, values in _features(rows)}
    return Reference(source=source, rows=rows.num_rows, until_unix_s=until_unix_s, features=features)


def _features(rows: pa.Table) -> Iterator[tuple[str, Any]]:
    """Numbers (NaN: missing) or texts (None: missing) by name; of a tensor each element. What is neither is left out, and what is missing throughout."""
    told = 0
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        parts = [(name, column)]
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            width = pc.max(pc.list_value_length(column)).as_py() or 0
            parts = [
                (f"{name}[{place}]", pc.list_element(_padded(column, width), place))
                for place in range(width if width <= _ELEMENTS_MAX else 0)
            ]
        for part, values in parts:
            kind = values.type
            if name.startswith("_") or told >= _FEATURES_MAX or values.null_count == len(values):
                continue
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                found: Any = values.to_pylist()
            elif pa.types.is_boolean(kind):
                found = [None if value is None else str(value).lower() for value in values.to_pylist()]
            elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
                found = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), float)
            else:
                continue
            told += 1
            yield part, found


def _padded(column: pa.Array, width: int) -> pa.Array:
    """Only rows that have all elements; the others count as missing."""
    whole = pc.equal(pc.list_value_length(column), width)
    return pc.if_else(whole, column, pa.scalar([None] * width, column.type))


def _bins(values: Any, units: Sequence[object]) -> Bins:
    if isinstance(values, np.ndarray):
        known = values[np.isfinite(values)]
        if len(np.unique(known)) > _VALUES_MAX:
            edges = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS)).tolist()
            return Bins(edges=edges, values=None, counts=_counts(values, edges, None))
        values = _texts(values)
    frequent = Counter(value for value in values if value is not None).most_common(_VALUES_MAX)
    having = Counter(value for value, _ in set(zip(values, units, strict=True)))
    told = sorted(value for value, _ in frequent if having[value] >= _VALUE_UNITS_LEAST)
    return Bins(edges=None, values=told, counts=_counts(values, None, told))


def _counts(values: Any, edges: Sequence[float] | None, told: Sequence[str] | None) -> list[int]:
    if edges is not None:
        numbers = values if isinstance(values, np.ndarray) else np.full(len(values), np.nan)
        known = numbers[np.isfinite(numbers)]
        binned = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
        return [*binned.tolist(), 0, len(numbers) - len(known)]
    texts = _texts(values) if isinstance(values, np.ndarray) else values
    found = Counter(texts)
    missing = found.pop(None, 0)
    counted = [found.pop(value, 0) for value in told or ()]
    return [*counted, sum(found.values()), missing]


def _texts(numbers: Any) -> list[str | None]:
    return [repr(value) if math.isfinite(value) else None for value in numbers.tolist()]


def _stability(bins: Bins, values: Any, features: int) -> Stability:
    recent = np.array(_counts(values, bins.edges, bins.values), float)
    before = np.array(bins.counts, float)
    kept = (before > 0) | (recent > 0)
    # Half a row more in each bin: one that only one side has would make the index infinite.
    p, q = ((counts[kept] + 0.5) / (counts.sum() + 0.5 * kept.sum()) for counts in (before, recent))
    psi = float(np.sum((q - p) * np.log(q / p)))
    chance = _chi_square(int(kept.sum()) - 1, _ALPHA / features) * (1 / before.sum() + 1 / recent.sum())
    return Stability(psi=psi, threshold=max(_LIMIT, chance))


def _chi_square(degrees: int, alpha: float) -> float:
    """What a χ² exceeds with this probability (Wilson and Hilferty 1931; within 1% for what is asked here)."""
    if degrees < 1:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(1 - alpha) * math.sqrt(spread)) ** 3
