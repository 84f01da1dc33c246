"""Versions logged as a training run does, in a real MLflow registry: one SQLite file, and the same behind a real `mlflow server`."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import onnx

from tests.kit.gateway import eventually
from tests.kit.plain import PLAIN

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class Registry:
    """Below `folder`; `uri` is what a gateway is given. Import takes seconds, so that fixtures share one."""

    def __init__(self, folder: Path) -> None:
        import mlflow

        self._mlflow = mlflow
        self.file = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.file}"
        self.client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._experiment = self.client.create_experiment("tests", artifact_location=str(folder / "runs"))

    def publish(self, name: str, path: str, alias: str | None = None) -> str:
        """Logs an ONNX file as a version of a registered model, the way a training run does; answers the version."""
        from mlflow.models import infer_signature

        # MLflow keeps these for the whole process, and other kits of this process set them too.
        self._mlflow.set_tracking_uri(self.uri)
        self._mlflow.set_registry_uri(self.uri)
        self._mlflow.set_experiment(experiment_id=self._experiment)
        sample = np.zeros((2, 4), np.float32)
        with self._mlflow.start_run():
            logged = self._mlflow.onnx.log_model(
                onnx.load(path),
                name="model",
                registered_model_name=name,
                signature=infer_signature(sample),
                pip_requirements=["onnxruntime"],
            )
        version = str(logged.registered_model_version)
        if alias:
            self.move(name, alias, version)
        return version

    def move(self, name: str, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(name, alias, version)

    def version_of(self, name: str, alias: str) -> str:
        return str(self.client.get_model_version_by_alias(name, alias).version)


class RegistryServer:
    """`mlflow server` over a registry's database. Callers reach it at `uri` through a cable that can be cut and plugged in again."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._held: list[socket.socket] = []
        self._is_cut = threading.Event()

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, "--backend-store-uri", self._registry.uri],
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },  # three more processes that nobody needs here
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        eventually(self._answers, 60, 0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._accepting.join(30)
        self._socket.close()
        os.killpg(self._process.pid, signal.SIGKILL)  # the program and the workers that it started
        self._process.wait(30)

    def cut(self) -> None:
        """Whoever is connected is cut off, whoever comes is hung up on."""
        self._is_cut.set()
        for held in self._held:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)

    def plug_in(self) -> None:
        self._is_cut.clear()

    def _accept(self) -> None:
        threads: list[threading.Thread] = []
        while True:
            try:
                near = self._socket.accept()[0]
            except OSError:
                break
            if self._is_cut.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:  # it is still starting
                near.close()
                continue
            self._held += [near, far]
            threads += [threading.Thread(target=_carry, args=ends) for ends in ((near, far), (far, near))]
            for thread in threads[-2:]:
                thread.start()
        for thread in threads:
            thread.join(30)
        for held in self._held:
            held.close()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.uri}/health", timeout=30, verify=PLAIN).status_code == 200
        except httpx.TransportError:
            return False


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Bytes from one end of a cable to the other, until either end is closed."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
