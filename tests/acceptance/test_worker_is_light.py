"""What a worker is while it serves: small, soon ready, and without anything heavy in it."""

import json
import os
import signal
from datetime import datetime

import psutil
import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, infer_call, route, rpc_request

pytestmark = pytest.mark.acceptance

HEAVY = (
    "mlflow", "pandas", "pyarrow", "deltalake", "duckdb", "sklearn", "scipy", "xgboost", "lightgbm", "skl2onnx", "onnxmltools",
    "onnx", "matplotlib", "polars", "sqlalchemy", "typer", "feast",
)  # fmt: skip
WITNESS = """
import json, os, signal, sys
def tell(*_):
    with open(os.path.join(os.environ["WITNESS"], str(os.getpid())), "w") as file:
        json.dump(sorted(sys.modules), file)
signal.signal(signal.SIGUSR2, tell)
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    (folder / "sitecustomize.py").write_text(WITNESS)
    with Gateway(folder, environ={"PYTHONPATH": str(folder), "WITNESS": str(folder)}) as running:
        running.apply(route("phishing", ("champion", files.binary(folder / "phishing.onnx"), 1)))
        yield running


def modules_of(gateway: Gateway, process: str) -> set[str]:
    """What the live process has imported, told by itself."""
    pid = gateway.pid(process)
    told = gateway.folder / str(pid)
    os.kill(pid, signal.SIGUSR2)

    def is_told() -> bool:
        try:
            return bool(json.loads(told.read_text()))
        except (FileNotFoundError, ValueError):
            return False

    eventually(is_told)
    return set(json.loads(told.read_text()))


def test_a_worker_imports_nothing_heavy(gateway):
    assert gateway.infer("phishing", [[1, 2, 3, 4]]).status_code == 200
    assert gateway.http.post("/invocations", json={"inputs": [[1, 2, 3, 4]]}).status_code == 200
    assert gateway.http.post("/v1/models/phishing:predict", json={"instances": [[1, 2, 3, 4]]}).status_code == 200
    assert gateway.http.get("/v2/models/phishing/config").status_code == 200
    assert (
        gateway.http.post("/v1/labels", json={"endpoint": "phishing", "request_id": "x", "label": 1}).status_code == 202
    )
    with gateway.channel() as channel:
        infer_call(channel)(rpc_request("phishing", [[1, 2, 3, 4]]), timeout=30)
    imported = modules_of(gateway, "worker-0")
    assert "gateway.worker" in imported or "gateway.dataplane" in imported
    assert {name for name in imported if name.partition(".")[0] in HEAVY} == set()


def test_the_shadow_imports_nothing_heavy_either(gateway):
    imported = modules_of(gateway, "shadow")
    assert {name for name in imported if name.partition(".")[0] in HEAVY} == set()


def test_how_large_and_how_soon_ready_a_worker_is(gateway):
    """Printed, not judged: figures belong to benchmarks."""
    started, ready = (gateway.happened(event)[0] for event in ("process_started", "worker_ready"))
    took_s = (datetime.fromisoformat(ready["at"]) - datetime.fromisoformat(started["at"])).total_seconds()
    resident = psutil.Process(gateway.pid("worker-0")).memory_info().rss
    print(f"\none worker, one small model: ready after {took_s:.2f} s, {resident / 1e6:.0f} MB resident")
    assert resident > 0
