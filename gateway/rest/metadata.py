"""What V2 says of the server and its models: metadata, configuration, repository index. Plain documents; gRPC builds on the same."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from gateway.repository import VersionState
from gateway.request import ModelView
from models.signature import TensorSpec

SERVER_NAME: Final = "runoff"
PLATFORM: Final = "onnxruntime_onnx"
BACKEND: Final = "onnxruntime"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "schedule_policy",
    "model_configuration",
    "model_repository",
    "statistics",
    "parameters",
)
"""Only what works."""
ROWS_MAX_UNKNOWN: Final = 64
"""`max_batch_size` of a batched model that has not been profiled."""


def package_version(name: str = "runoff", default: str = "0") -> str:
    """The installed version of a distribution, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return default


def server_metadata() -> dict[str, object]:
    return {"name": SERVER_NAME, "version": package_version(), "extensions": list(EXTENSIONS)}


def model_metadata(view: ModelView) -> dict[str, object]:
    return {
        "name": view.endpoint,
        "versions": list(view.versions),
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in view.signature.inputs],
        "outputs": [_tensor(spec) for spec in view.signature.outputs],
    }


def model_config(view: ModelView) -> dict[str, object]:
    """Triton's ModelConfig as its JSON form, with the field names of the published proto."""
    batched = view.signature.is_batched
    inputs = [
        {
            "name": spec.name,
            "data_type": data_type(spec),
            "format": "FORMAT_NONE",
            "dims": dims(spec, batched=batched),
            "optional": spec.optional,
        }
        for spec in view.signature.inputs
    ]
    outputs = [
        {"name": spec.name, "data_type": data_type(spec), "dims": dims(spec, batched=batched)}
        for spec in view.signature.outputs
    ]
    return {
        "name": view.endpoint,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": version_policy(view),
        "max_batch_size": max_batch_size(view),
        "input": inputs,
        "output": outputs,
    }


def data_type(spec: TensorSpec) -> str:
    """Triton's name of a datatype in model configurations."""
    return "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"


def dims(spec: TensorSpec, *, batched: bool) -> list[int]:
    """A configuration's dims leave the batch dimension out where the model has one."""
    return list(spec.shape[1:] if batched else spec.shape)


def max_batch_size(view: ModelView) -> int:
    """The rows that one run takes at most; 0 where the first dimension is not free."""
    if not view.signature.is_batched:
        return 0
    return view.champion.profile.rows_max if view.champion.profile else ROWS_MAX_UNKNOWN


def version_policy(view: ModelView) -> dict[str, object]:
    """The warm versions; a policy can only name numbers, so anything else is shown as the latest one."""
    if all(text.isdecimal() for text in view.versions):
        return {"specific": {"versions": sorted(int(text) for text in view.versions)}}
    return {"latest": {"num_versions": 1}}


def repository_index(states: Sequence[VersionState], *, ready_only: bool) -> list[dict[str, str]]:
    """Endpoint × loaded version."""
    return [
        {"name": one.endpoint, "version": one.version, "state": one.state, "reason": one.reason}
        for one in states
        if one.state == "READY" or not ready_only
    ]


def warm_versions(views: Sequence[ModelView]) -> list[VersionState]:
    """The index where nothing is known but what is served."""
    return [
        VersionState(endpoint=view.endpoint, version=version, state="READY")
        for view in views
        for version in view.versions
    ]


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
