"""What a model takes and gives: named, typed, shaped tensors, and how a prediction is read from them."""

from typing import Literal

import msgspec

Datatype = str
"""A key of `models.tensors.NUMPY_OF`."""


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output. `shape` has -1 for a free dimension; the first dimension is rows wherever it is free.

    `optional`: the caller may leave it out; it is then NaN (floating) or the empty string (BYTES).
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} {list(self.shape)}"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs and outputs in the model's order.

    `columns` is true for a data-frame signature: every input is one column, named as the column, of shape [-1, 1].
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    columns: bool = False

    @property
    def is_batched(self) -> bool:
        """Whether the first dimension of every input and output is free, so that requests can share a run."""
        return all(spec.shape and spec.shape[0] == -1 for spec in (*self.inputs, *self.outputs))


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a prediction is read from the outputs: for records, the ledger, quality, and MLflow's `predictions`.

    `label_output` holds the decided class (None: argmax of `score_output`, or none at all); `score_output` holds class
    probabilities `(rows, classes)`, one score `(rows,)` or `(rows, 1)`, or the regressed value. `classes` are the labels in the
    order of the score columns; a binary classifier's recorded score is the probability of `classes[-1]`.
    `scoring` names the outputs whose values MLflow's own `predict` returns for this model, and their form:
    `list` (one value a row), `matrix` (one list a row), `records` (one object a row), `columns` (object of lists by output name).
    """

    kind: Literal["classification", "regression", "other"] = "other"
    label_output: str | None = None
    score_output: str | None = None
    classes: tuple[str | int | float | bool, ...] | None = None
    scoring_outputs: tuple[str, ...] = ()
    scoring_form: Literal["list", "matrix", "records", "columns"] = "columns"
