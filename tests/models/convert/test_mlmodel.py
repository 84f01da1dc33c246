"""`MLmodel` is read as data, and what it claims is held to its folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.convert import mlmodel
from models.errors import StagingRefused

COLUMNS = [
    {"type": "long", "name": "age", "required": True},
    {"type": "double", "name": "income", "required": False},
    {"type": "string", "name": "city", "required": True},
]


def write(
    folder: Path, inputs: Any = COLUMNS, flavors: str = "sklearn: {pickled_model: model.skops}", more: str = ""
) -> Path:
    text = f"flavors:\n  {flavors}\n  python_function: {{predict_fn: predict_proba}}\n{more}"
    if inputs is not None:
        text += "signature:\n  inputs: " + json.dumps(json.dumps(inputs)) + "\n"
    (folder / "MLmodel").write_text(text)
    return folder


def test_columns_become_one_tensor_each(folder: Path) -> None:
    model = mlmodel.read(write(folder))

    assert model.columns
    assert [str(spec) for spec in model.declared()] == [
        "age: INT64 [-1, 1]",
        "income: FP64 [-1, 1]",
        "city: BYTES [-1, 1]",
    ]
    assert [spec.optional for spec in model.declared()] == [False, True, False]
    assert model.predict_fn == "predict_proba"


def test_a_tensor_without_a_name_gets_one(folder: Path) -> None:
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}]

    model = mlmodel.read(write(folder, tensor))

    assert not model.columns
    assert [str(spec) for spec in model.declared()] == ["input: FP64 [-1, 4]"]


def test_onnx_is_preferred_where_a_model_has_several_flavors(folder: Path) -> None:
    assert mlmodel.read(write(folder, flavors="sklearn: {}\n  onnx: {data: m.onnx}")).flavor == "onnx"


def test_a_missing_signature_is_refused_only_when_it_is_needed(folder: Path) -> None:
    model = mlmodel.read(write(folder, None))

    with pytest.raises(StagingRefused, match="without a signature") as refused:
        model.declared()
    assert "infer_signature" in refused.value.remedy


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ([{"type": "datetime", "name": "at"}], "signature_unsupported"),
        ([{"type": "double"}], "signature_unsupported"),
        ([{"type": "double", "name": "a"}, {"type": "double", "name": "a"}], "signature_unsupported"),
        ([{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}], "signature_unsupported"),
        (["nonsense"], "mlmodel_invalid"),
        ([{"name": "a"}], "mlmodel_invalid"),
    ],
)
def test_inputs_that_cannot_be_served_are_refused(folder: Path, inputs: Any, code: str) -> None:
    with pytest.raises(StagingRefused) as refused:
        mlmodel.read(write(folder, inputs))

    assert refused.value.code == code


@pytest.mark.parametrize(
    "text", ["", "- a list", "flavors: {prophet: {}}", "a: [", "!!python/object/apply:os.system ['true']"]
)
def test_an_unreadable_file_and_an_unknown_flavor_are_refused(folder: Path, text: str) -> None:
    (folder / "MLmodel").write_text(text)

    with pytest.raises(StagingRefused):
        mlmodel.read(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "absent"])
def test_files_outside_of_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_text("x")
    model = mlmodel.read(write(folder, flavors=f"sklearn: {{pickled_model: {name}}}"))

    with pytest.raises(StagingRefused, match="names no file"):
        model.file("pickled_model")


def test_the_example_is_read_by_column_with_missing_values(folder: Path) -> None:
    write(folder, more="saved_input_example_info: {artifact_path: example.json}\n")
    rows = {"columns": ["city", "age", "income"], "data": [["A", 1, 0.5], [None, 2, None]]}
    (folder / "example.json").write_text(json.dumps(rows))

    example = mlmodel.example(mlmodel.read(folder))

    assert example["city"].tolist() == ["A", None]
    assert example["age"].dtype == np.int64
    assert np.isnan(example["income"][1])


@pytest.mark.parametrize(
    "content", ["", "[]", '{"columns": ["age"], "data": [[1]]}', '{"columns": ["age"], "data": [["x"]]}']
)
def test_an_example_that_does_not_fit_is_ignored(folder: Path, content: str) -> None:
    write(folder, more="saved_input_example_info: {artifact_path: example.json}\n")
    (folder / "example.json").write_text(content)

    assert mlmodel.example(mlmodel.read(folder)) == {}


def test_an_example_outside_of_the_folder_is_not_read(folder: Path) -> None:
    write(folder, more="saved_input_example_info: {artifact_path: ../example.json}\n")
    (folder.parent / "example.json").write_text('{"columns": ["age", "income", "city"], "data": [[1, 1.0, "A"]]}')

    assert mlmodel.example(mlmodel.read(folder)) == {}
