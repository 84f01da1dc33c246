"""LightGBM: a Booster or scikit-learn estimator read node by node, so that its double thresholds survive."""

from typing import Any, Final

import numpy as np

from models.convert.heads import Head, Link
from models.convert.trees import Forest
from models.errors import StagingRefused

_IDENTITY: Final = frozenset(
    {"regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom"}
)
_LINKS: Final[dict[str, Link]] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "one_vs_all",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
}
_ZERO: Final = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold. Its predictor drops values up to it from a row, so that they count as zero."""


def forest_of(booster: Any) -> tuple[Forest, Head]:
    """The trees of a `lightgbm.Booster` up to its best iteration, and its link. Raises StagingRefused for linear trees and such."""
    dump = booster.dump_model()
    targets = int(dump["num_tree_per_iteration"])
    trees = dump["tree_info"]
    forest = Forest(features=booster.num_feature(), targets=targets, base=(0.0,) * targets)
    for number, tree in enumerate(trees):
        _add(forest, number, number % targets, tree["tree_structure"])
    divisor = len(trees) / targets if dump.get("average_output") else 1.0
    return forest, _head(dump.get("objective") or "custom", divisor)


def _head(objective: str, divisor: float) -> Head:
    name, *options = objective.split(" ")
    scale = next((float(option.removeprefix("sigmoid:")) for option in options if option.startswith("sigmoid:")), 1.0)
    if name in _LINKS:
        return Head(link=_LINKS[name], divisor=divisor, scale=scale)
    if name in _IDENTITY:
        return Head(link="signed_square" if "sqrt" in options else "identity", divisor=divisor)
    raise StagingRefused("objective_unsupported", f"LightGBM objective '{name}' has no ONNX form here")


def _add(forest: Forest, tree: int, target: int, root: dict[str, Any]) -> None:
    """Adds one tree. A categorical split `x in {a, b}` becomes a chain of equalities that share their true branch."""
    waiting = [(root, 0)]
    used = 1
    while waiting:
        split, node = waiting.pop()
        if "leaf_value" in split:
            if "leaf_coeff" in split:
                raise StagingRefused(
                    "trees_unsupported", "LightGBM linear trees have no ONNX form here", "train with linear_tree=False"
                )
            forest.leaf((tree, node), {target: split["leaf_value"]})
            continue
        left, right = used, used + 1
        used += 2
        waiting += [(split["left_child"], left), (split["right_child"], right)]
        feature = int(split["split_feature"])
        if split["decision_type"] == "==":
            forest.whole_numbers.add(feature)
            categories = [float(value) for value in str(split["threshold"]).split("||")]
            for place, category in enumerate(categories):
                is_last = place == len(categories) - 1
                following = right if is_last else used
                forest.branch((tree, node), feature, "BRANCH_EQ", category, true=left, false=following, nan_true=False)
                if not is_last:
                    node, used = used, used + 1
        else:
            threshold = _beyond_zero(float(split["threshold"]))
            nan_left = _nan_goes_left(split, threshold)
            forest.branch((tree, node), feature, "BRANCH_LEQ", threshold, true=left, false=right, nan_true=nan_left)


def _beyond_zero(threshold: float) -> float:
    """A threshold inside what counts as zero, moved to the edge that lets all of it go where zero goes."""
    if abs(threshold) > _ZERO:
        return threshold
    return _ZERO if threshold >= 0.0 else float(np.nextafter(-_ZERO, -np.inf))


def _nan_goes_left(split: dict[str, Any], threshold: float) -> bool:
    """LightGBM's `Tree::NumericalDecision`: without missing values in training NaN counts as zero."""
    match split["missing_type"]:
        case "NaN":
            return bool(split["default_left"])
        case "Zero":
            if bool(split["default_left"]) != (threshold >= 0.0):
                raise StagingRefused(
                    "trees_unsupported",
                    "LightGBM's zero_as_missing has no exact ONNX form",
                    "train with zero_as_missing=False",
                )
            return bool(split["default_left"])
        case _:
            return bool(threshold >= 0.0)


def classes_of(booster: Any, classes: Any) -> np.ndarray[Any, Any]:
    """The labels of an estimator, or 0 to k - 1 for a bare Booster of `k` classes."""
    if classes is not None:
        return np.asarray(classes)
    return np.arange(max(2, int(booster.num_model_per_iteration())))
