"""The `MLmodel` file of a model folder, read as data: flavor, signature, what `predict` means, the input example. Runs nothing of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import yaml

from models.errors import StagingRefused
from models.signature import TensorSpec
from models.tensors import NUMPY_OF, V2_OF_MLFLOW, Array

Flavor = Literal["onnx", "lightgbm", "xgboost", "sklearn"]
Rows = dict[str, Array]
"""Rows by input name; columns have shape (rows,), tensors (rows, *tail). Missing strings are None."""

MLMODEL: Final = "MLmodel"
FLAVORS: Final[tuple[Flavor, ...]] = ("onnx", "lightgbm", "xgboost", "sklearn")
"""In the order of preference where a model has several."""

UNNAMED_TENSOR: Final = "input"
"""The input of a tensor signature without names, as `infer_signature` writes for one array."""

_FILE_BYTES_MAX: Final = 4 << 20
_EXAMPLE_BYTES_MAX: Final = 16 << 20
_EXAMPLE_ROWS_MAX: Final = 1000
_V2_OF_NUMPY: Final = {str(dtype): name for name, dtype in NUMPY_OF.items()} | {"str": "BYTES", "object": "BYTES"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlmodel:
    """`inputs` is None when the model was logged without a signature. `predict_fn` is the function that MLflow's `predict` calls."""

    folder: Path
    flavor: Flavor
    configuration: dict[str, Any]
    predict_fn: str
    inputs: tuple[TensorSpec, ...] | None
    columns: bool

    def declared(self) -> tuple[TensorSpec, ...]:
        """The inputs; raises StagingRefused when there is no signature."""
        if self.inputs is None:
            raise StagingRefused(
                "signature_missing",
                f"the {self.flavor} model was logged without a signature",
                "log it with log_model(…, signature=mlflow.models.infer_signature(inputs, outputs))",
            )
        return self.inputs

    def file(self, key: str) -> Path:
        """A file that the flavor's configuration names; raises StagingRefused when it lies outside of the folder or is missing."""
        name = self.configuration.get(key)
        path = (self.folder / str(name)).resolve()
        if name is None or not path.is_relative_to(self.folder.resolve()) or not path.exists():
            raise StagingRefused(
                "files_missing", f"MLmodel: flavor {self.flavor} names no file of its folder in '{key}'"
            )
        return path


def read(folder: Path) -> Mlmodel:
    """Raises StagingRefused for an unreadable file, an unknown flavor or a column type that cannot be served."""
    document = _document(folder / MLMODEL)
    flavors = document.get("flavors")
    known = [flavor for flavor in FLAVORS if isinstance(flavors, dict) and isinstance(flavors.get(flavor), dict)]
    if not known or not isinstance(flavors, dict):
        names = ", ".join(sorted(map(str, flavors))) if isinstance(flavors, dict) else "none"
        raise StagingRefused(
            "flavor_unsupported",
            f"flavors of the model: {names}; served are {', '.join(FLAVORS)}",
            "log it in one of these",
        )
    pyfunc = flavors.get("python_function")
    inputs, columns = _inputs(document.get("signature"))
    return Mlmodel(
        folder=folder,
        flavor=known[0],
        configuration=flavors[known[0]],
        predict_fn=str(pyfunc.get("predict_fn") or "predict") if isinstance(pyfunc, dict) else "predict",
        inputs=inputs,
        columns=columns,
    )


def example(model: Mlmodel) -> Rows:
    """The rows of the stored input example that fit the signature; none where there is no example, or it cannot be read as rows."""
    info = _document(model.folder / MLMODEL).get("saved_input_example_info")
    inputs = model.inputs or ()
    if not isinstance(info, dict) or not inputs:
        return {}
    path = (model.folder / str(info.get("artifact_path"))).resolve()
    if (
        not path.is_relative_to(model.folder.resolve())
        or not path.is_file()
        or path.stat().st_size > _EXAMPLE_BYTES_MAX
    ):
        return {}
    try:
        stored = json.loads(path.read_bytes())
        if model.columns:
            if not isinstance(stored, dict) or "data" not in stored:
                return {}
            by_column = dict(zip(stored["columns"], zip(*stored["data"][:_EXAMPLE_ROWS_MAX], strict=True), strict=True))
            return {spec.name: as_column(list(by_column[spec.name]), spec) for spec in inputs}
        tensors = stored.get("inputs", stored) if isinstance(stored, dict) else stored
        if not isinstance(tensors, dict):
            tensors = {inputs[0].name: tensors}
        return {
            spec.name: np.asarray(tensors[spec.name], NUMPY_OF[spec.datatype])[:_EXAMPLE_ROWS_MAX] for spec in inputs
        }
    except (ValueError, TypeError, KeyError, OverflowError):
        return {}


def as_column(values: list[Any], spec: TensorSpec) -> Array:
    """JSON values → one column (rows,); null is NaN in floating columns and None in string columns. Raises ValueError or TypeError."""
    if spec.datatype == "BYTES":
        return np.array([None if value is None else str(value) for value in values], object)
    return np.array([np.nan if value is None else value for value in values]).astype(NUMPY_OF[spec.datatype])


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise StagingRefused(
                "mlmodel_invalid", f"MLmodel: wanted at most {_FILE_BYTES_MAX} bytes, got {path.stat().st_size}"
            )
        document = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise StagingRefused("mlmodel_invalid", f"MLmodel cannot be read: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise StagingRefused("mlmodel_invalid", "MLmodel: wanted a mapping")
    return cast(dict[str, Any], document)


def _inputs(signature: Any) -> tuple[tuple[TensorSpec, ...] | None, bool]:
    """Inputs, and whether they are columns of a data frame."""
    if not isinstance(signature, dict) or not signature.get("inputs"):
        return None, False
    try:
        entries = json.loads(signature["inputs"])
        are_tensors = [entry["type"] == "tensor" for entry in entries]
        if all(are_tensors):
            return tuple(_tensor(entry, alone=len(entries) == 1) for entry in entries), False
        specs = tuple(map(_column, entries))
    except (ValueError, TypeError, KeyError) as error:
        raise StagingRefused(
            "mlmodel_invalid", f"MLmodel: the signature cannot be read: {type(error).__name__}"
        ) from error
    if len({spec.name for spec in specs}) != len(specs):
        raise StagingRefused("signature_unsupported", "MLmodel: the signature names a column twice")
    return specs, True


def _column(entry: dict[str, Any]) -> TensorSpec:
    name, kind = entry.get("name"), str(entry["type"])
    if not isinstance(name, str) or not name:
        raise StagingRefused(
            "signature_unsupported", "MLmodel: the signature has columns without names", "infer it from a DataFrame"
        )
    if kind not in V2_OF_MLFLOW:
        raise StagingRefused(
            "signature_unsupported",
            f"input '{name}': wanted one of {', '.join(V2_OF_MLFLOW)}, got {kind}",
            "encode the column before",
        )
    return TensorSpec(name=name, datatype=V2_OF_MLFLOW[kind], shape=(-1, 1), optional=not entry.get("required", True))


def _tensor(entry: dict[str, Any], *, alone: bool) -> TensorSpec:
    name = entry.get("name") or (UNNAMED_TENSOR if alone else "")
    spec = entry["tensor-spec"]
    if not name or spec["dtype"] not in _V2_OF_NUMPY:
        raise StagingRefused(
            "signature_unsupported",
            f"input '{name}': tensors need a name and a numeric or string type, got {spec['dtype']}",
        )
    return TensorSpec(name=name, datatype=_V2_OF_NUMPY[spec["dtype"]], shape=tuple(int(size) for size in spec["shape"]))
