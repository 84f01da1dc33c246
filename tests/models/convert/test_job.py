"""One conversion from folder to files; a conversion that went wrong is found, whatever went wrong."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sklearn.tree import DecisionTreeClassifier

from models.convert.job import MODEL_FILE, SAMPLES_FILE, Request, convert
from models.errors import StagingRefused
from tests.kit.registered import doubled, is_yes, numbers


@pytest.fixture
def request_of_trees(folder: Path, tmp_path: Path) -> Request:
    """A decision tree as MLflow stores it, and where its ONNX form goes."""
    columns = '[{"type": "double", "name": "age"}, {"type": "double", "name": "income"}]'
    (folder / "MLmodel").write_text(
        f"flavors:\n  sklearn: {{pickled_model: model.pkl, serialization_format: pickle}}\nsignature: {{inputs: '{columns}'}}\n"
    )
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(numbers(), is_yes())
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    into = tmp_path / "into"
    into.mkdir()
    return Request(source=str(folder), into=str(into), name="trees", trust_pickle=("trees",))


def moved(attribute: str, by: float, at: int) -> Any:
    """Changes one number of the tree node, as a wrong converter would."""

    def alter(model: onnx.ModelProto) -> onnx.ModelProto:
        for node in model.graph.node:
            for entry in node.attribute:
                if entry.name == attribute:
                    values = numpy_helper.to_array(entry.t).copy()
                    values[at] += by
                    entry.t.CopyFrom(numpy_helper.from_array(values, attribute))
        return model

    return alter


def test_a_conversion_leaves_the_model_and_its_samples(request_of_trees: Request) -> None:
    result = convert(request_of_trees)

    into = Path(request_of_trees.into)
    assert (into / MODEL_FILE).stat().st_size > 0
    with np.load(into / SAMPLES_FILE, allow_pickle=False) as samples:
        assert samples["age"].shape == (64, 1)
    assert result.form == "exact trees"
    assert result.certificate is not None


@pytest.mark.parametrize(
    "alter",
    [
        moved("nodes_values_as_tensor", 1e-4, 0),
        moved("nodes_values_as_tensor", -1e-4, 0),
        moved("target_weights_as_tensor", 0.9, 0),
        moved("target_weights_as_tensor", 1e-3, 2),
    ],
    ids=["threshold up", "threshold down", "other label", "other score"],
)
def test_a_tree_that_was_converted_wrongly_is_found(request_of_trees: Request, alter: Any) -> None:
    with pytest.raises(StagingRefused) as refused:
        convert(request_of_trees, alter=alter)

    assert refused.value.code == "parity_failed"
    assert "age=" in refused.value.message
    assert "wanted" in refused.value.message
    assert not (Path(request_of_trees.into) / MODEL_FILE).exists()


def test_recorded_rows_are_compared_too(request_of_trees: Request, tmp_path: Path) -> None:
    np.savez(tmp_path / "recorded.npz", age=np.arange(20.0)[:, None], income=np.arange(20.0)[:, None])
    recorded = Request(
        source=request_of_trees.source,
        into=request_of_trees.into,
        name="trees",
        trust_pickle=("*",),
        recorded=str(tmp_path / "recorded.npz"),
    )

    certificate = convert(recorded).certificate

    assert certificate is not None
    assert "recorded 20" in certificate.kinds
    assert certificate.rows - certificate.generated_rows == 20


def test_a_wider_tolerance_is_the_callers_to_give(request_of_trees: Request) -> None:
    wide = Request(
        source=request_of_trees.source,
        into=request_of_trees.into,
        name="trees",
        trust_pickle=("*",),
        tolerance_absolute=0.01,
    )

    certificate = convert(wide, alter=moved("target_weights_as_tensor", 1e-3, 2)).certificate

    assert certificate is not None
    assert 5e-4 < certificate.score_difference_max < 2e-3


def test_a_column_with_the_name_of_an_output_is_refused_with_the_remedy(request_of_trees: Request) -> None:
    described = Path(request_of_trees.source) / "MLmodel"
    described.write_text(described.read_text().replace('"age"', '"label"'))

    with pytest.raises(StagingRefused, match="inputs have the names of outputs: 'label'") as refused:
        convert(request_of_trees)

    assert refused.value.remedy == "rename these columns"


def test_a_bare_file_is_a_model(folder: Path) -> None:
    (folder / "any name.onnx").write_bytes(doubled().SerializeToString())

    result = convert(Request(source=str(folder), into=str(folder), name="doubled"))

    assert result.flavor == "onnx"
    assert result.has_samples


def test_a_folder_without_a_model_is_refused(folder: Path) -> None:
    with pytest.raises(StagingRefused, match=r"got 0 \.onnx files"):
        convert(Request(source=str(folder), into=str(folder), name="nothing"))


def value_of(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", 2])


def test_a_model_that_mixes_the_rows_of_a_run_says_so(folder: Path) -> None:
    node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=0)
    mixing = onnx.helper.make_model(
        onnx.helper.make_graph([node], "mixing", *([value_of(name)] for name in ("x", "y"))),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    (folder / "model.onnx").write_bytes(mixing.SerializeToString())
    assert not convert(Request(source=str(folder), into=str(folder), name="mixing")).keeps_rows_apart
    (folder / "model.onnx").write_bytes(doubled().SerializeToString())
    assert convert(Request(source=str(folder), into=str(folder), name="doubled")).keeps_rows_apart


def test_an_input_may_be_called_as_numpys_own_arguments_are(folder: Path) -> None:
    nodes = [onnx.helper.make_node("Identity", [name], [f"{name} out"]) for name in ("file", "allow_pickle")]
    given, made = ([value_of(f"{name}{end}") for name in ("file", "allow_pickle")] for end in ("", " out"))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "named", given, made),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())

    assert convert(Request(source=str(folder), into=str(folder), name="named")).has_samples
    with np.load(folder / SAMPLES_FILE, allow_pickle=False) as stored:
        assert set(stored.files) == {"file", "allow_pickle"}


def test_what_is_kept_of_wide_rows_is_bounded_too(folder: Path) -> None:
    image = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", 3, 1000, 1000]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "image", image[:1], image[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    (folder / "image.onnx").write_bytes(made.SerializeToString())

    assert convert(Request(source=str(folder), into=str(folder), name="image")).has_samples
    assert (folder / SAMPLES_FILE).stat().st_size < 65 << 20
