"""What skl2onnx is taught here: exact trees and imputers for steps of pipelines; and where a pipeline's answer may jump."""

from typing import Any, Final

import numpy as np

from models.convert import estimators
from models.convert.graph import ONNX_OF, Graph
from models.signature import TensorSpec
from models.tensors import Array

_CLASSIFIER_OPTIONS: Final = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}
_FLOATS: Final = ("FloatTensorType", "DoubleTensorType")


def onnx_type(datatype: str, width: int | None) -> Any:
    """skl2onnx's type for a tensor [rows, width]."""
    from skl2onnx.common import data_types

    by_name = {
        "FP32": data_types.FloatTensorType,
        "FP64": data_types.DoubleTensorType,
        "INT64": data_types.Int64TensorType,
        "BYTES": data_types.StringTensorType,
    }
    return by_name[datatype]([None, width])


def register() -> None:
    """Registers our converters with skl2onnx, for this process."""
    from lightgbm import LGBMClassifier, LGBMRegressor
    from skl2onnx import update_registered_converter
    from skl2onnx.common._registration import get_converter, get_shape_calculator
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )
    from sklearn import ensemble, impute, svm, tree
    from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier, XGBRFRegressor

    boosters = (LGBMClassifier, LGBMRegressor, XGBClassifier, XGBRegressor, XGBRFClassifier, XGBRFRegressor)
    library = [vars(module)[name] for module in (ensemble, tree) for name in module.__all__]
    for kind in (*filter(estimators.is_trees, library), *boosters):
        if kind.__name__.endswith("Classifier"):
            shapes, convert, options = (
                calculate_linear_classifier_output_shapes,
                _convert_classifier,
                _CLASSIFIER_OPTIONS,
            )
        else:
            shapes, convert, options = calculate_linear_regressor_output_shapes, _convert_regressor, None
        update_registered_converter(kind, f"Runoff{kind.__name__}", shapes, convert, options=options)
    imputed = get_shape_calculator("SklearnSimpleImputer")
    update_registered_converter(impute.SimpleImputer, "RunoffSimpleImputer", imputed, _convert_imputer)
    # The one classifier that skl2onnx registers without the option that its own parser then asks for.
    name = "SklearnLinearSVC"
    plain, shapes = get_converter(name), get_shape_calculator(name)

    def convert_linear(scope: Any, operator: Any, container: Any) -> None:
        plain(scope, operator, container)

    options = {**_CLASSIFIER_OPTIONS, "raw_scores": [True, False]}
    update_registered_converter(svm.LinearSVC, name, shapes, convert_linear, options=options)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    forest, head = estimators.forest_of(operator.raw_operator)
    graph = Graph(scope.get_unique_variable_name("forest"))
    sums = forest.emit(graph, graph.cast(operator.inputs[0].full_name, "FP64"))
    label, probabilities = head.label_and_probabilities(graph, sums)
    _as_declared(graph, label, operator.outputs[0])
    _as_declared(graph, probabilities, operator.outputs[1])
    _into(container, graph)


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    forest, head = estimators.forest_of(operator.raw_operator)
    graph = Graph(scope.get_unique_variable_name("forest"))
    sums = forest.emit(graph, graph.cast(operator.inputs[0].full_name, "FP64"))
    _as_declared(graph, head.scores(graph, sums), operator.outputs[0])
    _into(container, graph)


def _convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    """The library's imputer fills with float32 values, and cannot leave strings alone.

    A string column reaches the model as text or None, never as NaN, so that an imputer of NaN changes nothing in it.
    """
    imputer = operator.raw_operator
    graph = Graph(scope.get_unique_variable_name("imputer"))
    values = [variable.full_name for variable in operator.inputs]
    joined = values[0] if len(values) == 1 else graph.op("Concat", *values, axis=1)
    kind = type(operator.inputs[0].type).__name__
    missing = imputer.missing_values
    if imputer.add_indicator or (kind not in _FLOATS and isinstance(missing, str)):
        raise NotImplementedError("SimpleImputer of strings by another string, or with add_indicator")
    if kind not in _FLOATS:
        graph.op("Identity", joined, into=operator.outputs[0].full_name)
    else:
        dtype = np.float32 if kind == "FloatTensorType" else np.float64
        is_nan = isinstance(missing, float) and np.isnan(missing)
        absent = (
            graph.op("IsNaN", joined) if is_nan else graph.op("Equal", joined, graph.constant(np.array(missing, dtype)))
        )
        fill = graph.constant(np.asarray(imputer.statistics_, dtype)[np.newaxis])
        graph.op("Where", absent, fill, joined, into=operator.outputs[0].full_name)
    _into(container, graph)


def _as_declared(graph: Graph, value: str, variable: Any) -> None:
    """Writes `value` into an operator's output, as the type that skl2onnx declared for it."""
    kind = type(variable.type).__name__
    datatype = {"Int64TensorType": "INT64", "StringTensorType": "BYTES", "DoubleTensorType": "FP64"}.get(kind, "FP32")
    graph.op("Cast", value, into=variable.full_name, to=ONNX_OF[datatype])


def _into(container: Any, graph: Graph) -> None:
    """Hands the nodes to skl2onnx's container."""
    for node in graph.nodes:
        container.nodes.append(node)
        container.node_domain_version_pair_sets.add((node.domain, container.target_opset_any_domain(node.domain)))
    container.initializers.extend(graph.constants)


def thresholds(estimator: Any, inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """Values by input at which trees inside the pipeline split, taken back through the steps before them where these can be undone."""
    names = [spec.name for spec in inputs]
    found: dict[str, Array] = {}
    for trees, trail in _trees_with_trail(estimator, ()):
        for feature, at in estimators.forest_of(trees)[0].thresholds().items():
            name, values = _undo(feature, at, trail, names)
            if name is not None:
                found[name] = np.union1d(found.get(name, values), values)
    return found


def _trees_with_trail(estimator: Any, trail: tuple[Any, ...]) -> list[tuple[Any, tuple[Any, ...]]]:
    """Tree models in the estimator, each with the transformers that its inputs have passed, first to last."""
    if hasattr(estimator, "steps"):
        before = tuple(step for _, step in estimator.steps[:-1] if step not in {None, "passthrough"})
        return _trees_with_trail(estimator.steps[-1][1], (*trail, *before))
    if estimators.is_trees(type(estimator)):
        return [(estimator, trail)]
    members = getattr(estimator, "estimators_", None)
    if members is None or getattr(estimator, "estimators_features_", None) is not None:
        return []
    return [found for member in np.ravel(np.array(members, object)) for found in _trees_with_trail(member, trail)]


def _undo(feature: int, values: Array, trail: tuple[Any, ...], names: list[str]) -> tuple[str | None, Array]:
    """A feature after `trail` and values of it → the input column it is made of, and the values there; (None, …) where unknown."""
    for step in reversed(trail):
        if type(step).__name__ == "ColumnTransformer":
            return _undo_columns(step, feature, values, names)
        undone = _undo_step(step, feature, values, len(names))
        if undone is None:
            return None, values
        values = undone
    return (names[feature] if feature < len(names) else None), values


def _undo_step(step: Any, feature: int, values: Array, width: int) -> Array | None:
    """One transformer of as many columns out as in, undone for one of them."""
    steps = [inner for _, inner in step.steps] if hasattr(step, "steps") else [step]
    for inner in reversed(steps):
        if type(inner).__name__ == "SimpleImputer" or inner in {None, "passthrough"}:
            continue
        if not hasattr(inner, "inverse_transform") or getattr(inner, "n_features_in_", None) != width:
            return None
        table = np.zeros((len(values), width))
        table[:, feature] = values
        undone = np.asarray(inner.inverse_transform(table))
        if undone.shape != table.shape or undone.dtype == object:
            return None
        values = undone[:, feature]
    return values


def _undo_columns(transformer: Any, feature: int, values: Array, names: list[str]) -> tuple[str | None, Array]:
    for name, step, columns in transformer.transformers_:
        place = transformer.output_indices_.get(name)
        if place is None or not place.start <= feature < place.stop or isinstance(columns, slice):
            continue
        chosen = (
            [columns] if isinstance(columns, str) else [c if isinstance(c, str) else names[int(c)] for c in columns]
        )
        if place.stop - place.start != len(chosen):
            return None, values
        undone = values if step == "passthrough" else _undo_step(step, feature - place.start, values, len(chosen))
        return (None, values) if undone is None else (chosen[feature - place.start], undone)
    return None, values
