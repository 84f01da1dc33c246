"""ONNX files as a data scientist would leave them in a folder, small enough to be staged in a second."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COLUMNS = 4
ANSWER = [
    helper.make_node("Sigmoid", ["sum"], ["p"]),
    helper.make_node("Sub", ["one", "p"], ["q"]),
    helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
    helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
]
"""From one sum a row to its label and probabilities."""


def binary(path: Path, *weights: float, bias: float = 0.0, classes: tuple[int, int] = (0, 1)) -> str:
    """`x` FP32 [-1, len(weights)] → `label` INT64 [-1], `probabilities` FP32 [-1, 2]: a logistic regression. Answers the path."""
    weights = weights or (1.0,) * COLUMNS
    column = np.array(weights, np.float32)[:, None]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        *ANSWER,
    ]
    constants = {"w": column, "b": np.array([[bias]], np.float32), "one": np.ones((1, 1), np.float32)}
    return _write(path, nodes, constants, len(weights), classes)


def constants(columns: int, *weights: float) -> dict[str, np.ndarray]:
    """`w` and `one`, which a graph that ends in ANSWER needs."""
    return {"w": array([weights or (1.0,) * columns]).T, "one": array([[1.0]])}


def array(values: object, dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype)


def slow(path: Path, turns: int = 20_000) -> str:
    """As `binary`, behind a loop that does nothing so often: at a million turns a second on a quick machine."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Mul", ["v", "k"], ["w_out"])],
        "nothing",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["rows", 1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w_out", TensorProto.FLOAT, ["rows", 1]),
        ],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["first"]),
        helper.make_node("Loop", ["turns", "yes", "first"], ["sum"], body=body),
        *ANSWER,
    ]
    constants = {
        "w": np.ones((COLUMNS, 1), np.float32),
        "k": np.ones((1, 1), np.float32),
        "turns": np.array(turns, np.int64),
        "yes": np.array(True),
        "one": np.ones((1, 1), np.float32),
    }
    return _write(path, nodes, constants, COLUMNS, (0, 1))


def poisoned(path: Path) -> str:
    """As `binary`, but a row whose first value is 666 makes the run fail: it is to be reshaped to seven columns."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["head"], axis=1),
        helper.make_node("Equal", ["head", "poison"], ["is_bad"]),
        helper.make_node("Cast", ["is_bad"], ["bad"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["bad"], ["any_bad"], keepdims=1),
        helper.make_node("Mul", ["any_bad", "three"], ["more"]),
        helper.make_node("Add", ["more", "four"], ["width"]),
        helper.make_node("Concat", ["free", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["clean"]),
        helper.make_node("MatMul", ["clean", "w"], ["sum"]),
        *ANSWER,
    ]
    whole = {
        "first": array(0, "int64"),
        "three": array([3], "int64"),
        "four": array([4], "int64"),
        "free": array([-1], "int64"),
    }
    return _write(path, nodes, {**whole, "poison": array(666), **constants(COLUMNS)}, COLUMNS, (0, 1))


def graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], columns: int) -> onnx.ModelProto:
    """A model with the inputs and outputs of `binary`."""
    made = helper.make_graph(
        nodes,
        "binary",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", columns])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _write(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], columns: int, classes: tuple[int, int]
) -> str:
    model = graph(nodes, constants, columns)
    helper.set_model_props(model, {"runoff.classes": str(list(classes))})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return str(path)
