"""Folders and files of this machine as models; an edited one is another model."""

from pathlib import Path

import pytest

from models.errors import ModelUnknown, ReferenceInvalid
from models.ref import parse_ref
from models.registry.local import LocalRegistry


def test_a_file_is_version_one_of_a_model_named_after_it_and_its_content(tmp_path: Path) -> None:
    (tmp_path / "my model.onnx").write_bytes(b"one")

    resolved = LocalRegistry(tmp_path).resolve(parse_ref("./my model.onnx"))

    assert resolved.key.version == "1"
    assert resolved.key.name.startswith("my-model-")
    assert resolved.uri == "./my model.onnx"


def test_files_of_the_same_name_with_other_content_are_other_models(tmp_path: Path) -> None:
    for folder in ("champion", "challenger"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.onnx").write_text(folder)
    registry = LocalRegistry(tmp_path)

    keys = {registry.resolve(parse_ref(f"./{folder}/model.onnx")).key for folder in ("champion", "challenger")}

    assert len(keys) == 2


def test_a_folder_is_copied_whole_and_a_file_alone(tmp_path: Path) -> None:
    source, first, second = tmp_path / "m", tmp_path / "1", tmp_path / "2"
    (source / "deep").mkdir(parents=True)
    (source / "MLmodel").write_text("flavors: {}")
    (source / "deep" / "model.onnx").write_bytes(b"x")
    first.mkdir()
    second.mkdir()
    registry = LocalRegistry(tmp_path)

    registry.download(registry.resolve(parse_ref("./m/")), first)
    registry.download(registry.resolve(parse_ref("./m/deep/model.onnx")), second)

    assert sorted(path.relative_to(first).as_posix() for path in first.rglob("*")) == [
        "MLmodel",
        "deep",
        "deep/model.onnx",
    ]
    assert [path.name for path in second.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("text", ["./absent", "./absent.onnx", "./weights.pkl"])
def test_what_is_no_model_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "weights.pkl").write_bytes(b"")

    with pytest.raises(ModelUnknown, match="found neither"):
        LocalRegistry(tmp_path).resolve(parse_ref(text))


def test_registered_models_are_not_its_business(tmp_path: Path) -> None:
    with pytest.raises(ReferenceInvalid, match="of this machine"):
        LocalRegistry(tmp_path).resolve(parse_ref("models:/m/1"))
