import subprocess
import sys

import pytest

from gateway.control.registry import Registries
from gateway.settings import Settings
from models.artifacts import Artifacts
from models.errors import ModelUnknown
from models.ref import parse_ref
from tests.kit.control import linear
from tests.kit.supervised import ROOT


@pytest.fixture
def registries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Registries(Settings(state_dir=str(tmp_path / "var")), Artifacts(tmp_path / "var" / "artifacts"))


def test_a_file_of_this_machine_is_no_matter_for_mlflow(registries, tmp_path):
    (tmp_path / "line.onnx").write_bytes(linear(("x",), 1.0))
    exact = registries.resolve(parse_ref("./line.onnx"))
    assert exact.key.name.startswith("line-")
    assert exact.uri == "./line.onnx"
    assert getattr(registries._own, "mlflow", None) is None


def test_a_file_that_was_edited_is_another_model(registries, tmp_path):
    ref = parse_ref(str((tmp_path / "line.onnx").as_uri()))
    keys = []
    for factor in (1.0, 2.0):
        (tmp_path / "line.onnx").write_bytes(linear(("x",), factor))
        keys.append(registries.resolve(ref).key)
    assert keys[0] != keys[1]


def test_what_is_not_there_is_said_by_its_reference(registries):
    with pytest.raises(ModelUnknown, match=r"\./nix\.onnx"):
        registries.resolve(parse_ref("./nix.onnx"))


def test_control_begins_without_mlflow():
    code = "import sys; import gateway.control.registry; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
