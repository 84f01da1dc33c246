"""scikit-learn's trees, forests and gradient boosting as exact forests: float32 inputs against double thresholds, as its own trees do."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from models.convert.heads import Head, Link
from models.convert.trees import Forest
from models.errors import StagingRefused

TREES = ("DecisionTree", "ExtraTree")
FORESTS = ("RandomForest", "ExtraTrees")


def forest_of(estimator: Any) -> tuple[Forest, Head]:
    """The forest and head of one estimator of `sklearn.tree` or `sklearn.ensemble`, by the name of its class."""
    name = type(estimator).__name__
    family = name.removesuffix("Classifier").removesuffix("Regressor")
    if family in TREES:
        return _averaged(estimator, [estimator])
    if family in FORESTS:
        return _averaged(estimator, estimator.estimators_)
    if family == "GradientBoosting":
        return _boosted(estimator)
    if family == "HistGradientBoosting":
        return _histogram_boosted(estimator)
    raise StagingRefused("trees_unsupported", f"{name} is no tree model known here")


def _averaged(estimator: Any, trees: Iterable[Any]) -> tuple[Forest, Head]:
    """Leaves hold class shares (or one value); the answer is their mean over the trees."""
    if estimator.n_outputs_ != 1 and hasattr(estimator, "classes_"):
        raise StagingRefused(
            "trees_unsupported", "classifiers with several outputs have no ONNX form here", "train one model per output"
        )
    classes = getattr(estimator, "classes_", None)
    targets = len(classes) if classes is not None else int(estimator.n_outputs_)
    forest = Forest(features=int(estimator.n_features_in_), targets=targets, base=(0.0,) * targets, narrow=True)
    count = 0
    for number, member in enumerate(trees):
        values = member.tree_.value[:, 0, :] if classes is not None else member.tree_.value[:, :, 0]
        _add(forest, number, member.tree_, values if classes is None else values / values.sum(axis=1, keepdims=True))
        count += 1
    return forest, Head(link="identity", classes=classes, divisor=float(count))


def _add(forest: Forest, number: int, tree: Any, values: Any, target: int = 0, weight: float = 1.0) -> None:
    """`values` has one row a node and one column a target, from `target` on."""
    nan_left = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count, bool))
    for node in range(tree.node_count):
        at = (number, node)
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left == right:
            forest.leaf(
                at, {target + place: value * weight for place, value in enumerate(values[node]) if value or not place}
            )
        else:
            forest.branch(
                at,
                tree.feature[node],
                "BRANCH_LEQ",
                tree.threshold[node],
                true=left,
                false=right,
                nan_true=bool(nan_left[node]),
            )


def _boosted(estimator: Any) -> tuple[Forest, Head]:
    stages = estimator.estimators_
    targets = stages.shape[1]
    if estimator.init_ != "zero" and type(estimator.init_).__name__ not in {"DummyClassifier", "DummyRegressor"}:
        raise StagingRefused(
            "trees_unsupported",
            "gradient boosting that starts from another model has no ONNX form here",
            "train with init=None",
        )
    # What it starts from does not depend on the row.
    base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))  # noqa: SLF001 - the library has no public way
    forest = Forest(
        features=int(estimator.n_features_in_), targets=targets, base=tuple(map(float, base.ravel())), narrow=True
    )
    for number, member in enumerate(stages.ravel()):
        values = member.tree_.value[:, 0, :]
        _add(forest, number, member.tree_, values, target=number % targets, weight=float(estimator.learning_rate))
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return forest, Head(link="identity")
    if estimator.loss == "exponential":
        return forest, Head(link="sigmoid", scale=2.0, classes=classes, binary_label="sum >= 0")
    return forest, Head(link="sigmoid" if targets == 1 else "softmax", classes=classes, binary_label="sum >= 0")


def _histogram_boosted(estimator: Any) -> tuple[Forest, Head]:
    """Compares doubles, and reads NaN; its categories are refused: they are encoded before the trees see them."""
    if estimator.is_categorical_ is not None:
        raise StagingRefused(
            "trees_unsupported",
            "HistGradientBoosting with categorical features has no ONNX form here",
            "encode them in a pipeline before it",
        )
    targets = int(estimator.n_trees_per_iteration_)
    base = np.broadcast_to(np.asarray(estimator._baseline_prediction, np.float64).ravel(), targets)  # noqa: SLF001 - no public way
    forest = Forest(features=int(estimator.n_features_in_), targets=targets, base=tuple(map(float, base)))
    stages = estimator._predictors  # noqa: SLF001 - the library has no public way
    for number, predictor in enumerate(member for stage in stages for member in stage):
        for node, entry in enumerate(predictor.nodes):
            at = (number, node)
            if entry["is_leaf"]:
                forest.leaf(at, {number % targets: float(entry["value"])})
            else:
                forest.branch(
                    at,
                    int(entry["feature_idx"]),
                    "BRANCH_LEQ",
                    float(entry["num_threshold"]),
                    true=int(entry["left"]),
                    false=int(entry["right"]),
                    nan_true=bool(entry["missing_go_to_left"]),
                )
    classes = getattr(estimator, "classes_", None)
    if classes is not None:
        return forest, Head(link="sigmoid" if targets == 1 else "softmax", classes=classes)
    link: Link = "exp" if estimator.loss in {"poisson", "gamma"} else "identity"
    return forest, Head(link=link)
