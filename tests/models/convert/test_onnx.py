"""ONNX files are checked before they are believed, and read as their author would read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.convert import onnx as onnx_room
from models.convert.mlmodel import Mlmodel
from models.convert.parity import session
from models.errors import StagingRefused
from models.signature import TensorSpec
from tests.kit.registered import doubled


def info(name: str, kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("rows", 2)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Any = (), **properties: str
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "made", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("evil", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(made, properties)
    return made


def classifier(shape: tuple[Any, ...] = ("rows",), zip_map: bool = False, **properties: str) -> onnx.ModelProto:
    """A linear classifier of the labels 7 and 8 with two columns `x`."""
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores" if zip_map else "probabilities"],
            domain="ai.onnx.ml",
            coefficients=[1.0, 0.0, 0.0, 1.0],
            intercepts=[0.0, 0.0],
            classlabels_ints=[7, 8],
            post_transform="SOFTMAX",
        )
    ]
    outputs = [info("label", TensorProto.INT64, shape), info("probabilities")]
    if zip_map:
        nodes.append(
            helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[7, 8])
        )
        kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs[1] = helper.make_value_info("probabilities", helper.make_sequence_type_proto(kind))
    return model(nodes, [info("x")], outputs, **properties)


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def logged(folder: Path, *inputs: TensorSpec, columns: bool = True) -> Mlmodel:
    return Mlmodel(
        folder=folder,
        flavor="onnx",
        configuration={"data": "model.onnx"},
        predict_fn="predict",
        inputs=inputs,
        columns=columns,
    )


def test_a_sound_model_is_taken_as_it_is(folder: Path) -> None:
    made = onnx_room.convert(saved(doubled(), folder), None)

    assert [str(spec) for spec in made.signature.inputs] == ["x: FP32 [-1, 2]"]
    assert made.forms[0].build() == doubled()
    assert made.answer.kind == "other"


@pytest.mark.parametrize("domain", ["evil", "com.example"])
def test_custom_operators_are_refused_also_inside_a_branch(folder: Path, domain: str) -> None:
    inner = helper.make_graph([helper.make_node("Anything", ["x"], ["z"], domain=domain)], "inner", [], [info("z")])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z2"])], "other", [], [info("z2")])
    condition = numpy_helper.from_array(np.array(True), "condition")
    branch = helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=other)

    for nodes, constants in (
        ([helper.make_node("Anything", ["x"], ["y"], domain=domain)], ()),
        ([branch], (condition,)),
    ):
        with pytest.raises(StagingRefused, match=f"custom operators: {domain}.Anything"):
            onnx_room.load(saved(model(nodes, [info("x")], [info("y")], constants), folder))


def with_data(location: str) -> onnx.ModelProto:
    """`y = x + w`, with `w` stored at `location`."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        weights.external_data.add(key=key, value=value)
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x")], [info("y")], [weights])


def test_data_beside_the_file_is_drawn_in(folder: Path) -> None:
    (folder / "w.bin").write_bytes(np.array([1, 2], np.float32).tobytes())

    made = onnx_room.convert(saved(with_data("w.bin"), folder), None)

    content = made.forms[0].build().SerializeToString()
    assert session(content).run(None, {"x": np.zeros((1, 2), np.float32)})[0].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "", "link", "hard", "absent", "deep/../../secret"])
def test_data_from_outside_is_refused(folder: Path, location: str) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(b"12345678")
    (folder / "deep").mkdir()
    (folder / "link").symlink_to(secret)
    (folder / "hard").hardlink_to(secret)

    with pytest.raises(StagingRefused) as refused:
        onnx_room.load(saved(with_data(location), folder))

    assert refused.value.code == "external_data_outside"


@pytest.mark.parametrize("content", [b"", b"\x08", b"no model at all", doubled().SerializeToString()[:-9]])
def test_broken_files_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)

    with pytest.raises(StagingRefused, match="ONNX"):
        onnx_room.convert(folder / "model.onnx", None)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [([], ["y"], "no input"), (["x"], [], "no output"), (["x"], ["y", "y"], "several outputs of one name: y, y")],
)
def test_models_that_nobody_could_call_are_refused(
    folder: Path, inputs: list[str], outputs: list[str], words: str
) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    constants = [] if inputs else [numpy_helper.from_array(np.ones((1, 2), np.float32), "x")]
    made = model([node], [info(name) for name in inputs], [info(name) for name in outputs], constants)

    with pytest.raises(StagingRefused, match=words):
        onnx_room.convert(saved(made, folder), None)


def test_a_size_below_nought_is_any(folder: Path) -> None:
    made = model([helper.make_node("Identity", ["x"], ["y"])], [info("x", shape=(-1, -7))], [info("y", shape=(-1, 2))])

    assert onnx_room.convert(saved(made, folder), None).signature.inputs[0].shape == (-1, -1)


def test_a_classifier_is_read_from_its_outputs_and_node(folder: Path) -> None:
    answer = onnx_room.convert(saved(classifier(), folder), None).answer

    assert (answer.kind, answer.label_output, answer.score_output) == ("classification", "label", "probabilities")
    assert answer.classes == (7, 8)


def test_the_models_own_word_on_its_classes_counts(folder: Path) -> None:
    proto = classifier()
    helper.set_model_props(proto, {"runoff.classes": json.dumps(["good", "bad"])})

    assert onnx_room.convert(saved(proto, folder), None).answer.classes == ("good", "bad")


@pytest.mark.parametrize("classes", ['["a"]', "no json", '{"a": 1}'])
def test_classes_that_do_not_fit_are_refused(folder: Path, classes: str) -> None:
    proto = classifier()
    helper.set_model_props(proto, {"runoff.classes": classes})

    with pytest.raises(StagingRefused, match="classes"):
        onnx_room.convert(saved(proto, folder), None)


def test_dictionaries_of_scores_become_the_matrix_that_they_were(folder: Path) -> None:
    made = onnx_room.convert(saved(classifier(zip_map=True), folder), None)

    assert [str(spec) for spec in made.signature.outputs] == ["label: INT64 [-1]", "probabilities: FP32 [-1, 2]"]
    content = made.forms[0].build().SerializeToString()
    assert session(content).run(None, {"x": np.zeros((3, 2), np.float32)})[1].tolist() == [[0.5, 0.5]] * 3


def test_other_outputs_that_no_tensor_holds_are_refused(folder: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    node = helper.make_node("SplitToSequence", ["x"], ["y"])

    with pytest.raises(StagingRefused, match="wanted a tensor"):
        onnx_room.convert(saved(model([node], [info("x")], [helper.make_value_info("y", kind)]), folder), None)


def test_a_label_declared_with_one_row_is_declared_free(folder: Path) -> None:
    made = onnx_room.convert(saved(classifier(shape=(1,)), folder), None)

    assert str(made.signature.outputs[0]) == "label: INT64 [-1]"
    assert made.signature.is_batched


@pytest.mark.parametrize(("declared", "is_batched"), [((-1, 2), True), ((4, 2), False), (None, False)])
def test_fixed_rows_are_free_where_the_logged_signature_says_so(
    folder: Path, declared: tuple[int, ...] | None, is_batched: bool
) -> None:
    proto = model([helper.make_node("Add", ["x", "x"], ["y"])], [info("x", shape=(4, 2))], [info("y", shape=(4, 2))])
    about = declared and logged(folder, TensorSpec(name="x", datatype="FP32", shape=declared), columns=False)

    assert onnx_room.convert(saved(proto, folder), about or None).signature.is_batched == is_batched


def test_columns_are_put_together_as_mlflow_does(folder: Path) -> None:
    columns = (
        TensorSpec(name="a", datatype="FP64", shape=(-1, 1)),
        TensorSpec(name="b", datatype="INT64", shape=(-1, 1)),
    )

    made = onnx_room.convert(saved(doubled(), folder), logged(folder, *columns))

    assert made.signature.columns
    assert made.answer.scoring_form == "records"
    content = made.forms[0].build().SerializeToString()
    fed = {"a": np.array([[1.5], [2.5]]), "b": np.array([[3], [4]])}
    assert session(content).run(None, fed)[0].tolist() == [[3.0, 6.0], [5.0, 8.0]]


def test_columns_are_given_by_name_to_a_model_of_several_inputs(folder: Path) -> None:
    flat = ("rows",)
    proto = model(
        [helper.make_node("Sub", ["a", "b"], ["y"])],
        [info("a", shape=flat), info("b", shape=flat)],
        [info("y", shape=flat)],
    )
    columns = [TensorSpec(name=name, datatype="FP64", shape=(-1, 1)) for name in ("b", "a")]

    content = onnx_room.convert(saved(proto, folder), logged(folder, *columns)).forms[0].build().SerializeToString()

    assert session(content).run(None, {"a": np.array([[3.0]]), "b": np.array([[1.0]])})[0].tolist() == [2.0]
    with pytest.raises(StagingRefused, match="'b' is no column"):
        onnx_room.convert(saved(proto, folder), logged(folder, columns[1]))
