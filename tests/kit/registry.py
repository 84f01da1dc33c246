"""A real MLflow registry in one SQLite file, as `runoff serve` uses it by default: no server, no account."""

import os
from pathlib import Path

import numpy as np
import onnx

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


class Registry:
    """Below `folder`; `uri` is what a gateway is given. Import takes seconds, so that fixtures share one."""

    def __init__(self, folder: Path) -> None:
        import mlflow

        self._mlflow = mlflow
        self.file = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.file}"
        mlflow.set_tracking_uri(self.uri)
        self.client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        experiment = self.client.create_experiment("tests", artifact_location=str(folder / "runs"))
        mlflow.set_experiment(experiment_id=experiment)

    def publish(self, name: str, path: str, alias: str | None = None) -> str:
        """Logs an ONNX file as a version of a registered model, the way a training run does; answers the version."""
        from mlflow.models import infer_signature

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

    def publish_sklearn(self, name: str, model: object, sample: object, alias: str | None = None) -> str:
        """The same for a fitted scikit-learn model; `sample` is the frame that its signature is read from."""
        from mlflow.models import infer_signature

        with self._mlflow.start_run():
            logged = self._mlflow.sklearn.log_model(
                model,
                name="model",
                registered_model_name=name,
                signature=infer_signature(sample, model.predict(sample)),
                pip_requirements=["scikit-learn"],
                serialization_format="skops",
            )
        version = str(logged.registered_model_version)
        if alias:
            self.move(name, alias, version)
        return version

    def move(self, name: str, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(name, alias, version)

    def version_of(self, name: str, alias: str) -> str:
        return str(self.client.get_model_version_by_alias(name, alias).version)

    def hide(self) -> None:
        """Takes the registry away, as far as a reader can tell."""
        self.file.rename(self.file.with_suffix(".away"))
        self.file.mkdir()

    def show(self) -> None:
        self.file.rmdir()
        self.file.with_suffix(".away").rename(self.file)
