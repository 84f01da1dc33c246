"""XGBoost: a Booster read from its own JSON; float32 inputs and thresholds, as the library compares."""

import json
from typing import Any, Final

import numpy as np

from models.convert.heads import Head, Link
from models.convert.trees import Forest
from models.errors import StagingRefused

_LINKS: Final[dict[str, Link]] = {
    "binary:logistic": "sigmoid",
    "reg:logistic": "sigmoid",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:aft": "exp",
    "survival:cox": "exp",
    "binary:logitraw": "identity",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "rank:pairwise": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
}


def objective_of(booster: Any) -> str:
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])


def forest_of(booster: Any) -> tuple[Forest, Head]:
    """The trees of an `xgboost.Booster` and its link. Raises StagingRefused for what has no exact form (linear boosters, categories)."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        raise StagingRefused("objective_unsupported", f"XGBoost objective '{objective}' has no ONNX form here")
    link = _LINKS[objective]
    model, weights = _trees_of(learner["gradient_booster"])
    parameters = learner["learner_model_param"]
    targets = max(1, int(parameters["num_class"]), int(parameters["num_target"]))
    forest = Forest(
        features=int(parameters["num_feature"]),
        targets=targets,
        base=_base(parameters["base_score"], targets, link),
        narrow=True,
    )
    for number, (tree, target) in enumerate(zip(model["trees"], model["tree_info"], strict=True)):
        _add(forest, number, int(target), tree, weights[number] if weights else 1.0)
    return forest, Head(link=link, binary_label="score > 0.5")


def _trees_of(booster: dict[str, Any]) -> tuple[dict[str, Any], list[float]]:
    match booster["name"]:
        case "gbtree":
            return booster["model"], []
        case "dart":
            return booster["gbtree"]["model"], booster["weight_drop"]
        case name:
            raise StagingRefused(
                "trees_unsupported", f"XGBoost booster '{name}' has no ONNX form here", "train with booster='gbtree'"
            )


def _base(text: str, targets: int, link: Link) -> tuple[float, ...]:
    """`base_score` is kept as an answer; sums start from what the link makes of it (`ObjFunction::ProbToMargin`)."""
    scores = np.atleast_1d(np.asarray(json.loads(text), np.float32))
    if link == "sigmoid":
        scores = -np.log(np.float32(1.0) / scores - np.float32(1.0))
    elif link == "exp":
        scores = np.log(scores)
    return tuple(float(score) for score in np.broadcast_to(scores, targets))


def _add(forest: Forest, number: int, target: int, tree: dict[str, Any], weight: float) -> None:
    if any(tree["split_type"]):
        raise StagingRefused(
            "trees_unsupported",
            "XGBoost splits on categories have no MLflow column type",
            "train with enable_categorical=False",
        )
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise StagingRefused(
            "trees_unsupported",
            "XGBoost leaves with several outputs have no ONNX form here",
            "use multi_strategy='one_output_per_tree'",
        )
    values = np.asarray(tree["split_conditions"], np.float32).astype(np.float64)
    for node, left in enumerate(tree["left_children"]):
        at = (number, node)
        if left == -1:
            forest.leaf(at, {target: values[node] * weight})
        else:
            forest.branch(
                at,
                tree["split_indices"][node],
                "BRANCH_LT",
                values[node],
                true=left,
                false=tree["right_children"][node],
                nan_true=bool(tree["default_left"][node]),
            )
