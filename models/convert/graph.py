"""An ONNX graph written by hand: nodes and constants with unique names, other models taken in whole, and the finished model."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from models.errors import StagingRefused
from models.signature import TensorSpec
from models.tensors import Array

OPSETS: Final[Mapping[str, int]] = {"": 18, "ai.onnx.ml": 3}
"""What is written here: of both, the newest that skl2onnx 1.20 writes too, so that its pieces and ours fit one model."""

IR_VERSION: Final = 9
FILE_BYTES_MAX: Final = 2**31 - 1
"""A protobuf message cannot be larger."""

ONNX_OF: Final[Mapping[str, int]] = {
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
"""V2 datatype → ONNX element type."""

V2_OF: Final[Mapping[int, str]] = {element: datatype for datatype, element in ONNX_OF.items()}


class Graph:
    """Nodes in the order of their making. Values are named `<prefix>:<kind>:<n>`, so that they cannot meet a column's name."""

    def __init__(self, prefix: str = "runoff", opsets: Mapping[str, int] = OPSETS) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._opsets = dict(opsets)
        self._functions: list[onnx.FunctionProto] = []
        self._ir_version = IR_VERSION
        self._count = 0

    def op(self, kind: str, *inputs: str, domain: str = "", into: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output; answers the output's name, which is `into` where that is given."""
        output = into or self._name(kind)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}:node", domain=domain, **attributes))
        return output

    def constant(self, value: Array) -> str:
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def cast(self, value: str, datatype: str, into: str | None = None) -> str:
        return self.op("Cast", value, into=into, to=ONNX_OF[datatype])

    def reshape(self, value: str, shape: Iterable[int], into: str | None = None) -> str:
        return self.op("Reshape", value, self.constant(np.array(list(shape), np.int64)), into=into)

    def absorb(self, model: onnx.ModelProto, feeds: Mapping[str, str]) -> dict[str, str]:
        """Takes in a whole model, every name of it prefixed; its input `name` reads the value `feeds[name]`.

        Answers the value of each of its outputs by the output's name. The opsets of `model` hold from here on.
        """
        prefix = f"{self._name('model')}:"
        inner = onnx.compose.add_prefix(model, prefix)
        fed = {tensor.name for tensor in inner.graph.initializer}
        for spec in inner.graph.input:
            if spec.name not in fed:
                self.op("Identity", feeds[spec.name.removeprefix(prefix)], into=spec.name)
        self.nodes.extend(inner.graph.node)
        self.constants.extend(inner.graph.initializer)
        self._functions.extend(inner.functions)
        self._opsets.update({entry.domain: entry.version for entry in inner.opset_import})
        self._ir_version = max(self._ir_version, inner.ir_version)
        return {output.name.removeprefix(prefix): output.name for output in inner.graph.output}

    def model(self, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> onnx.ModelProto:
        """The finished model. Raises StagingRefused when it is larger than one file can hold."""
        graph = helper.make_graph(
            self.nodes, "runoff", list(map(value_info, inputs)), list(map(value_info, outputs)), self.constants
        )
        model = helper.make_model(
            graph,
            producer_name="runoff",
            ir_version=self._ir_version,
            functions=self._functions,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in self._opsets.items()],
        )
        if model.ByteSize() > FILE_BYTES_MAX:
            raise StagingRefused("model_too_large", f"the ONNX form has {model.ByteSize()} bytes, one file holds 2 GiB")
        return model

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self.prefix}:{kind}:{self._count}"


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """A graph's input or output; the free first dimension is called `rows`, others are unnamed."""
    shape = [("rows" if place == 0 else None) if size == -1 else size for place, size in enumerate(spec.shape)]
    return helper.make_tensor_value_info(spec.name, ONNX_OF[spec.datatype], shape)


def spec_of(info: onnx.ValueInfoProto) -> TensorSpec:
    """The reverse of `value_info`. Raises StagingRefused for sequences, maps and element types that no caller can send."""
    kind = info.type.WhichOneof("value")
    tensor = info.type.tensor_type
    if kind != "tensor_type" or tensor.elem_type not in V2_OF:
        got = TensorProto.DataType.Name(tensor.elem_type) if kind == "tensor_type" else str(kind)
        raise StagingRefused(
            "type_unsupported",
            f"'{info.name}': wanted a tensor of numbers, booleans or strings, got {got}",
            "export classifiers with the option zipmap=False",
        )
    shape = tuple(max(size.dim_value, -1) if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
    return TensorSpec(name=info.name, datatype=V2_OF[tensor.elem_type], shape=shape)
