"""TensorFlow Serving's REST form: `:predict` with rows (`instances`) or columns (`inputs`), model status and metadata.

https://www.tensorflow.org/tfx/serving/api_rest. Labels in the path are MLflow aliases. BYTES may come as `{"b64": …}`; non-finite
values leave as null, where TensorFlow Serving writes JSON that nobody can read.
"""

import time
from collections.abc import Sequence
from typing import Final

import msgspec
import orjson
from msgspec import UNSET, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import RequestMalformed
from gateway.request import Corridor, InferReply, ModelView
from gateway.rest.entrance import JSON, Entrance, infer_reply, json_reply, unless_gone
from gateway.rest.json_tensors import UNREADABLE, joined, malformed, read_json
from gateway.rest.refusals import guarded
from models.errors import InputInvalid
from models.signature import Signature, TensorSpec
from models.tensors import Array
from routing.records import PROTOCOLS

TF: Final = PROTOCOLS.index("tf")
_SIGNATURE_NAME: Final = "serving_default"
_TYPES: Final = {
    "BOOL": "DT_BOOL",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}


class _Predict(Struct):
    instances: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    signature_name: str | None = None


_predict: Final = msgspec.json.Decoder(_Predict).decode
_by_name: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_instances: Final = msgspec.json.Decoder(list[Raw]).decode


class TensorflowDoor:
    """All of `/v1/models`."""

    def __init__(self, corridor: Corridor, entrance: Entrance) -> None:
        self._corridor = corridor
        self._entrance = entrance

    def routes(self) -> list[Route]:
        routes = []
        for model in ("/v1/models/{m}", "/v1/models/{m}/versions/{v}", "/v1/models/{m}/labels/{l}"):
            routes += [
                Route(f"{model}:predict", guarded(self.predict), methods=["POST"]),
                Route(f"{model}/metadata", guarded(self.metadata), methods=["GET"]),
                Route(model, guarded(self.status), methods=["GET"]),
            ]
        return routes

    async def predict(self, request: Request) -> Response:
        received_ns = time.monotonic_ns()
        endpoint = self._caller_of(request)
        with self._entrance.reading():
            view = self._corridor.view(endpoint)  # whether the version may be asked for is the corridor's question
        with self._entrance.reading(view.endpoint):
            caller = self._entrance.caller(request)
            inputs, by_row = await self._entrance.decoded(request, decode, view.signature, own_max=view.body_bytes_max)
        asked = caller.asks(view.endpoint, inputs, protocol=TF, received_ns=received_ns)
        asked.version, asked.alias = request.path_params.get("v"), request.path_params.get("l")
        asked.may_explain = caller.explain and self._entrance.may(request, "read", view.endpoint)
        reply = await unless_gone(request, self._corridor.infer(asked))
        return infer_reply(request, reply, [JSON], encode(reply, by_row=by_row))

    async def status(self, request: Request) -> Response:
        endpoint = self._caller_of(request)
        with self._entrance.reading():
            wanted = self._version(request)
            state = self._corridor.state(endpoint, wanted)
        text = "AVAILABLE" if state.is_ready else "LOADING"
        return json_reply(
            {
                "model_version_status": [
                    {"version": version, "state": text, "status": {"error_code": "OK", "error_message": ""}}
                    for version in state.versions
                    if wanted in (None, version)
                ]
            },
        )

    async def metadata(self, request: Request) -> Response:
        endpoint = self._caller_of(request)
        with self._entrance.reading():
            return json_reply(model_metadata(self._corridor.view(endpoint, self._version(request))))

    def _caller_of(self, request: Request) -> str:
        """The endpoint in the path, for a caller who may ask it."""
        endpoint: str = request.path_params["m"]
        self._entrance.admit(request, "predict", endpoint)
        return endpoint

    def _version(self, request: Request) -> str | None:
        """The version that the path names by its number or by a label; raises what `Corridor.version_of` raises."""
        label: str | None = request.path_params.get("l")
        named: str | None = request.path_params.get("v")
        return named if label is None else self._corridor.version_of(request.path_params["m"], label)


def decode(body: bytes, signature: Signature) -> tuple[dict[str, Array], bool]:
    """The inputs, and whether they came by row. Raises RequestMalformed, InputInvalid."""
    try:
        request = _predict(body)
        if isinstance(request.instances, UnsetType) == isinstance(request.inputs, UnsetType):
            raise RequestMalformed("wanted exactly one of 'instances' and 'inputs'")
        if request.signature_name not in (None, "", _SIGNATURE_NAME):
            raise RequestMalformed(f"signature_name: this model has only '{_SIGNATURE_NAME}'")
        if not isinstance(request.instances, UnsetType):
            return _rows(_instances(request.instances), signature), True
        assert not isinstance(request.inputs, UnsetType)
        return _columns(request.inputs, signature), False
    except msgspec.ValidationError as error:
        raise RequestMalformed(f"the body is not a predict request: {error}") from None
    except UNREADABLE as error:
        raise RequestMalformed(f"the body is not JSON: {malformed(body, error)}") from None


def encode(reply: InferReply, *, by_row: bool) -> bytes:
    """`{"predictions": [one a row]}` or `{"outputs": …}`; a single output stands without its name, as TensorFlow Serving has it.

    Beside it the prediction id, by which labels name the answer: clients of this form read the key that they asked for.
    """
    outputs = {
        spec.name: array.tolist() for spec, array in zip(reply.model.signature.outputs, reply.outputs, strict=True)
    }
    values: object = outputs if len(outputs) > 1 else next(iter(outputs.values()))
    if by_row and len(outputs) > 1:
        values = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=False)]
    document: dict[str, object] = {"predictions" if by_row else "outputs": values, "prediction_id": reply.prediction_id}
    if reply.explain is not None:
        document["explain"] = reply.explain
    return orjson.dumps(document)


def model_metadata(view: ModelView) -> dict[str, object]:
    """The proto3 JSON form of GetModelMetadataResponse, the signature wrapped as TensorFlow Serving wraps it."""
    signature = {
        "inputs": {spec.name: _tensor_info(spec) for spec in view.signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in view.signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": view.endpoint, "signature_name": "", "version": view.champion.key.version},
        "metadata": {"signature_def": {"signature_def": {_SIGNATURE_NAME: signature}}},
    }


def _rows(instances: Sequence[Raw], signature: Signature) -> dict[str, Array]:
    """Each instance is an object by input name or, for a model with one input, its value alone."""
    if not instances:
        raise InputInvalid("instances: wanted at least one")
    if bytes(instances[0])[:1] == b"{" and b'"b64"' not in bytes(instances[0])[:16]:
        records = [_by_name(instance) for instance in instances]
        names = records[0].keys()
        if any(record.keys() != names for record in records):
            raise InputInvalid("instances: every one must name the same inputs")
        return {name: _read(name, joined([record[name] for record in records]), signature) for name in names}
    name = _only_input(signature)
    return {name: _read(name, joined(instances), signature)}


def _columns(inputs: Raw, signature: Signature) -> dict[str, Array]:
    if bytes(inputs)[:1] == b"{" and b'"b64"' not in bytes(inputs)[:16]:
        return {name: _read(name, raw, signature) for name, raw in _by_name(inputs).items()}
    name = _only_input(signature)
    return {name: _read(name, inputs, signature)}


def _read(name: str, raw: bytes | Raw, signature: Signature) -> Array:
    spec = next((spec for spec in signature.inputs if spec.name == name), None)
    if spec is None:
        raise InputInvalid(f"unknown input '{name[:64]}'")
    return read_json(name, spec.datatype, raw, base64_allowed=True)


def _only_input(signature: Signature) -> str:
    if len(signature.inputs) != 1:
        raise InputInvalid(f"wanted objects by input name: this model has {len(signature.inputs)} inputs")
    return signature.inputs[0].name


def _tensor_info(spec: TensorSpec) -> dict[str, object]:
    dims = [{"size": str(length), "name": ""} for length in spec.shape]
    return {
        "dtype": _TYPES.get(spec.datatype, f"DT_{spec.datatype}"),
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": spec.name,
    }
