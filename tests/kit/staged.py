"""Small real models, made with onnx.helper and staged as `models.staging` would: an artifact folder that a worker can load."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey, StagedModel
from tests.kit.onnx_models import MadeModel


def stage_linear(
    artifacts: Path,
    *,
    name: str = "line",
    version: str = "1",
    columns: int = 2,
    slope: float = 1.0,
    check_row: bool = False,
) -> StagedModel:
    """`score = sigmoid(slope · Σ x)`, `label = score > 0.5`; inputs `x` FP32 [-1, columns].

    `check_row`: a row whose first value is 666 makes the run fail (an index out of range), as a poisoned row would.
    """
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    initializers = [
        numpy_helper.from_array(np.full((columns, 1), slope, np.float32), "w"),
        numpy_helper.from_array(np.ones((1, 1), np.float32), "one"),
    ]
    if check_row:
        nodes[:1] = [
            helper.make_node("Gather", ["x", "first"], ["head"], axis=1),
            helper.make_node("Equal", ["head", "poison"], ["is_bad"]),
            helper.make_node("Cast", ["is_bad"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["zero", "place"], ["nothing"], axis=0),
            helper.make_node("Unsqueeze", ["nothing", "inner"], ["nought"]),
            helper.make_node("Add", ["x", "nought"], ["clean"]),
            helper.make_node("MatMul", ["clean", "w"], ["sum"]),
        ]
        initializers += [
            numpy_helper.from_array(np.array(0, np.int64), "first"),
            numpy_helper.from_array(np.array(666, np.float32), "poison"),
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
            numpy_helper.from_array(np.array([1], np.int64), "inner"),
        ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        initializers,
    )
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, columns)),),
        outputs=(
            TensorSpec(name="label", datatype="INT64", shape=(-1,)),
            TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 2)),
        ),
    )
    answer = Answer(
        kind="classification",
        label_output="label",
        score_output="probabilities",
        classes=(0, 1),
        scoring_outputs=("label",),
        scoring_form="list",
    )
    return write(artifacts, graph, signature, answer, ModelKey(name, version))


def stage_dense(artifacts: Path, *, width: int, layers: int, name: str = "dense") -> StagedModel:
    """`y` = x through so many square layers (each width² × 4 bytes) with ReLU between them; `x` and `y` FP32 [-1, width]."""
    random = np.random.default_rng(0)
    weights = [random.normal(0, width**-0.5, (width, width)).astype(np.float32) for _ in range(layers)]
    nodes, last = [], "x"
    for place in range(layers):
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"h{place}"]))
        nodes.append(helper.make_node("Relu", [f"h{place}"], [f"a{place}"]))
        last = f"a{place}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, width])],
        [numpy_helper.from_array(matrix, f"w{place}") for place, matrix in enumerate(weights)],
    )
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, width)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, width)),),
    )
    return write(artifacts, graph, signature, Answer(kind="regression", score_output="y"), ModelKey(name, "1"))


def write(
    artifacts: Path,
    graph: onnx.GraphProto,
    signature: Signature,
    answer: Answer,
    key: ModelKey,
    *,
    opsets: list[onnx.OperatorSetIdProto] | None = None,
) -> StagedModel:
    """Writes a graph and its manifest as an artifact, by the digest of its bytes. `opsets`: of other domains than ONNX's own, too."""
    model = helper.make_model(graph, opset_imports=opsets or [helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return _write(artifacts, model.SerializeToString(), signature, answer, key)


def stage_made(artifacts: Path, made: MadeModel, key: ModelKey) -> StagedModel:
    """One of `tests.kit.onnx_models` as an artifact."""
    return _write(artifacts, made.model, made.signature, made.answer, key)


def _write(artifacts: Path, content: bytes, signature: Signature, answer: Answer, key: ModelKey) -> StagedModel:
    digest = sha256(content + str(key).encode()).hexdigest()
    folder = artifacts / digest
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    staged = StagedModel(
        key=key,
        digest=digest,
        uri=f"models:/{key.name}/{key.version}",
        flavor="onnx",
        file="model.onnx",
        file_sha256=sha256(content).hexdigest(),
        size_bytes=len(content),
        signature=signature,
        answer=answer,
    )
    staged.write(folder)
    return staged
