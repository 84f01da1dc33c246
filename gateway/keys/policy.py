"""What every path and method of the data listeners asks for. What is not in this table is refused, whoever asks: default deny.

The admin API has its own column for it (`scope` of `gateway.admin.calls.Call`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.keys.scopes import Declared

_V2_MODEL: Final = ("/v2/models/{m}", "/v2/models/{m}/versions/{v}")
_TENSORFLOW_MODEL: Final = ("/v1/models/{m}", "/v1/models/{m}/versions/{v}", "/v1/models/{m}/labels/{l}")

PATHS: Final[Mapping[str, Declared]] = MappingProxyType(
    {
        "/v2": "predict",
        "/v2/health/live": "public",
        "/v2/health/ready": "public",
        "/v2/models/stats": "predict",
        "/v2/repository/index": "predict",
        "/v2/repository/models/{m}/load": "model:write",
        "/v2/repository/models/{m}/unload": "model:write",
        **{
            f"{model}{call}": "predict" for model in _V2_MODEL for call in ("", "/ready", "/config", "/stats", "/infer")
        },
        **{f"{model}{call}": "predict" for model in _TENSORFLOW_MODEL for call in ("", "/metadata", ":predict")},
        "/invocations": "predict",
        "/endpoints/{m}/invocations": "predict",
        "/serving-endpoints/{m}/invocations": "predict",
        "/ping": "public",
        "/health": "public",
        "/version": "public",
        "/v1/labels": "label",
    }
)
"""REST, by the template of the path."""

_INFERENCE: Final = "/inference.GRPCInferenceService/"
METHODS: Final[Mapping[str, Declared]] = MappingProxyType(
    {
        _INFERENCE + "ServerLive": "public",
        _INFERENCE + "ServerReady": "public",
        _INFERENCE + "ModelReady": "predict",
        _INFERENCE + "ServerMetadata": "predict",
        _INFERENCE + "ModelMetadata": "predict",
        _INFERENCE + "ModelInfer": "predict",
        _INFERENCE + "ModelStreamInfer": "predict",
        _INFERENCE + "ModelConfig": "predict",
        _INFERENCE + "ModelStatistics": "predict",
        _INFERENCE + "RepositoryIndex": "predict",
        _INFERENCE + "RepositoryModelLoad": "model:write",
        _INFERENCE + "RepositoryModelUnload": "model:write",
        "/grpc.health.v1.Health/Check": "public",
        "/grpc.health.v1.Health/Watch": "public",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "public",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "public",
    }
)
"""gRPC, by the full name. Health names an endpoint only to who may predict with it; reflection shows the published protocol alone."""
