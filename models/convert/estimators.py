"""Any estimator or Booster that is trees and nothing else, as a forest and its head; and the whole model made of only that."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from models.convert import lightgbm, sklearn_trees, xgboost
from models.convert.form import (
    Answers,
    Converted,
    Form,
    call_with,
    classification,
    label_array,
    matrix,
    one_tensor,
    scalars,
    values,
)
from models.convert.graph import Graph
from models.convert.heads import Head
from models.convert.mlmodel import Mlmodel, Rows
from models.convert.trees import Forest
from models.errors import StagingRefused
from models.signature import Answer, Signature, TensorSpec
from models.tensors import Array


def is_trees(kind: Any) -> bool:
    """Whether `forest_of` knows models of this class."""
    library, name = kind.__module__.partition(".")[0], kind.__name__
    if library == "sklearn":
        family = name.removesuffix("Classifier").removesuffix("Regressor")
        known = (*sklearn_trees.TREES, *sklearn_trees.FORESTS, "GradientBoosting", "HistGradientBoosting")
        return family in known and family != name
    return library in {"xgboost", "lightgbm"}


def forest_of(model: Any) -> tuple[Forest, Head]:
    """The trees that the model's own `predict` uses (early stopping included); classes are in the head of a classifier."""
    library = type(model).__module__.partition(".")[0]
    classes = getattr(model, "classes_", None)
    if library == "sklearn":
        return sklearn_trees.forest_of(model)
    if library == "lightgbm":
        forest, head = lightgbm.forest_of(getattr(model, "booster_", model))
        return forest, replace(head, classes=None if classes is None else np.asarray(classes))
    booster = model
    if hasattr(model, "get_booster"):
        booster = model.get_booster()
        stop = model._get_iteration_range(None)[1]  # noqa: SLF001 - the only place that knows the library's rule
        booster = booster[:stop] if stop else booster
        if not np.isnan(model.missing):
            raise StagingRefused(
                "trees_unsupported", f"XGBoost with missing={model.missing} is not served", "train with missing=nan"
            )
    forest, head = xgboost.forest_of(booster)
    return forest, replace(head, classes=None if classes is None else np.asarray(classes))


def convert(model: Mlmodel, trees: Any) -> Converted:
    """A model that is trees and nothing else. Raises StagingRefused where its inputs or objective have no ONNX form."""
    one_tensor(model)
    forest, head = forest_of(trees)
    inputs = model.declared()
    width = len(inputs) if model.columns else inputs[0].shape[1]
    if width not in {-1, forest.features}:
        raise StagingRefused(
            "signature_unsupported", f"the signature has {width} features, the model wants {forest.features}"
        )
    outputs, answer, softmax_labels = _outputs(model, trees, forest, head)
    signature = Signature(inputs=inputs, outputs=outputs, columns=model.columns)

    def build() -> onnx.ModelProto:
        graph = Graph()
        sums = forest.emit(graph, matrix(graph, inputs, "FP64"))
        _emit_outputs(graph, head, sums, outputs, softmax_labels=softmax_labels)
        return graph.model(inputs, outputs)

    return Converted(
        flavor=model.flavor,
        signature=signature,
        answer=answer,
        forms=(Form(name="exact trees", build=build),),
        original=lambda rows: _original(model, trees, rows, outputs),
        description=describe(trees),
        thresholds=by_name(inputs, forest.thresholds()) if model.columns else {},
    )


def describe(model: Any) -> str:
    """Class and library version, for the certificate."""
    import importlib.metadata

    library = type(model).__module__.partition(".")[0]
    distributions = importlib.metadata.packages_distributions().get(library, [])
    version = importlib.metadata.version(distributions[0]) if distributions else "unknown"
    return f"{type(model).__name__} of {library} {version}"


def by_name(inputs: tuple[TensorSpec, ...], thresholds: dict[int, Array]) -> dict[str, Array]:
    return {inputs[feature].name: at for feature, at in thresholds.items() if feature < len(inputs)}


def _outputs(model: Mlmodel, trees: Any, forest: Forest, head: Head) -> tuple[tuple[TensorSpec, ...], Answer, bool]:
    """Outputs, answer, and whether a Booster answers labels of `multi:softmax` as floats."""
    if head.classes is not None:
        return *classification(head.classes, has_probabilities=True, predict_fn=model.predict_fn), False
    if head.link == "softmax" and hasattr(trees, "save_config") and xgboost.objective_of(trees) == "multi:softmax":
        labels = np.arange(forest.targets, dtype=np.float64)
        spec = TensorSpec(name="prediction", datatype="FP64", shape=(-1,))
        return (
            (spec,),
            Answer(
                kind="classification",
                label_output="prediction",
                classes=scalars(labels),
                scoring_outputs=("prediction",),
                scoring_form="list",
            ),
            True,
        )
    if head.link in {"sigmoid", "softmax", "one_vs_all"}:
        return *values(forest.targets, "classification", np.arange(max(2, forest.targets))), False
    return *values(forest.targets), False


def _emit_outputs(
    graph: Graph, head: Head, sums: str, outputs: tuple[TensorSpec, ...], *, softmax_labels: bool
) -> None:
    if head.classes is not None:
        label, probabilities = head.label_and_probabilities(graph, sums)
        graph.op("Identity", label, into="label")
        graph.op("Identity", probabilities, into="probabilities")
        return
    scores = head.scores(graph, sums)
    if softmax_labels:
        scores = graph.op("ArgMax", scores, axis=1, keepdims=0)
    graph.reshape(graph.cast(scores, "FP64"), outputs[0].shape, into="prediction")


def _original(model: Mlmodel, trees: Any, rows: Rows, outputs: tuple[TensorSpec, ...]) -> Answers:
    data = call_with(model, rows)
    if len(outputs) == 2:
        return {"label": label_array(trees.predict(data)), "probabilities": np.asarray(trees.predict_proba(data))}
    if hasattr(trees, "save_config"):
        from xgboost import DMatrix

        data = DMatrix(data)
    return {"prediction": np.asarray(trees.predict(data), np.float64)}
