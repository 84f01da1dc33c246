"""How sure a measure is: 95% intervals that hold however often one looks, from each row's influence on the measure, added up by unit.

    θ̂ − θ ≈ Σ ψᵢ,    se² = Σ over units of (Σ of the unit's ψᵢ)²,    half width = se·√(2(n·r² + 1)/(n·r²)·log(√(n·r² + 1)/α)),    n units

Rows of one unit share their fate; counting them as independent gives intervals that are too narrow (research: false verdicts up to 99%).
Sources: Waudby-Smith and others, Time-uniform central limit theory (arXiv 2103.06476) for the width; DeLong 1988 and Obuchowski 1997 for
the area. Asymptotic, so for display: nothing is decided by it, and with less than 30 units, or 30 rows of either outcome, there is none.
"""

from typing import Any, Final

import numpy as np

from gateway.evidence.measures import Values, area

Interval = tuple[float, float]
Intervals = dict[str, Interval | None]

LEAST: Final = 30
_ALPHA: Final = 0.05
_TIGHTEST: Final = 1000
"""Units for which the interval is as narrow as it can be, some 1.5 times that of one look; at 100 and at a million it is 2 times that."""
_SMALLEST: Final = 1e-15


class Units:
    """The unit of each row, as numbers from 0."""

    def __init__(self, keys: Any) -> None:
        found, self.of_row = np.unique(np.asarray(keys), return_inverse=True)
        self.count = len(found)

    def interval(
        self, value: float, influence: Values, lowest: float = -np.inf, highest: float = np.inf
    ) -> Interval | None:
        """`influence` of each row on `value`, the measure over all rows, which lies in [lowest, highest] by its nature.

        None where nothing varied: that says how little was seen, not how sure it is.
        """
        by_unit = np.bincount(self.of_row, influence, self.count)
        half = float(np.sqrt(np.sum(by_unit**2))) * _width(self.count)
        return None if half == 0 else (max(lowest, value - half), min(highest, value + half))


def of_classes(truth: Any, answer: Any, positive: Any, units: Units) -> Intervals:
    """Accuracy and error; precision, recall and F1 where there is a class `positive` (else None). Truth and answer by row, comparable."""
    right = (truth == answer).astype(np.float64)
    accuracy = _share(right, np.ones(len(right)), units)
    found: Intervals = {"accuracy": accuracy, "error": accuracy and (1 - accuracy[1], 1 - accuracy[0])}
    if positive is not None:
        occurred, answered = truth == positive, answer == positive
        hits = (occurred & answered).astype(np.float64)
        found["precision"] = _share(hits, answered.astype(np.float64), units)
        found["recall"] = _share(hits, occurred.astype(np.float64), units)
        found["f1"] = _share(2 * hits, occurred.astype(np.float64) + answered, units)
    return found


def of_probabilities(truth: Any, scores: Any, units: Units) -> Intervals:
    """Log loss, Brier score and area, for truths of 0 and 1. Scores outside [0, 1] have an area only."""
    y, p = np.asarray(truth, np.float64), np.asarray(scores, np.float64)
    found: Intervals = {"auc": of_area(y, p, units)}
    if len(p) and p.min() >= 0 and p.max() <= 1:
        found["log_loss"] = of_mean(-np.log(np.clip(np.where(y > 0, p, 1 - p), _SMALLEST, 1.0)), units)
        found["brier"] = of_mean((p - y) ** 2, units)
    return found


def of_area(truth: Values, scores: Values, units: Units) -> Interval | None:
    """Of the area under the ROC curve."""
    value = area(truth, scores)
    influence = None if value is None else area_influence(truth, scores, value)
    if value is None or influence is None or units.count < LEAST:
        return None
    return units.interval(value, influence, 0.0, 1.0)


def area_influence(truth: Values, scores: Values, value: float) -> Values | None:
    """Each row's influence on the area: how far its share of rows of the other class that it stands right with is from the mean."""
    is_positive = truth > 0
    positives, negatives = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
    if min(len(positives), len(negatives)) < LEAST:
        return None
    influence = np.empty(len(scores))
    below = np.searchsorted(negatives, scores[is_positive], "left") + np.searchsorted(
        negatives, scores[is_positive], "right"
    )
    above = np.searchsorted(positives, scores[~is_positive], "left") + np.searchsorted(
        positives, scores[~is_positive], "right"
    )
    influence[is_positive] = (below / (2 * len(negatives)) - value) / len(positives)
    influence[~is_positive] = (1 - above / (2 * len(positives)) - value) / len(negatives)
    return influence


def of_areas(truth: Any, matrix: Values, units: Units) -> Interval | None:
    """Of the mean of the areas of each class against the rest; `truth` is the column of `matrix` (rows, classes) that came true."""
    total, influence, classes = 0.0, np.zeros(len(matrix)), matrix.shape[1]
    for place in range(classes):
        one = (truth == place).astype(np.float64)
        value = area(one, matrix[:, place])
        part = None if value is None else area_influence(one, matrix[:, place], value)
        if value is None or part is None:
            return None
        total, influence = total + value / classes, influence + part / classes
    return None if units.count < LEAST else units.interval(total, influence, 0.0, 1.0)


def of_mean(losses: Values, units: Units) -> Interval | None:
    """Of the mean of something that is not negative."""
    if units.count < LEAST:
        return None
    mean = float(losses.mean())
    return units.interval(mean, (losses - mean) / len(losses), 0.0)


def of_regression(truth: Any, answers: Any, units: Units) -> Intervals:
    """MAE, RMSE and bias."""
    residual = np.asarray(answers, np.float64) - np.asarray(truth, np.float64)
    rows = len(residual)
    if units.count < LEAST:
        return dict.fromkeys(("mae", "rmse", "bias"))
    squares, bias = residual**2, float(residual.mean())
    rmse = float(np.sqrt(squares.mean()))
    spread = (squares - rmse**2) / (2 * rmse * rows) if rmse else np.zeros(rows)
    return {
        "mae": of_mean(np.abs(residual), units),
        "rmse": units.interval(rmse, spread, 0.0),
        "bias": units.interval(bias, (residual - bias) / rows),
    }


def _share(parts: Values, wholes: Values, units: Units) -> Interval | None:
    """Of a ratio of sums in [0, 1]."""
    part, whole = float(parts.sum()), float(wholes.sum())
    if units.count < LEAST or part < LEAST or whole - part < LEAST:
        return None
    value = part / whole
    return units.interval(value, (parts - value * wholes) / whole, 0.0, 1.0)


def _width(units: int) -> float:
    """Half widths in standard errors: equation 9 of the paper, with r chosen to be tightest at `_TIGHTEST`."""
    most = -2 * np.log(_ALPHA)
    seen = units * (most + np.log(most + 1)) / _TIGHTEST
    return float(np.sqrt(2 * (seen + 1) / seen * np.log(np.sqrt(seen + 1) / _ALPHA)))
