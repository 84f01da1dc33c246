import shutil

import pytest

from gateway.rpc import generate


@pytest.mark.parametrize("name", ["open_inference_pb2.py", "open_inference_pb2.pyi"])
def test_the_generated_files_are_those_of_the_proto_file(tmp_path, monkeypatch, name):
    source = generate.Path(generate.__file__).parent
    shutil.copy(source / "open_inference.proto", tmp_path)
    monkeypatch.setattr(generate, "__file__", str(tmp_path / "generate.py"))
    assert generate.main() == 0
    assert (tmp_path / name).read_text() == (source / name).read_text(), "run: python -m gateway.rpc.generate"
