"""scikit-learn models and pipelines, computed in double as the library does, with trees (also XGBoost's and LightGBM's) written exactly.

skl2onnx converts the steps. Two forms are tried: everything in double, then float32 with true division in scalers, for steps whose
converter knows no double. Rows between two tree thresholds decide which of them is right (`parity.py`).
"""

import copy
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx

from models.convert import estimators, steps
from models.convert.form import (
    Answers,
    Converted,
    Form,
    call_with,
    classification,
    label_array,
    matrix,
    one_tensor,
    values,
)
from models.convert.graph import OPSETS, Graph
from models.convert.mlmodel import Mlmodel, Rows
from models.errors import StagingRefused
from models.signature import Answer, Signature, TensorSpec
from models.tensors import INTEGRAL, Array

_ENCODERS: Final = frozenset({"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"})
_CORE: Final = "X"


def convert(model: Mlmodel, estimator: Any) -> Converted:
    """Raises StagingRefused for inputs and predict functions that are not served; converters raise in the forms' `build`."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    for part in parts(estimator):
        if vars(part).get("n_jobs") not in {None, 1}:
            part.n_jobs = 1
    if estimators.is_trees(type(estimator)):
        return estimators.convert(model, estimator)
    one_tensor(model)
    inputs = model.declared()
    outputs, answer = _outputs(model, estimator)
    exact = "FP32" if all(spec.datatype == "FP32" for spec in inputs) else "FP64"

    def form(name: str, datatype: str) -> Form:
        return Form(name=name, build=lambda: _build(model, estimator, outputs, datatype))

    return Converted(
        flavor=model.flavor,
        signature=Signature(inputs=inputs, outputs=outputs, columns=model.columns),
        answer=answer,
        forms=(form(f"pipeline in {exact}", exact), *([form("pipeline in FP32", "FP32")] if exact == "FP64" else [])),
        original=lambda rows: _original(model, estimator, rows, outputs),
        description=estimators.describe(estimator),
        thresholds=steps.thresholds(estimator, inputs) if model.columns else {},
        categories=categories_of(column_transformer(estimator), estimator, [spec.name for spec in inputs])
        if model.columns
        else {},
    )


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator and all fitted ones inside it, in no particular order, each once."""
    waiting, seen = [estimator], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, np.ndarray) and part.dtype == object:
            waiting.extend(part.ravel().tolist())
        elif hasattr(part, "get_params") and not isinstance(part, type):
            yield part
            waiting.extend(vars(part).values())


def _outputs(model: Mlmodel, estimator: Any) -> tuple[tuple[TensorSpec, ...], Answer]:
    from sklearn.base import is_classifier

    if not hasattr(estimator, "predict"):
        raise StagingRefused(
            "predict_missing",
            f"{type(estimator).__name__} has no predict",
            "put an estimator at the end of the pipeline",
        )
    if is_classifier(estimator):
        classes = np.asarray(estimator.classes_)
        return classification(
            classes, has_probabilities=hasattr(estimator, "predict_proba"), predict_fn=model.predict_fn
        )
    if model.predict_fn != "predict":
        raise StagingRefused(
            "predict_fn_unsupported",
            f"predict_fn '{model.predict_fn}' is not served",
            "log with pyfunc_predict_fn='predict'",
        )
    if getattr(estimator, "_estimator_type", None) in {"clusterer", "outlier_detector"} or hasattr(
        estimator, "fit_predict"
    ):
        spec = TensorSpec(name="label", datatype="INT64", shape=(-1,))
        return (spec,), Answer(kind="other", label_output="label", scoring_outputs=("label",), scoring_form="list")
    targets = np.ravel(getattr(estimator, "n_targets_", None) or _targets(estimator))[0]
    return values(int(targets))


def _targets(estimator: Any) -> int:
    """How many values a regressor predicts a row, by the shape that its last step learned."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    last = getattr(last, "regressor_", last)
    for name in ("n_outputs_", "n_targets_"):
        if hasattr(last, name):
            return int(getattr(last, name))
    if hasattr(last, "estimators_") and type(last).__name__ == "MultiOutputRegressor":
        return len(last.estimators_)
    coefficients = np.asarray(getattr(last, "coef_", np.zeros(1)))
    return coefficients.shape[0] if coefficients.ndim == 2 else 1


def _original(model: Mlmodel, estimator: Any, rows: Rows, outputs: tuple[TensorSpec, ...]) -> Answers:
    data = call_with(model, rows)
    answers: Answers = {}
    for spec in outputs:
        match spec.name:
            case "label":
                answers["label"] = label_array(estimator.predict(data))
            case "probabilities":
                answers["probabilities"] = np.asarray(estimator.predict_proba(data))
            case _:
                answers["prediction"] = np.asarray(estimator.predict(data), np.float64)
    return answers


def _build(model: Mlmodel, estimator: Any, outputs: tuple[TensorSpec, ...], datatype: str) -> onnx.ModelProto:
    """The estimator by skl2onnx, between casts from the declared inputs and to the declared outputs."""
    from skl2onnx import to_onnx

    steps.register()
    estimator = copy.deepcopy(estimator)
    inputs = model.declared()
    core_types = _core_types(model, estimator, datatype)
    core = to_onnx(
        estimator,
        initial_types=[(name, steps.onnx_type(kind, width)) for name, (kind, width) in core_types.items()],
        options=_options(estimator),
        target_opset=dict(OPSETS),
    )
    graph = Graph()
    kinds = [kind for kind, _ in core_types.values()]
    if _is_matrix(model, estimator):
        fed = [matrix(graph, inputs, kinds[0])]
    else:
        fed = [
            spec.name if spec.datatype == kind else graph.cast(spec.name, kind)
            for spec, kind in zip(inputs, kinds, strict=True)
        ]
    # By place: skl2onnx keeps the order, but makes identifiers of names like `sepal length (cm)`.
    ports = [port.name for port in core.graph.input]
    made = list(graph.absorb(core, dict(zip(ports, fed, strict=True))).values())
    for spec, value in zip(outputs, made, strict=False):
        graph.reshape(graph.cast(value, spec.datatype), spec.shape, into=spec.name)
    return graph.model(inputs, outputs)


def _is_matrix(model: Mlmodel, estimator: Any) -> bool:
    """Whether the first step reads all columns as one matrix; otherwise it picks columns by name or type."""
    kinds = {spec.datatype == "BYTES" for spec in model.declared()}
    return not model.columns or (column_transformer(estimator) is None and len(kinds) == 1)


def column_transformer(estimator: Any) -> Any | None:
    """The ColumnTransformer that the pipeline starts with, if it does."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[0][1]
    return estimator if type(estimator).__name__ == "ColumnTransformer" else None


def _core_types(model: Mlmodel, estimator: Any, datatype: str) -> dict[str, tuple[str, int | None]]:
    """What each input of the converted core is: V2 datatype and width. Whole numbers stay whole only where they are categories."""
    inputs = model.declared()
    if _is_matrix(model, estimator):
        first = _first_step(estimator)
        is_text = inputs[0].datatype == "BYTES"
        is_whole = type(first).__name__ in _ENCODERS and all(spec.datatype in INTEGRAL for spec in inputs)
        width = len(inputs) if model.columns else inputs[0].shape[1]
        return {_CORE: ("BYTES" if is_text else "INT64" if is_whole else datatype, None if width == -1 else width)}
    encoded = categories_of(column_transformer(estimator), estimator, [spec.name for spec in inputs])
    return {
        spec.name: (
            "BYTES"
            if spec.datatype == "BYTES"
            else "INT64"
            if spec.datatype in INTEGRAL and spec.name in encoded
            else datatype,
            1,
        )
        for spec in inputs
    }


def categories_of(transformer: Any | None, estimator: Any, names: list[str]) -> dict[str, Array]:
    """What the encoders at the start of a pipeline have learned, by input column."""
    starts: list[tuple[Any, Any]] = [(estimator, names)]
    if transformer is not None:
        starts = [(step, columns) for _, step, columns in transformer.transformers_]
    found: dict[str, Array] = {}
    for step, columns in starts:
        first = _first_step(step)
        if type(first).__name__ in _ENCODERS and not isinstance(columns, slice):
            chosen = [columns] if isinstance(columns, str) else list(columns)
            for column, learned in zip(chosen, first.categories_, strict=True):
                found[column if isinstance(column, str) else names[int(column)]] = np.asarray(learned)
    return found


def _first_step(estimator: Any) -> Any:
    """The first step that changes values: imputers leave categories as they are."""
    while hasattr(estimator, "steps"):
        at = next((step for _, step in estimator.steps if type(step).__name__ != "SimpleImputer"), None)
        estimator = estimator.steps[0][1] if at is None else at
    return estimator


def _options(estimator: Any) -> dict[Any, dict[str, Any]]:
    """True division in scalers (a multiplication by the inverse crosses thresholds); the C locale, which every machine has.

    Parts of the (copied) estimator are changed where skl2onnx knows only a form of equal meaning.
    """
    from sklearn.base import is_classifier

    options: dict[Any, dict[str, Any]] = {}
    if is_classifier(estimator):
        options[id(estimator)] = {"zipmap": False}
    for part in parts(estimator):
        name = type(part).__name__
        if name in {"StandardScaler", "RobustScaler", "MaxAbsScaler"}:
            options[id(part)] = {"div": "div"}
        elif name in {"TfidfVectorizer", "CountVectorizer"}:
            options[id(part)] = {"locale": "C"}
        elif name == "VotingClassifier":
            part.flatten_transform = False
        elif name == "KBinsDiscretizer" and part.encode == "onehot":
            part.encode = "onehot-dense"
    return options
