"""What stands on top of a forest: from sums to scores, and from scores to the label that the library itself would give."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.convert.graph import Graph
from models.tensors import Array

Link = Literal["identity", "sigmoid", "softmax", "one_vs_all", "exp", "signed_square"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """`classes` (None: no labels) are the labels in the order of the scores; `divisor` divides the sums, `scale` multiplies them.

    `binary_label` says when a two-class model with one sum answers the second class; the libraries differ at exactly one half.
    """

    link: Link
    classes: Array | None = None
    divisor: float = 1.0
    scale: float = 1.0
    binary_label: Literal["sum > 0", "sum >= 0", "score > 0.5"] = "sum > 0"

    def scores(self, graph: Graph, sums: str) -> str:
        """FP32 [rows, targets] → FP32 [rows, targets]; class scores of a binary model with one sum have two columns."""
        if self.divisor != 1.0:
            sums = graph.op("Div", sums, graph.constant(np.array(self.divisor, np.float32)))
        if self.scale != 1.0:
            sums = graph.op("Mul", sums, graph.constant(np.array(self.scale, np.float32)))
        match self.link:
            case "identity":
                return sums
            case "sigmoid" | "one_vs_all":
                return graph.op("Sigmoid", sums)
            case "softmax":
                return graph.op("Softmax", sums, axis=1)
            case "exp":
                return graph.op("Exp", sums)
            case "signed_square":
                return graph.op("Mul", graph.op("Abs", sums), sums)

    def label_and_probabilities(self, graph: Graph, sums: str) -> tuple[str, str]:
        """The label [rows], of the type of `classes`, and FP32 [rows, classes]."""
        assert self.classes is not None
        scores = self.scores(graph, sums)
        if self.link != "sigmoid":
            return labelled(graph, graph.op("ArgMax", scores, axis=1, keepdims=0), self.classes), scores
        one = graph.constant(np.array(1.0, np.float32))
        judged, bound = (scores, 0.5) if self.binary_label == "score > 0.5" else (sums, 0.0)
        compare = "GreaterOrEqual" if self.binary_label == "sum >= 0" else "Greater"
        second = graph.op(compare, judged, graph.constant(np.array(bound, np.float32)))
        index = graph.reshape(graph.cast(second, "INT64"), [-1])
        both = graph.op("Concat", graph.op("Sub", one, scores), scores, axis=1)
        return labelled(graph, index, self.classes), both


def labelled(graph: Graph, index: str, classes: Array) -> str:
    """Class indexes → classes: strings stay strings, booleans booleans, floats double, and all integers become INT64."""
    table: Array
    match classes.dtype.kind:
        case "i" | "u":
            table = classes.astype(np.int64)
        case "f":
            table = classes.astype(np.float64)
        case "b":
            table = classes
        case _:
            table = np.array([str(value) for value in classes], object)
    return graph.op("Gather", graph.constant(table), index, axis=0)
