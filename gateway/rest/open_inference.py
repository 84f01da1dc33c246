"""Room 2 for the Open Inference Protocol over REST: bytes → inputs and wishes, and a reply → headers and bytes.

With Triton's extensions: binary tensors (per tensor, by default, and the raw body with header length 0) and classification. Fields
that the protocol does not know are ignored, as Triton does; what it knows and we do not offer (shared memory) is refused by name.
https://github.com/kserve/open-inference-protocol, Triton's docs/protocol: extension_binary_data, extension_classification.
"""

from collections.abc import Mapping
from math import prod
from typing import Annotated, Final

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.errors import RequestMalformed
from gateway.request import InferReply
from gateway.rest.classification import classify
from gateway.rest.json_tensors import RANK_MAX, UNREADABLE, malformed, read_json
from gateway.rest.raw_tensors import read_raw, shaped, write_raw
from models.errors import InputInvalid
from models.signature import Signature, TensorSpec
from models.tensors import NUMPY_OF, Array

Parameter = bool | int | float | str
Dimension = Annotated[int, Meta(ge=0, le=1 << 62)]
Shape = Annotated[list[Dimension], Meta(max_length=RANK_MAX)]
SHARED_MEMORY: Final = "shared memory is not offered by this server: send the data with the request"
_JSON: Final = ("content-type", "application/json")
_BINARY: Final = ("content-type", "application/octet-stream")


class _Tensor(Struct, gc=False):
    name: str
    shape: Shape
    datatype: str
    data: Raw | UnsetType = UNSET
    parameters: dict[str, Parameter] | None = None


class _Output(Struct, gc=False):
    name: str
    parameters: dict[str, Parameter] | None = None


class _Request(Struct, gc=False):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Parameter] | None = None
    outputs: list[_Output] | None = None


_decode: Final = msgspec.json.Decoder(_Request).decode


class WantedOutput(Struct, frozen=True):
    """One output that the caller asked for. `binary` None: as the request says for all. `classes` 0: the tensor itself."""

    name: str
    binary: bool | None = None
    classes: int = 0


class Decoded(Struct, gc=False):
    """A V2 request. `wanted` empty means all outputs, in the model's order; `binary_default` is for outputs that do not say."""

    inputs: dict[str, Array]
    id: str | None = None
    parameters: Mapping[str, Parameter] = {}
    wanted: tuple[WantedOutput, ...] = ()
    binary_default: bool = False


def decode(body: bytes | bytearray, header_length: int | None, signature: Signature) -> Decoded:
    """Reads a request body. `header_length` is Inference-Header-Content-Length: None without it, 0 for a raw body.

    Arrays have the datatype and shape that the caller declared; whether they fit the signature is `models.signature_check`'s to
    say. Raises RequestMalformed for what is no V2 request and InputInvalid for tensors that contradict themselves.
    """
    if header_length == 0:
        return _decode_raw_body(body, signature)
    if header_length is None:
        header_length = len(body)
    elif not 0 < header_length <= len(body):
        raise RequestMalformed(
            f"Inference-Header-Content-Length is {header_length}, and the body has {len(body)} bytes"
        )
    head = body if header_length == len(body) else memoryview(body)[:header_length]
    try:
        request = _decode(head)
    except msgspec.ValidationError as error:
        raise RequestMalformed(f"the body is not a V2 inference request: {error}") from None
    except UNREADABLE as error:
        raise RequestMalformed(f"the body is not JSON: {malformed(head, error)}") from None
    parameters = request.parameters or {}
    return Decoded(
        _inputs(request.inputs, memoryview(body)[header_length:]),
        request.id,
        parameters,
        _wanted(request.outputs, signature) if request.outputs else (),
        _flag(parameters, "binary_data_output") or False,
    )


def encode(reply: InferReply, decoded: Decoded) -> tuple[list[tuple[str, str]], bytes]:
    """The reply's own headers (content type, JSON length where binary tensors follow) and its body."""
    tensors: list[dict[str, object]] = []
    tails: list[bytes] = []
    for spec, array, wanted in chosen(reply, decoded.wanted):
        datatype = spec.datatype
        if wanted.classes:
            array, datatype = classify(spec, array, wanted.classes, reply.model), "BYTES"
        tensor: dict[str, object] = {"name": spec.name, "datatype": datatype, "shape": array.shape}
        if decoded.binary_default if wanted.binary is None else wanted.binary:
            tail = write_raw(array)
            tails.append(tail)
            tensor["parameters"] = {"binary_data_size": len(tail)}
        else:
            tensor["data"] = (
                array.ravel().tolist() if array.dtype == object else np.ascontiguousarray(array).reshape(-1)
            )
        tensors.append(tensor)
    document: dict[str, object] = {
        "model_name": reply.endpoint,
        "model_version": reply.model.key.version,
        "parameters": told(reply),
        "outputs": tensors,
    }
    if decoded.id is not None:
        document["id"] = decoded.id
    head = orjson.dumps(
        document, option=orjson.OPT_SERIALIZE_NUMPY
    )  # floats as short as they are exact, non-finite ones as null
    if not tails:
        return [_JSON], head
    return [_BINARY, ("inference-header-content-length", str(len(head)))], b"".join((head, *tails))


def told(reply: InferReply) -> dict[str, Parameter]:
    """The response parameters of V2, REST and gRPC alike: who answered, and why where that was asked and allowed."""
    parameters: dict[str, Parameter] = {
        "prediction_id": reply.prediction_id,
        "variant": reply.variant,
        "revision": reply.revision,
    }
    if reply.assigned != reply.variant:
        parameters["assigned"] = reply.assigned
    for name, value in (reply.explain or {}).items():
        if value is not None:
            parameters[f"explain_{name}"] = value
    return parameters


def chosen(reply: InferReply, wanted: tuple[WantedOutput, ...]) -> list[tuple[TensorSpec, Array, WantedOutput]]:
    """The outputs to send, in the caller's order, else in the model's."""
    specs = reply.model.signature.outputs
    if not wanted:
        return [(spec, array, WantedOutput(spec.name)) for spec, array in zip(specs, reply.outputs, strict=True)]
    by_name = {spec.name: (spec, array) for spec, array in zip(specs, reply.outputs, strict=True)}
    return [(*by_name[one.name], one) for one in wanted if one.name in by_name]


def wanted_output(name: str, parameters: Mapping[str, Parameter], signature: Signature) -> WantedOutput:
    """One requested output with its parameters, read the same for REST and gRPC. Raises InputInvalid."""
    if all(spec.name != name for spec in signature.outputs):
        known = ", ".join(f"'{spec.name}'" for spec in signature.outputs)
        raise InputInvalid(f"unknown output '{name[:64]}': this model has {known}")
    if "shared_memory_region" in parameters:
        raise InputInvalid(f"output '{name}': {SHARED_MEMORY}")
    classes = parameters.get("classification", 0)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise InputInvalid(f"output '{name}': classification: wanted a number of classes")
    return WantedOutput(name, _flag(parameters, "binary_data"), classes)


def _inputs(tensors: list[_Tensor], tail: memoryview) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    offset = 0
    for tensor in tensors:
        if tensor.name in arrays:
            raise InputInvalid(f"input '{tensor.name[:64]}' is given twice")
        parameters = tensor.parameters or {}
        size = parameters.get("binary_data_size")
        if "shared_memory_region" in parameters:
            raise InputInvalid(f"input '{tensor.name[:64]}': {SHARED_MEMORY}")
        if size is None:
            arrays[tensor.name] = _from_json(tensor)
            continue
        if tensor.data is not UNSET:
            raise RequestMalformed(f"input '{tensor.name[:64]}': wanted data or binary_data_size, got both")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(tail) - offset:
            raise RequestMalformed(
                f"input '{tensor.name[:64]}': binary_data_size does not fit the {len(tail) - offset} bytes that are left"
            )
        arrays[tensor.name] = read_raw(tensor.name, tensor.datatype, tensor.shape, tail[offset : offset + size])
        offset += size
    if offset != len(tail):
        raise RequestMalformed(f"{len(tail) - offset} bytes follow the last binary tensor")
    return arrays


def _from_json(tensor: _Tensor) -> Array:
    if isinstance(tensor.data, UnsetType):
        raise RequestMalformed(f"input '{tensor.name[:64]}' has neither data nor binary_data_size")
    array = read_json(tensor.name, tensor.datatype, tensor.data)
    if array.size != prod(tensor.shape):
        raise InputInvalid(
            f"input '{tensor.name}': wanted {prod(tensor.shape)} values for {tensor.datatype} {tensor.shape}, got {array.size}"
        )
    return shaped(tensor.name, array, tensor.shape)


def _wanted(outputs: list[_Output], signature: Signature) -> tuple[WantedOutput, ...]:
    wanted = tuple(wanted_output(output.name, output.parameters or {}, signature) for output in outputs)
    if len({one.name for one in wanted}) != len(wanted):
        raise InputInvalid("an output is asked for twice")
    return wanted


def _flag(parameters: Mapping[str, Parameter], name: str) -> bool | None:
    flag = parameters.get(name)
    if flag is None or isinstance(flag, bool):
        return flag
    raise InputInvalid(f"parameter '{name}': wanted true or false")


def _decode_raw_body(body: bytes | bytearray, signature: Signature) -> Decoded:
    """A body that is the one input and nothing else: one row, at most one more free dimension, outputs come back binary."""
    if len(signature.inputs) != 1:
        raise InputInvalid(f"a raw body needs a model with one input; this one has {len(signature.inputs)}")
    spec = signature.inputs[0]
    batched = bool(spec.shape) and spec.shape[0] == -1 and len(spec.shape) > 1
    shape = [1, *spec.shape[1:]] if batched else list(spec.shape)
    free = [place for place, length in enumerate(shape) if length == -1]
    if len(free) > 1:
        raise InputInvalid(f"a raw body needs at most one free dimension beside the batch; the input is {spec}")
    if spec.datatype == "BYTES":
        if free:
            shape[free[0]] = 1
        if prod(shape) != 1:
            raise InputInvalid(f"a raw body of BYTES is one element; the input is {spec}")
        body = len(body).to_bytes(4, "little") + body
    elif free:
        step = NUMPY_OF[spec.datatype].itemsize * prod(length for length in shape if length != -1)
        shape[free[0]] = len(body) // step if step else 0
    return Decoded({spec.name: read_raw(spec.name, spec.datatype, shape, body)}, binary_default=True)
