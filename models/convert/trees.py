"""Decision trees of any family as one exact ONNX node: thresholds, leaves and sums in double, whatever the inputs are.

The converters of the libraries cut thresholds to float32, so that rows beside a threshold fall to the other side (ECOSYSTEM.md
measured 8e-4 for LightGBM). `TreeEnsembleRegressor` of ai.onnx.ml 3 takes thresholds and weights as double tensors; ONNX Runtime
then compares and adds in double, and rounds only the finished sum to float32.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from onnx import numpy_helper

from models.convert.graph import Graph
from models.tensors import Array

Mode = Literal["BRANCH_LEQ", "BRANCH_LT", "BRANCH_EQ"]

_LEAF: Final = "LEAF"


@dataclass(slots=True)
class Forest:
    """Trees over `features` columns that add up to `targets` numbers a row, starting from `base`.

    A node goes to `true` when `x <mode> value` holds; NaN goes there when `nan_true`. Node ids count within a tree from 0, the root.
    Features in `whole_numbers` are categories: cut to whole numbers towards zero first.
    `narrow`: the library itself compares float32 inputs, so these are rounded first.
    """

    features: int
    targets: int
    base: tuple[float, ...]
    narrow: bool = False
    tree: list[int] = field(default_factory=list)
    node: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    mode: list[str] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    nan_true: list[int] = field(default_factory=list)
    leaf_tree: list[int] = field(default_factory=list)
    leaf_node: list[int] = field(default_factory=list)
    leaf_target: list[int] = field(default_factory=list)
    leaf_weight: list[float] = field(default_factory=list)
    whole_numbers: set[int] = field(default_factory=set)

    def branch(
        self, at: tuple[int, int], feature: int, mode: Mode, value: float, *, true: int, false: int, nan_true: bool
    ) -> None:
        """Adds the branch `at` = (tree, node)."""
        self._node(at, feature, mode, value, true, false, nan_true=nan_true)

    def leaf(self, at: tuple[int, int], weights: dict[int, float]) -> None:
        """Adds the leaf `at` = (tree, node); `weights` by target."""
        self._node(at, 0, _LEAF, 0.0, 0, 0, nan_true=False)
        for target, weight in weights.items():
            self.leaf_tree.append(at[0])
            self.leaf_node.append(at[1])
            self.leaf_target.append(target)
            self.leaf_weight.append(float(weight))

    def thresholds(self) -> dict[int, Array]:
        """The distinct split values of each feature, ascending, as double."""
        by_feature: dict[int, set[float]] = {}
        for feature, mode, value in zip(self.feature, self.mode, self.value, strict=True):
            if mode != _LEAF and np.isfinite(value):
                by_feature.setdefault(feature, set()).add(value)
        return {feature: np.array(sorted(values), np.float64) for feature, values in by_feature.items()}

    def emit(self, graph: Graph, inputs: str) -> str:
        """Adds the node that reads `inputs` (FP64 [rows, features]); answers the sums, FP32 [rows, targets]."""
        if self.narrow:
            inputs = graph.cast(graph.cast(inputs, "FP32"), "FP64")
        if self.whole_numbers:
            inputs = self._cut(graph, inputs)
        return graph.op(
            "TreeEnsembleRegressor",
            inputs,
            domain="ai.onnx.ml",
            n_targets=self.targets,
            aggregate_function="SUM",
            post_transform="NONE",
            base_values_as_tensor=_doubles("base_values", self.base),
            nodes_treeids=self.tree,
            nodes_nodeids=self.node,
            nodes_featureids=self.feature,
            nodes_modes=self.mode,
            nodes_values_as_tensor=_doubles("nodes_values", self.value),
            nodes_truenodeids=self.true,
            nodes_falsenodeids=self.false,
            nodes_missing_value_tracks_true=self.nan_true,
            target_treeids=self.leaf_tree,
            target_nodeids=self.leaf_node,
            target_ids=self.leaf_target,
            target_weights_as_tensor=_doubles("target_weights", self.leaf_weight),
        )

    def _cut(self, graph: Graph, inputs: str) -> str:
        is_category = np.isin(np.arange(self.features), sorted(self.whole_numbers))[np.newaxis]
        below = graph.op("Less", inputs, graph.constant(np.array(0.0)))
        whole = graph.op("Where", below, graph.op("Ceil", inputs), graph.op("Floor", inputs))
        return graph.op("Where", graph.constant(is_category), whole, inputs)

    def _node(
        self, at: tuple[int, int], feature: int, mode: str, value: float, true: int, false: int, *, nan_true: bool
    ) -> None:
        self.tree.append(at[0])
        self.node.append(at[1])
        self.feature.append(int(feature))
        self.mode.append(mode)
        self.value.append(float(value))
        self.true.append(int(true))
        self.false.append(int(false))
        self.nan_true.append(int(nan_true))


def _doubles(name: str, values: list[float] | tuple[float, ...]) -> object:
    return numpy_helper.from_array(np.array(values, np.float64), name)
