"""The session says what is wrong in the words of `models.errors`, and nothing of the caller's data."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from models.errors import ArtifactInvalid, InputInvalid
from models.runtime.onnx import OnnxSession
from models.staged import Setting
from tests.kit.staged import stage_linear


def test_outputs_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path)
    session = OnnxSession(tmp_path / staged.digest / staged.file)
    probabilities, label = session.run([np.array([[1, 2]], np.float32)], ["probabilities", "label"])
    assert label.tolist() == [1]
    assert probabilities.sum() == pytest.approx(1)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ArtifactInvalid, match=r"ONNX Runtime cannot load model\.onnx"):
        OnnxSession(tmp_path / "model.onnx")


def test_what_only_the_model_can_refuse_is_the_callers_to_mend(tmp_path: Path) -> None:
    staged = stage_linear(tmp_path, check_row=True)
    session = OnnxSession(tmp_path / staged.digest / staged.file)
    with pytest.raises(InputInvalid, match="out of data bounds") as refused:
        session.run([np.array([[666, 2]], np.float32)], ["label"])
    assert "666" not in str(refused.value)
    with pytest.raises(InputInvalid):
        session.run([np.array([[1, 2, 3]], np.float32)], ["label"])


@pytest.mark.parametrize("setting", [Setting(threads=2), Setting(arena=False), Setting(optimisation="basic")])
def test_every_setting_answers_the_same(tmp_path: Path, setting: Setting) -> None:
    staged = stage_linear(tmp_path)
    path = tmp_path / staged.digest / staged.file
    row, names = [np.array([[1, 2]], np.float32)], ["probabilities"]
    (plain,), (tuned,) = OnnxSession(path).run(row, names), OnnxSession(path, setting).run(row, names)
    assert plain == pytest.approx(tuned)


def test_a_file_with_a_fixed_number_of_rows_takes_any(tmp_path: Path) -> None:
    """Cut, filled up with the last row, and joined: three runs of four rows for nine."""
    nodes = [helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), helper.make_node("Add", ["d", "d"], ["y"])]
    shape = [4, 2]
    graph = helper.make_graph(
        nodes,
        "four",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, shape)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "four.onnx").write_bytes(made.SerializeToString())
    session = OnnxSession(tmp_path / "four.onnx")
    assert session.size == 4
    for rows in (1, 3, 4, 5, 8, 9):
        x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        (y,) = session.run([x], ["y"])
        np.testing.assert_array_equal(y, 2.0 * x)


def test_a_model_without_inputs_answers_what_it_holds(tmp_path: Path) -> None:
    value = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    node = helper.make_node("Constant", [], ["y"], value=value)
    graph = helper.make_graph([node], "constant", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    assert [output.tolist() for output in OnnxSession(tmp_path / "model.onnx").run([], ["y"])] == [[1.0]]


def test_a_file_of_a_later_opset_is_refused_with_what_is_known_here(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy")
    graph = helper.make_graph([node], "late", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 99)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(
        ArtifactInvalid, match=r"cannot load model\.onnx: ONNX Runtime only .* Opset 99 is under develop"
    ):
        OnnxSession(tmp_path / "model.onnx")
