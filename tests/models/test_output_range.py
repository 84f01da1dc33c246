import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.output_range import differences
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey, StagedModel

ROWS = {"x": np.linspace(-1, 1, 200, dtype=np.float32).reshape(-1, 1)}
SCORES = Answer(kind="classification", score_output="y", classes=(0, 1))


@pytest.fixture
def staged(tmp_path):
    """Stages y = factor · x + offset, or what `operation` makes of x."""

    def stage(version, factor=1.0, offset=0.0, *, operation=None, answer=None):
        nodes = [
            helper.make_node("Mul", ["x", "factor"], ["product"]),
            helper.make_node("Add", ["product", "offset"], ["y" if operation is None else "sum"]),
        ]
        if operation:
            nodes.append(helper.make_node(operation, ["sum"], ["y"]))
        graph = helper.make_graph(
            nodes,
            "line",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
            [
                numpy_helper.from_array(np.float32([factor]), "factor"),
                numpy_helper.from_array(np.float32([offset]), "offset"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
        onnx.checker.check_model(model)
        digest = hashlib.sha256(model).hexdigest()
        (tmp_path / digest).mkdir(exist_ok=True)
        (tmp_path / digest / "model.onnx").write_bytes(model)
        return StagedModel(
            key=ModelKey("line", version),
            digest=digest,
            uri=f"models:/line/{version}",
            flavor="onnx",
            file="model.onnx",
            file_sha256="",
            size_bytes=len(model),
            signature=Signature(
                inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 1)),),
                outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
            ),
            answer=answer or Answer(),
        )

    return stage


def test_a_version_that_answers_in_the_same_range_passes(staged, tmp_path):
    assert differences(staged("1", 10), staged("2", 14, 3), tmp_path, ROWS) == []


def test_another_unit_of_measure_is_found(staged, tmp_path):
    (problem,) = differences(staged("1", 10), staged("2", 600), tmp_path, ROWS)
    assert "output 'y' on 200 recorded rows" in problem
    assert "-588" in problem
    assert "-10" in problem


def test_logits_in_place_of_chances_are_found_and_sharper_chances_are_not(staged, tmp_path):
    chances = staged("1", 2, operation="Sigmoid", answer=SCORES)
    assert differences(chances, staged("2", 40, operation="Sigmoid", answer=SCORES), tmp_path, ROWS) == []
    assert differences(chances, staged("3", 2, answer=SCORES), tmp_path, ROWS)


def test_answers_that_are_not_finite_are_found(staged, tmp_path):
    (problem,) = differences(staged("1"), staged("2", operation="Log"), tmp_path, ROWS)
    assert "not finite" in problem


def test_without_recorded_rows_the_serving_versions_samples_are_taken(staged, tmp_path):
    assert differences(staged("1", 0, 1), staged("2", 0, 500), tmp_path) != []
    assert "sample rows" in differences(staged("1", 0, 1), staged("2", 0, 500), tmp_path)[0]


def test_a_few_rows_far_out_are_no_fault_of_the_version(staged, tmp_path):
    rows = {"x": np.concatenate([ROWS["x"], np.float32([[0.0]])])}
    assert differences(staged("1", 0, 5), staged("2", 0, 5, operation="Relu"), tmp_path, rows) == []


def test_zeros_say_nothing_of_what_is_usual(staged, tmp_path):
    assert differences(staged("1", 0), staged("2", 0, 7), tmp_path, ROWS) == []
