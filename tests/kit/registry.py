"""A real MLflow registry with versions of one small ONNX model: embedded (SQLite), or behind a real `mlflow server` with webhooks."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.kit.plain import PLAIN

NAME = "phishing"


def classifier(slope: float, *, columns: int = 4, output: str = "probabilities") -> onnx.ModelProto:
    """`x` FP32 [-1, columns] → two chances; the second grows with the sum of the row."""
    weights = np.array([[-slope, slope]] * columns, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [output], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


class Registry:
    """`uri` is for a gateway's `registry_uri`. Importing MLflow takes seconds; only making one of these does."""

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.uri = uri or f"sqlite:///{folder / 'mlflow.db'}"
        self.client: Any = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def register(self, slope: float, *, columns: int = 4, output: str = "probabilities") -> str:
        """A new version of the model; answers its number."""
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        if self.client.get_experiment_by_name("kit") is None:
            place = None if self.uri.startswith("http") else (self._folder / "runs").as_uri()
            self.client.create_experiment("kit", artifact_location=place)
        mlflow.set_experiment("kit")
        rows = np.zeros((2, columns), np.float32)
        signature = mlflow.models.infer_signature(rows, np.zeros((2, 2), np.float32))
        with mlflow.start_run():
            logged = mlflow.onnx.log_model(
                classifier(slope, columns=columns, output=output),
                name="model",
                signature=signature,
                registered_model_name=NAME,
                pip_requirements=[],
            )
        return str(logged.registered_model_version)

    def point(self, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(NAME, alias, version)

    def alias(self, alias: str) -> str:
        return str(self.client.get_model_version_by_alias(NAME, alias).version)


class MlflowServer:
    """`mlflow server` as a user runs it, with what it takes for it to post webhooks to this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        store = ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        files = ["--artifacts-destination", str(self._folder / "artifacts")]
        webhooks = {
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "bm90IHNlY3JldCwgZm9yIHRlc3RzIG9mIHRoaXMga2k=",
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # three more processes that nobody needs here
        }
        self._log = (self._folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [*command, *store, *files],
            env={**os.environ, **webhooks},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "mlflow server did not start"
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it, as a registry that goes away."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(30)
        self._log.close()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.uri}/health", timeout=10, verify=PLAIN).status_code == 200
        except httpx.TransportError:
            return False
