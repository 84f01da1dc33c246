"""Tensors of gRPC messages: raw or typed contents into arrays, arrays into either; and parameters into plain values."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Final

import numpy as np

from gateway.errors import RequestMalformed
from gateway.rest.json_tensors import RANK_MAX
from gateway.rest.open_inference import SHARED_MEMORY, Parameter
from gateway.rest.raw_tensors import datatype_unknown, encoded_texts, read_raw, shaped, texts_of
from gateway.rpc import open_inference_pb2 as pb
from models.errors import InputInvalid
from models.tensors import NUMPY_OF, Array

CONTENTS_OF: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""V2 datatype → the field of InferTensorContents that holds it. FP16 has none: it travels raw."""


def read_inputs(request: pb.ModelInferRequest) -> dict[str, Array]:
    """The inputs by name. Raises RequestMalformed where raw and typed contents are mixed, InputInvalid for a tensor."""
    raw = request.raw_input_contents
    tensors = request.inputs
    if raw and any(tensor.HasField("contents") for tensor in tensors):
        raise RequestMalformed("contents of an input must be empty where raw_input_contents is given")
    if raw and len(raw) != len(tensors):
        raise RequestMalformed(
            f"raw_input_contents: wanted one entry for each of {len(tensors)} inputs, got {len(raw)}"
        )
    arrays: dict[str, Array] = {}
    for place, tensor in enumerate(tensors):
        name, shape = tensor.name, list(tensor.shape)
        if name in arrays:
            raise InputInvalid(f"input '{name[:64]}' is given twice")
        if "shared_memory_region" in tensor.parameters:
            raise InputInvalid(f"input '{name[:64]}': {SHARED_MEMORY}")
        if len(shape) > RANK_MAX or any(length < 0 for length in shape):
            raise InputInvalid(f"input '{name[:64]}': wanted a shape of at most {RANK_MAX} dimensions from 0 up")
        arrays[name] = (
            read_raw(name, tensor.datatype, shape, raw[place])
            if raw
            else read_contents(name, tensor.datatype, shape, tensor.contents)
        )
    return arrays


def write_contents(name: str, datatype: str, array: Array) -> pb.InferTensorContents:
    """Typed contents. Raises InputInvalid for FP16, which has none."""
    field = CONTENTS_OF.get(datatype)
    if field is None:
        raise InputInvalid(f"output '{name}': {datatype} has no typed contents; leave binary_data_output true")
    contents = pb.InferTensorContents()
    getattr(contents, field).extend(encoded_texts(array) if datatype == "BYTES" else array.ravel().tolist())
    return contents


def read_parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Parameter]:
    """Parameters as plain values; one without a value is as good as absent."""
    found: dict[str, Parameter] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            found[name] = getattr(parameter, choice)
    return found


def write_parameters(target: Any, parameters: Iterable[tuple[str, Parameter]]) -> None:
    """Fills a parameter map of a message; each value takes the field of its own type."""
    for name, value in parameters:
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            target[name].int64_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        else:
            target[name].string_param = value


def read_contents(name: str, datatype: str, shape: list[int], contents: pb.InferTensorContents) -> Array:
    """The array of typed contents. Raises InputInvalid."""
    field = CONTENTS_OF.get(datatype)
    if field is None:
        if datatype in NUMPY_OF:
            raise InputInvalid(f"input '{name[:64]}': {datatype} has no typed contents; send raw_input_contents")
        raise InputInvalid(datatype_unknown(name[:64], datatype))
    values = getattr(contents, field)
    if len(values) != prod(shape):
        raise InputInvalid(
            f"input '{name[:64]}': wanted {prod(shape)} values in {field} for {datatype} {shape}, got {len(values)}"
        )
    if datatype == "BYTES":
        return shaped(name, texts_of(name, values), shape)
    try:
        # from a list, whose integers numpy checks; the message's own container would be wrapped into a narrow type in silence
        array: Array = np.array(list(values), dtype=NUMPY_OF[datatype])
    except OverflowError:
        raise InputInvalid(f"input '{name[:64]}': a value is outside the range of {datatype}") from None
    return shaped(name, array, shape)
