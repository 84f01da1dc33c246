"""What a flavor's room hands back: the ONNX forms to try, the original to compare with, and how its answer is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from models.convert.graph import Graph
from models.convert.mlmodel import Mlmodel, Rows
from models.errors import StagingRefused
from models.signature import Answer, Signature, TensorSpec
from models.tensors import NUMPY_OF, Array

Answers = dict[str, Array]
"""What a model answers, by output name; rows first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write the model in ONNX. `build` raises whatever its converter raises when it cannot."""

    name: str
    build: Callable[[], onnx.ModelProto]


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """`forms` are tried in order; the first that proves equal is taken. `original` is None where nothing was converted.

    `thresholds` are values by input name at which the model's answer may jump, `categories` those that it has learned.
    """

    flavor: str
    signature: Signature
    answer: Answer
    forms: tuple[Form, ...]
    original: Callable[[Rows], Answers] | None
    description: str
    thresholds: Mapping[str, Array] = field(default_factory=dict)
    categories: Mapping[str, Array] = field(default_factory=dict)


def matrix(graph: Graph, inputs: tuple[TensorSpec, ...], datatype: str) -> str:
    """The declared inputs as the one matrix [rows, features] that most models read: columns side by side, or the tensor itself.

    Integers reach FP32 by way of FP64, as numpy takes a data frame's columns together before a library narrows them.
    """
    for spec in inputs:
        if (spec.datatype == "BYTES") != (datatype == "BYTES"):
            raise StagingRefused(
                "signature_unsupported", f"input '{spec.name}': this model reads numbers, got {spec.datatype}"
            )
    values = [spec.name if spec.datatype == datatype else graph.cast(spec.name, datatype) for spec in inputs]
    return values[0] if len(values) == 1 else graph.op("Concat", *values, axis=1)


def frame(inputs: tuple[TensorSpec, ...], rows: Rows) -> Any:
    """Rows as the pandas DataFrame that MLflow's scoring hands to the model: declared order and types."""
    import pandas as pd

    return pd.DataFrame({spec.name: rows[spec.name] for spec in inputs})


def call_with(model: Mlmodel, rows: Rows) -> Any:
    """Rows as the original takes them: a DataFrame for columns, the array for one tensor."""
    inputs = model.declared()
    return frame(inputs, rows) if model.columns else rows[inputs[0].name]


def one_tensor(model: Mlmodel) -> None:
    """Raises StagingRefused for tensor signatures that no library model can read."""
    inputs = model.declared()
    if not model.columns and (len(inputs) != 1 or len(inputs[0].shape) != 2):
        shapes = ", ".join(map(str, inputs))
        raise StagingRefused("signature_unsupported", f"wanted columns or one tensor [-1, features], got {shapes}")


def scalars(classes: Array) -> tuple[str | int | float | bool, ...]:
    """Labels as plain values: str, int, float or bool."""
    return tuple(value if isinstance(value, int | float | bool) else str(value) for value in classes.tolist())


def label_datatype(classes: Array) -> str:
    match classes.dtype.kind:
        case "i" | "u":
            return "INT64"
        case "f":
            return "FP64"
        case "b":
            return "BOOL"
        case _:
            return "BYTES"


def label_array(labels: Any) -> Array:
    """A library's labels as the array that the ONNX form answers."""
    array = np.asarray(labels)
    kind = label_datatype(array)
    return np.array([str(value) for value in array], object) if kind == "BYTES" else array.astype(NUMPY_OF[kind])


def classification(
    classes: Array, *, has_probabilities: bool, predict_fn: str
) -> tuple[tuple[TensorSpec, ...], Answer]:
    """Outputs `label` [rows] and `probabilities` [rows, classes], FP32 for every family so that they can stand behind one endpoint."""
    outputs = [TensorSpec(name="label", datatype=label_datatype(classes), shape=(-1,))]
    if has_probabilities:
        outputs.append(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, len(classes))))
    proba = _wants_probabilities(predict_fn) and has_probabilities
    return tuple(outputs), Answer(
        kind="classification",
        label_output="label",
        score_output="probabilities" if has_probabilities else None,
        classes=scalars(classes),
        scoring_outputs=("probabilities",) if proba else ("label",),
        scoring_form="matrix" if proba else "list",
    )


def values(
    targets: int, kind: str = "regression", classes: Array | None = None
) -> tuple[tuple[TensorSpec, ...], Answer]:
    """The output `prediction`, FP64 [rows], or [rows, targets] where there are several."""
    shape = (-1,) if targets == 1 else (-1, targets)
    is_class = kind == "classification"
    return (TensorSpec(name="prediction", datatype="FP64", shape=shape),), Answer(
        kind="classification" if is_class else "regression",
        score_output="prediction",
        classes=None if classes is None else scalars(classes),
        scoring_outputs=("prediction",),
        scoring_form="list" if targets == 1 else "matrix",
    )


def _wants_probabilities(predict_fn: str) -> bool:
    if predict_fn not in {"predict", "predict_proba"}:
        raise StagingRefused(
            "predict_fn_unsupported",
            f"predict_fn '{predict_fn}' is not served",
            "log with pyfunc_predict_fn='predict' or 'predict_proba'",
        )
    return predict_fn == "predict_proba"
