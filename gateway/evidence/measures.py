"""Measures of quality from counts and scores, in numpy: pure, and the same for variants and mirrors.

A measure that the data does not allow is None, never 0: no label, one class only, no score.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Confusion = Mapping[tuple[str, str], int]
"""(truth, answer) → rows."""
_SMALLEST: Final = 1e-15
_BINS: Final = 10
_QUANTILES: Final = (0.1, 0.5, 0.9)


def classification(confusion: Confusion, positive: str | None) -> dict[str, float | None]:
    """Accuracy and error; precision, recall and F1 of the class `positive`, or their plain means over all classes where it is None.

    Precision of a class that was never answered, and recall of one that never occurred, count as 0 in the means.
    """
    total = sum(confusion.values())
    if not total:
        return dict.fromkeys(("accuracy", "error", "precision", "recall", "f1"))
    right = sum(count for (truth, answer), count in confusion.items() if truth == answer)
    classes = sorted({label for pair in confusion for label in pair}) if positive is None else [positive]
    parts = [_of_class(confusion, label) for label in classes]
    means = [sum(part[place] for part in parts) / len(parts) for place in range(3)]
    names = dict(zip(("precision", "recall", "f1"), means, strict=True))
    return {"accuracy": right / total, "error": 1 - right / total, **names}


def _of_class(confusion: Confusion, label: str) -> tuple[float, float, float]:
    hits = confusion.get((label, label), 0)
    answered = sum(count for (_, answer), count in confusion.items() if answer == label)
    occurred = sum(count for (truth, _), count in confusion.items() if truth == label)
    precision, recall = hits / answered if answered else 0.0, hits / occurred if occurred else 0.0
    return precision, recall, 2 * hits / (answered + occurred) if answered + occurred else 0.0


def binary(truths: Any, scores: Any) -> dict[str, float | None]:
    """Log loss, Brier score and area under the ROC curve of probabilities for truths of 0 and 1.

    Scores outside [0, 1] (margins) have an area only, and truths of one class have none.
    """
    y, p = np.asarray(truths, np.float64), np.asarray(scores, np.float64)
    are_probabilities = bool(len(p)) and float(p.min()) >= 0 and float(p.max()) <= 1
    return {
        "log_loss": log_loss(np.where(y > 0, p, 1 - p)) if are_probabilities else None,
        "brier": float(np.mean((p - y) ** 2)) if are_probabilities else None,
        "auc": area(y, p),
    }


def log_loss(given: Values) -> float | None:
    """Mean negative logarithm of the probabilities that were given to what came true; None without any."""
    return float(-np.mean(np.log(np.clip(given, _SMALLEST, 1.0)))) if len(given) else None


def area(truths: Values, scores: Values) -> float | None:
    """Area under the ROC curve by ranks (Mann and Whitney), ties shared; None when only one class occurred."""
    positives = int(np.count_nonzero(truths > 0))
    negatives = len(truths) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0
    above = float(ranks[inverse][truths > 0].sum()) - positives * (positives + 1) / 2.0
    return above / (positives * negatives)


def multiclass(truths: Any, matrix: Values) -> dict[str, float | None]:
    """Log loss, Brier score (the sum over classes, 0 to 2) and the mean of the areas of each class against the rest.

    `truths` are columns of `matrix` (rows, classes), which holds probabilities. No area where a class did not occur, or alone.
    """
    y = np.asarray(truths, np.intp)
    if not len(y):
        return dict.fromkeys(("log_loss", "brier", "auc"))
    came_true = np.zeros(matrix.shape)
    came_true[np.arange(len(y)), y] = 1.0
    areas = [area(came_true[:, place], matrix[:, place]) for place in range(matrix.shape[1])]
    known = [one for one in areas if one is not None]
    return {
        "log_loss": log_loss(matrix[np.arange(len(y)), y]),
        "brier": float(np.mean(np.sum((matrix - came_true) ** 2, axis=1))),
        "auc": sum(known) / len(known) if len(known) == len(areas) else None,
    }


def calibration(came_true: Any, scores: Any) -> dict[str, Any]:
    """How far probabilities are from shares: the expected calibration error, and by tenths of the score the rows, the mean score, the share.

    `came_true` (0 or 1) is what the score is the probability of. None and no bins for scores that are no probabilities.
    """
    y, p = np.asarray(came_true, np.float64), np.asarray(scores, np.float64)
    if not len(p) or p.min() < 0 or p.max() > 1:
        return {"calibration_error": None, "calibration": []}
    place = np.minimum((p * _BINS).astype(np.intp), _BINS - 1)
    rows, sums, hits = (np.bincount(place, weights, _BINS) for weights in (None, p, y))
    bins = [
        {
            "from": at / _BINS,
            "rows": int(rows[at]),
            "mean_score": float(sums[at] / rows[at]),
            "share": float(hits[at] / rows[at]),
        }
        for at in np.flatnonzero(rows).tolist()
    ]
    return {"calibration_error": float(np.sum(np.abs(sums - hits)) / len(p)), "calibration": bins}


def regression(truths: Any, answers: Any) -> dict[str, Any]:
    """Mean absolute and root mean square error, the mean error (`bias`), the share of variance explained (None where the truth does not
    vary), and the quantile (pinball) loss at 0.1, 0.5 and 0.9: what an answer meant as that quantile is to be judged by.
    """
    y, p = np.asarray(truths, np.float64), np.asarray(answers, np.float64)
    if not len(y):
        return dict.fromkeys(("mae", "rmse", "bias", "r2", "quantile_loss"))
    residual, spread = p - y, float(np.sum((y - y.mean()) ** 2))
    return {
        "mae": float(np.mean(np.abs(residual))),
        "rmse": float(np.sqrt(np.mean(residual**2))),
        "bias": float(residual.mean()),
        "r2": 1 - float(np.sum(residual**2)) / spread if spread else None,
        "quantile_loss": {
            str(at): float(np.mean(np.maximum(-at * residual, (1 - at) * residual))) for at in _QUANTILES
        },
    }
