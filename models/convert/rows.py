"""Rows to compare two forms of a model on: the example, what was recorded, and rows made to hurt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from models.convert.mlmodel import Rows
from models.signature import TensorSpec
from models.tensors import FLOATING, NUMPY_OF, Array

ROWS_MIN: Final = 1000
_POOL_MAX: Final = 2000
_THRESHOLD_ROWS_MAX: Final = 3000
_WIDE_ROWS: Final = 16
Draw = Callable[[int], Rows]
"""Draws that many rows, each input for itself."""

_GIVEN: Final = frozenset({"example", "recorded"})
_STRANGE: Final = ("", " ", "runoff-unseen", "é 🌍", "NaN", "0", "x" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`kinds` says of each row what it is there for. Row `i` of kind `empty` is the twin of row `i - twins` of kind `nulls`."""

    rows: Rows
    kinds: Array
    twins: int

    @property
    def count(self) -> int:
        return len(self.kinds)

    def is_given(self) -> Array:
        return np.isin(self.kinds, sorted(_GIVEN))


def generate(
    inputs: tuple[TensorSpec, ...],
    *,
    columns: bool,
    example: Rows,
    recorded: Rows,
    thresholds: Mapping[str, Array],
    categories: Mapping[str, Array] | None = None,
    rows_min: int = ROWS_MIN,
    bytes_max: int | None = None,
    seed: int = 0,
) -> Sample:
    """At least `rows_min` rows; the same ones for the same arguments.

    `bytes_max`: tensors are drawn only as far as that goes, though never fewer than 16 rows; None: for all rows, whatever they take.

    `thresholds`: values by input at which an answer may jump. `categories`: the values by input that the model has learned.
    """
    categories = categories or {}
    random = np.random.default_rng(seed)
    parts: list[tuple[str, Rows]] = [
        (kind, rows) for kind, rows in (("example", example), ("recorded", recorded)) if rows
    ]
    pools = {
        spec.name: _pool(spec, parts, thresholds.get(spec.name), categories.get(spec.name), random) for spec in inputs
    }

    def draw(count: int) -> Rows:
        if not columns:
            return {spec.name: _tensor(spec, pools[spec.name], count, random) for spec in inputs}
        return {spec.name: random.choice(pools[spec.name], count) for spec in inputs}

    most = rows_min
    if bytes_max is not None and not columns:
        most = min(rows_min, max(_WIDE_ROWS, bytes_max // sum(8 * prod(_tail(spec)) for spec in inputs)))
    twins = 0
    if columns:
        parts.append(("thresholds", _beside(inputs, thresholds, draw)))
        parts.append(("extremes", _one_by_one(inputs, _extremes, pools, draw)))
        parts.append(("unseen", _one_by_one(inputs, _unseen, pools, draw)))
        nulls = _nulls(inputs, draw)
        parts.append(("nulls", nulls))
        if any(spec.datatype == "BYTES" for spec in inputs):
            twins = _length(nulls)
            parts.append(("empty", {name: _emptied(values) for name, values in nulls.items()}))
    else:
        parts.append(("extremes", {name: _stretched(values) for name, values in draw(min(50, most)).items()}))
    made = sum(_length(rows) for _, rows in parts)
    parts.append(("sampled", draw(min(max(300, rows_min - made), most))))
    parts = [(kind, rows) for kind, rows in parts if _length(rows)]
    return Sample(
        rows={spec.name: np.concatenate([rows[spec.name] for _, rows in parts]) for spec in inputs},
        kinds=np.concatenate([np.full(_length(rows), kind, dtype=object) for kind, rows in parts]),
        twins=twins,
    )


def feeds(inputs: tuple[TensorSpec, ...], rows: Rows, *, columns: bool) -> dict[str, Array]:
    """Rows as the ONNX form takes them: columns as [rows, 1], missing strings as the empty string."""
    fed: dict[str, Array] = {}
    for spec in inputs:
        values = (
            _emptied(rows[spec.name]) if spec.datatype == "BYTES" else rows[spec.name].astype(NUMPY_OF[spec.datatype])
        )
        fed[spec.name] = values.reshape(-1, 1) if columns else values
    return fed


def _length(rows: Rows) -> int:
    return len(next(iter(rows.values()))) if rows else 0


def _pool(
    spec: TensorSpec,
    parts: list[tuple[str, Rows]],
    thresholds: Array | None,
    categories: Array | None,
    random: np.random.Generator,
) -> Array:
    """Values that a drawn row may have: those given and learned, values near them and around thresholds, or a plain spread."""
    given = (
        np.concatenate([rows[spec.name].ravel() for _, rows in parts])
        if parts
        else np.array([], NUMPY_OF[spec.datatype])
    )
    if spec.datatype == "BYTES":
        learned = () if categories is None else categories
        known = sorted({str(value) for value in (*given, *learned) if value is not None}) or ["a", "b", "c"]
        return np.array(known[:_POOL_MAX], object)
    if spec.datatype == "BOOL":
        return np.array([False, True])
    numbers = given.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if categories is not None:
        return _typed(np.concatenate([numbers, categories.astype(np.float64)])[:_POOL_MAX], spec)
    if thresholds is not None and thresholds.size:
        spread = max(float(np.ptp(thresholds)), 1e-3)
        numbers = np.concatenate([numbers, random.choice(thresholds, 200) + random.normal(0.0, 0.1 * spread, 200)])
    if not numbers.size:
        numbers = random.normal(0.0, 3.0, 200)
    near = numbers + random.normal(0.0, max(0.5 * float(np.std(numbers)), 1e-3), numbers.size)
    return _typed(np.concatenate([numbers, near])[:_POOL_MAX], spec)


def _typed(values: Array, spec: TensorSpec) -> Array:
    """Numbers in the type of the input, rounded and cut to its range."""
    dtype = NUMPY_OF[spec.datatype]
    if spec.datatype in FLOATING:
        return values.astype(dtype)
    range_ = np.iinfo(np.dtype(dtype.str))
    return np.rint(np.clip(values, max(range_.min, -(2**53)), min(range_.max, 2**53))).astype(dtype)


def _tensor(spec: TensorSpec, pool: Array, count: int, random: np.random.Generator) -> Array:
    return random.choice(pool, (count, *_tail(spec)))


def _tail(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size if size > 0 else 1 for size in spec.shape[1:])


def _beside(inputs: tuple[TensorSpec, ...], thresholds: Mapping[str, Array], draw: Draw) -> Rows:
    """Each threshold itself and its neighbours, as double and as float32, in rows that are otherwise drawn."""
    numeric = [
        spec for spec in inputs if spec.datatype not in {"BYTES", "BOOL"} and thresholds.get(spec.name) is not None
    ]
    if not numeric:
        return {}
    each = max(1, _THRESHOLD_ROWS_MAX // (6 * len(numeric)))
    found: dict[str, Array] = {}
    for spec in numeric:
        at = thresholds[spec.name]
        at = at[:: max(1, -(-len(at) // each))]
        narrow = at.astype(np.float32)
        beside = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]
        beside += [narrow, np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))]
        found[spec.name] = _typed(np.concatenate([values.astype(np.float64) for values in beside]), spec)
    return _replaced(found, draw)


def _one_by_one(
    inputs: tuple[TensorSpec, ...], values: Callable[[TensorSpec, Array], Array], pools: Mapping[str, Array], draw: Draw
) -> Rows:
    return _replaced({spec.name: values(spec, pools[spec.name]) for spec in inputs}, draw)


def _replaced(by_name: Mapping[str, Array], draw: Draw) -> Rows:
    """Drawn rows in which one input after the other takes the given values."""
    rows = draw(sum(map(len, by_name.values())))
    start = 0
    for name, values in by_name.items():
        if len(values):
            rows[name] = rows[name].copy()
            rows[name][start : start + len(values)] = values
        start += len(values)
    return rows


def _extremes(spec: TensorSpec, pool: Array) -> Array:
    if spec.datatype in {"BYTES", "BOOL"}:
        return pool[:0]
    numbers = pool.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    width = max(high - low, 1.0)
    far = [0.0, -0.0, 1.0, -1.0, low, high, 1e-30, -1e-30]
    far += [edge + times * step for times in (1, 10, 100) for edge, step in ((low, -width), (high, width))]
    return _typed(np.array(far), spec)


def _unseen(spec: TensorSpec, pool: Array) -> Array:
    if spec.datatype == "BYTES":
        return np.array(
            [*_STRANGE, *(f"{value} " for value in pool[:3]), *(str(value).swapcase() for value in pool[:3])], object
        )
    if spec.datatype in FLOATING or spec.datatype == "BOOL":
        return pool[:0]
    return _typed(np.array([pool.min() - 1.0, pool.max() + 1.0, -1.0, 999_999.0]), spec)


def _nulls(inputs: tuple[TensorSpec, ...], draw: Draw) -> Rows:
    """NaN in floating columns, None in string columns: each column alone, then all together."""
    nullable = [spec for spec in inputs if spec.datatype == "BYTES" or spec.datatype in FLOATING]
    if not nullable:
        return {}
    alone, together = 4, 8
    rows = draw(alone * len(nullable) + together)
    for place, spec in enumerate(nullable):
        values = rows[spec.name].copy()
        absent = np.array(None if spec.datatype == "BYTES" else np.nan, values.dtype)
        values[place * alone : (place + 1) * alone] = absent
        values[len(nullable) * alone :] = absent
        rows[spec.name] = values
    return rows


def _emptied(values: Array) -> Array:
    if values.dtype != object:
        return values
    given: list[str | None] = values.ravel().tolist()
    return np.array(["" if value is None else value for value in given], object).reshape(values.shape)


def _stretched(values: Array) -> Array:
    return values * np.asarray(10, values.dtype) if values.dtype.kind in "fiu" else values
