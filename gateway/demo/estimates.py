"""Numbers with their uncertainty: shares, weighted accuracies, and differences between arms."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Z_95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and its 95% interval."""

    value: float
    low: float
    high: float


def wilson(right: int, rows: int) -> Estimate:
    """A share of independent rows (Wilson 1927). `rows` above 0."""
    share = right / rows
    widened = 1 + Z_95**2 / rows
    centre = (share + Z_95**2 / (2 * rows)) / widened
    half = Z_95 * math.sqrt(share * (1 - share) / rows + Z_95**2 / (4 * rows**2)) / widened
    return Estimate(value=share, low=centre - half, high=centre + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """A weighted mean (Hájek), and how much each unit moves it: the influence of unit u is Σ w (x − mean) / Σ w over its rows."""

    mean: float
    influence: dict[Any, float]

    def interval(self) -> Estimate:
        half = Z_95 * math.sqrt(sum(value**2 for value in self.influence.values()))
        return Estimate(value=self.mean, low=self.mean - half, high=self.mean + half)


def weighted(values: Vector, weights: Vector, units: "np.ndarray[tuple[int, ...], np.dtype[np.object_]]") -> Weighted:
    """The mean of `values` with rows weighted by `weights` and rows of one unit taken together (linearised, as for clusters)."""
    total = float(weights.sum())
    mean = float((weights * values).sum() / total)
    names, place = np.unique(units.astype(str), return_inverse=True)
    moved = np.bincount(place, weights * (values - mean) / total)
    return Weighted(mean=mean, influence=dict(zip(names.tolist(), moved.tolist(), strict=True)))


def difference(one: Weighted, other: Weighted) -> Estimate:
    """`one` less `other`; units that are in both, as where a shadow sees what another answers, are not counted as independent."""
    units = one.influence.keys() | other.influence.keys()
    moved = (one.influence.get(unit, 0.0) - other.influence.get(unit, 0.0) for unit in units)
    half, value = Z_95 * math.sqrt(sum(step**2 for step in moved)), one.mean - other.mean
    return Estimate(value=value, low=value - half, high=value + half)
