"""How a prediction is read from a model's outputs: one label and one score a row, the same for records, the ledger and quality."""

from collections.abc import Callable, Sequence
from math import isfinite, isnan
from typing import Final

import numpy as np

from models.signature import Answer
from models.tensors import Array

Labels = list[str | None]
Scores = list[float | None]
Matrix = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_INTEGRAL_MAX: Final = 2.0**53


def read(answer: Answer, names: Sequence[str], outputs: Sequence[Array]) -> tuple[Labels, Scores]:
    """Label and score of every row of `outputs`, which are named by `names` in the same order.

    Labels are canonical text (`text_of`), None where the model decides no class. The score is the probability of `classes[-1]`
    for two classes, of the likeliest class for more, the regressed value for a regression; None where it is not finite, or where
    a regression has several values a row. Outputs that `answer` names but that are absent read as None throughout.
    """
    if not outputs or not len(outputs[0]):
        return [], []
    by_name = dict(zip(names, outputs, strict=True))
    rows = len(outputs[0])
    decided = by_name.get(answer.label_output) if answer.label_output else None
    scored = by_name.get(answer.score_output) if answer.score_output else None
    matrix = None if scored is None or scored.dtype.kind not in "fiub" else scored.reshape(rows, -1).astype(np.float64)
    if answer.kind == "regression":
        return [None] * rows, _finite(matrix[:, 0]) if matrix is not None and matrix.shape[1] == 1 else [None] * rows
    if decided is not None:
        labels = texts(decided.reshape(rows, -1)[:, 0])
    elif matrix is not None and answer.kind == "classification":
        labels = _likeliest(matrix, answer.classes)
    else:
        labels = [None] * rows
    return labels, _score(matrix) if matrix is not None and matrix.shape[1] else [None] * rows


def text_of(value: object) -> str:
    """The canonical text of one label, so that 1, 1.0, "1" and numpy's int64 1 are the same label.

    Booleans are `true` and `false`; integral floats below 2**53 are written as integers; bytes are UTF-8.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _INTEGRAL_MAX:
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def texts(labels: Array) -> Labels:
    """`text_of` for each element of a flat array; NaN reads as None."""
    values = labels.tolist()
    text: Callable[[object], str] = text_of if labels.dtype.kind not in "iuU" else str
    if labels.dtype.kind == "f":
        return [None if isnan(value) else text(value) for value in values]
    return [None if value is None else text(value) for value in values]


def _likeliest(matrix: Matrix, classes: tuple[str | int | float | bool, ...] | None) -> Labels:
    """The class of the largest score; one score a row is the probability of the second of two classes. NaN rows have none."""
    if not matrix.shape[1]:
        return [None] * len(matrix)
    index = (matrix[:, 0] >= 0.5).astype(np.intp) if matrix.shape[1] == 1 else matrix.argmax(axis=1)
    count = max(2, matrix.shape[1])
    named = (
        [text_of(label) for label in classes]
        if classes is not None and len(classes) == count
        else list(map(str, range(count)))
    )
    labels: Labels = [named[at] for at in index.tolist()]
    for row in np.flatnonzero(np.isnan(matrix).any(axis=1)).tolist():
        labels[row] = None
    return labels


def _score(matrix: Matrix) -> Scores:
    if matrix.shape[1] <= 2:
        return _finite(matrix[:, -1])
    return _finite(matrix.max(axis=1))


def _finite(values: Matrix) -> Scores:
    wide = values.astype(np.float64)
    scores: Scores = wide.tolist()
    return (
        scores
        if np.isfinite(wide).all()
        else [score if score is not None and isfinite(score) else None for score in scores]
    )
