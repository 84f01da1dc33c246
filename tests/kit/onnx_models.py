"""Small real ONNX models, made in milliseconds, whose answers a test can work out by hand."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.signature import Answer, Signature, TensorSpec
from models.tensors import V2_OF_ONNX

_ONNX_TYPE: Final = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
assert set(_ONNX_TYPE) == set(V2_OF_ONNX.values())


class MadeModel:
    """A model with the signature and the answer that staging would write for it."""

    def __init__(self, model: bytes, signature: Signature, answer: Answer) -> None:
        self.model = model
        self.signature = signature
        self.answer = answer


def spec(name: str, datatype: str, *shape: int, optional: bool = False) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, optional=optional)


def classifier() -> MadeModel:
    """`x` FP32 [-1, 4] → `label` INT64 [-1], `probabilities` FP32 [-1, 2]: class 1 where the sum of the features is above 0."""
    weights = np.array([[-1, 1]] * 4, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    signature = Signature(
        inputs=(spec("x", "FP32", -1, 4),), outputs=(spec("label", "INT64", -1), spec("probabilities", "FP32", -1, 2))
    )
    answer = Answer(
        kind="classification",
        label_output="label",
        score_output="probabilities",
        classes=(0, 1),
        scoring_outputs=("label",),
        scoring_form="list",
    )
    return MadeModel(_model(nodes, signature, [numpy_helper.from_array(weights, "w")]), signature, answer)


def columns() -> MadeModel:
    """`age` FP64, `visits` INT64, `plan` BYTES, `bonus` FP64 (optional): `score` FP64 [-1] = age + visits, `plan_out` = plan."""
    nodes = [
        helper.make_node("Cast", ["visits"], ["visits_double"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["age", "visits_double"], ["sum"]),
        helper.make_node("Reshape", ["sum", "flat"], ["score"]),
        helper.make_node("Reshape", ["plan", "flat"], ["plan_out"]),
        helper.make_node("Reshape", ["bonus", "flat"], ["bonus_out"]),
    ]
    signature = Signature(
        inputs=(
            spec("age", "FP64", -1, 1),
            spec("visits", "INT64", -1, 1),
            spec("plan", "BYTES", -1, 1),
            spec("bonus", "FP64", -1, 1, optional=True),
        ),
        outputs=(spec("score", "FP64", -1), spec("plan_out", "BYTES", -1), spec("bonus_out", "FP64", -1)),
        columns=True,
    )
    answer = Answer(scoring_outputs=("score", "plan_out"), scoring_form="records")
    flat = numpy_helper.from_array(np.array([-1], dtype=np.int64), "flat")
    return MadeModel(_model(nodes, signature, [flat]), signature, answer)


def echo(datatype: str, shape: Sequence[int] = (-1, -1)) -> MadeModel:
    """`x` → `y`, unchanged."""
    signature = Signature(inputs=(spec("x", datatype, *shape),), outputs=(spec("y", datatype, *shape),))
    node = helper.make_node("Identity", ["x"], ["y"])
    return MadeModel(_model([node], signature, []), signature, Answer(scoring_outputs=("y",), scoring_form="columns"))


def whole() -> MadeModel:
    """`x` FP32 [-1, 2] → `total` FP32 [], the sum of all rows, and `four` FP32 [4], four times that: no output has a row for each row."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Expand", ["total", "size"], ["four"]),
    ]
    signature = Signature(inputs=(spec("x", "FP32", -1, 2),), outputs=(spec("total", "FP32"), spec("four", "FP32", 4)))
    size = numpy_helper.from_array(np.array([4], np.int64), "size")
    answer = Answer(scoring_outputs=("four",), scoring_form="columns")
    return MadeModel(_model(nodes, signature, [size]), signature, answer)


def failing() -> MadeModel:
    """`x` INT64 [-1, 1] → `y`: fails inside ONNX Runtime for any index above 1, by reading outside a table of two."""
    node = helper.make_node("Gather", ["table", "x"], ["y"], axis=0)
    table = numpy_helper.from_array(np.array([10.0, 20.0], dtype=np.float32), "table")
    signature = Signature(inputs=(spec("x", "INT64", -1, 1),), outputs=(spec("y", "FP32", -1, 1),))
    return MadeModel(
        _model([node], signature, [table]), signature, Answer(scoring_outputs=("y",), scoring_form="matrix")
    )


def turning() -> MadeModel:
    """`x` INT64 [-1, 1] → `y` = x + 1, after as many turns of a loop as the largest `x` says."""
    number, flag = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["one"], ["same"])],
        "turn",
        [
            helper.make_tensor_value_info("turn", number, []),
            helper.make_tensor_value_info("go", flag, []),
            helper.make_tensor_value_info("one", number, [1]),
        ],
        [helper.make_tensor_value_info("on", flag, []), helper.make_tensor_value_info("same", number, [1])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["turns"], keepdims=0),
        helper.make_node("Loop", ["turns", "", "unit"], ["left"], body=body),
        helper.make_node("Add", ["x", "left"], ["y"]),
    ]
    signature = Signature(inputs=(spec("x", "INT64", -1, 1),), outputs=(spec("y", "INT64", -1, 1),))
    unit = numpy_helper.from_array(np.array([1], np.int64), "unit")
    return MadeModel(_model(nodes, signature, [unit]), signature, Answer(scoring_outputs=("y",), scoring_form="matrix"))


def _model(nodes: list[onnx.NodeProto], signature: Signature, initializers: list[onnx.TensorProto]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "made",
        [_value(one) for one in signature.inputs],
        [_value(one) for one in signature.outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _value(one: TensorSpec) -> onnx.ValueInfoProto:
    dims = [f"{one.name}_{place}" if length == -1 else length for place, length in enumerate(one.shape)]
    return helper.make_tensor_value_info(one.name, _ONNX_TYPE[one.datatype], dims)
