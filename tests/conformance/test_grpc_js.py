"""The gRPC client of Node.js, unchanged, against both doors of gRPC. Skipped where there is no Node.js, or its packages cannot be had."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "grpc_js"
PROTO = Path(__file__).parents[2] / "gateway" / "rpc" / "open_inference.proto"


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in a folder with its packages."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no Node.js here (Debian: apt-get install nodejs npm)")
    folder = shutil.copytree(HERE, tmp_path_factory.mktemp("grpc_js"), dirs_exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"the packages cannot be had: {error}")
    return folder / "caller.js"


def test_all_that_a_caller_does_is_answered(caller: Path, grpc_address: str) -> None:
    got = subprocess.run(
        ["node", caller, grpc_address, PROTO],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=caller.parent,
    )
    assert got.returncode == 0, got.stderr
    found = json.loads(got.stdout)
    assert found["live"] is True
    assert (found["one"]["code"], found["one"]["reply"]["id"]) == (0, "a")
    prediction_id = found["one"]["initial"]["x-prediction-id"]
    assert found["one"]["reply"]["parameters"]["prediction_id"]["string_param"] == prediction_id
    assert (found["unknown"]["code"], found["unknown"]["trailing"]["x-runoff-code"]) == (5, "endpoint_unknown")
    assert found["zipped"]["reply"]["outputs"][0]["shape"] == [500]
    assert (found["expired"], found["cancelled"]) == (4, 1)
    assert found["stream"] == {"ids": [f"s{number}" for number in range(20)], "code": 0}
    assert found["many"] == 500
    assert found["large"] == [200_000 * 8, 200_000 * 8]
