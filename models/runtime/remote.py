"""A model that another server runs: the client of the Open Inference Protocol's REST form (V2).

The caller bounds how many calls run at once; one call is bounded in time and bytes, and in which addresses it may reach.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
import numpy as np
import orjson

from models.runtime.http_server import NO_HEADERS, HttpServer
from models.runtime.target import Access, Named, RemoteAnswer, RemoteFailed
from models.tensors import NUMPY_OF, Array, datatype_of

_HEADER_LENGTH: Final = "inference-header-content-length"


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = msgspec.Raw(b"[]")
    parameters: dict[str, Any] = {}


class _Reply(msgspec.Struct):
    outputs: list[_Tensor]
    model_version: str = ""


class _Server(msgspec.Struct):
    extensions: list[str] = []


class RemoteModel:
    """One model of one server. Belongs to one event loop; calls may overlap."""

    def __init__(self, url: str, model: str, access: Access) -> None:
        """Raises RemoteRefused for a target that is not allowed."""
        self._server = HttpServer(url, access)
        self._path = f"/v2/models/{quote(model, safe='')}/infer"
        self._is_binary: bool | None = None

    async def infer(
        self, inputs: Sequence[Named], *, body_bytes_max: int, headers: Mapping[str, str] = NO_HEADERS
    ) -> RemoteAnswer:
        """One call. Raises RemoteTimeout, RemoteRefused, InputRefused, BodyTooLarge or, for all else, RemoteFailed."""
        async with self._server.calls():
            if self._is_binary is None:
                self._is_binary = await self._takes_binary()
            body, own = encode(inputs, binary=self._is_binary)
            reply = await self._server.send(self._path, body, {**own, **headers}, bytes_max=body_bytes_max)
        return decode(reply.body, reply.headers.get(_HEADER_LENGTH))

    async def close(self) -> None:
        """Closes all connections."""
        await self._server.close()

    async def _takes_binary(self) -> bool:
        """Whether the server lists the binary tensor extension; a server that does not say so gets JSON."""
        reply = await self._server.call("GET", "/v2")
        if reply.status != 200:
            return False
        try:
            return "binary_tensor_data" in msgspec.json.decode(reply.body, type=_Server).extensions
        except msgspec.DecodeError:
            return False


def encode(inputs: Sequence[Named], *, binary: bool) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference request. As JSON, NaN and infinities become null; binary carries them as they are."""
    entries: list[dict[str, object]] = []
    tail: list[bytes] = []
    for name, array in inputs:
        entry: dict[str, object] = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
        if binary:
            data = _text_bytes(array) if array.dtype == object else np.ascontiguousarray(array).tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            entry["data"] = array.ravel().tolist() if array.dtype == object else np.ascontiguousarray(array).ravel()
        entries.append(entry)
    if not binary:
        return orjson.dumps({"inputs": entries}, option=orjson.OPT_SERIALIZE_NUMPY), {
            "Content-Type": "application/json"
        }
    head = orjson.dumps({"inputs": entries, "parameters": {"binary_data_output": True}})
    return b"".join((head, *tail)), {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(head))}


def decode(body: bytes, header_length: str | None) -> RemoteAnswer:
    """Reads an inference reply; raises RemoteFailed where it is not one."""
    try:
        length = len(body) if header_length is None else int(header_length)
        if not 0 <= length <= len(body):
            raise RemoteFailed("remote answer: its header is longer than its body")
        reply = msgspec.json.decode(memoryview(body)[:length], type=_Reply)
        offset, outputs = length, []
        for tensor in reply.outputs:
            size = tensor.parameters.get("binary_data_size")
            if size is None:
                flat = _from_json(tensor)
            elif type(size) is int and 0 <= size <= len(body) - offset:
                flat, offset = _from_bytes(tensor.datatype, body[offset : offset + size]), offset + size
            else:
                raise RemoteFailed(f"remote answer: output '{tensor.name}' is cut short")
            outputs.append((tensor.name, flat.reshape([max(0, dim) for dim in tensor.shape])))
    except (msgspec.DecodeError, KeyError, ValueError, TypeError, OverflowError, RecursionError, struct.error) as error:
        raise RemoteFailed(f"remote answer: not a V2 inference reply ({type(error).__name__})") from error
    return RemoteAnswer(reply.model_version, outputs)


def _from_json(tensor: _Tensor) -> Array:
    values = msgspec.json.decode(tensor.data)
    if tensor.datatype == "BYTES":
        return np.array([str(value) for value in _flat(values)], dtype=object)
    return np.array(values, dtype=NUMPY_OF[tensor.datatype]).ravel()


def _from_bytes(datatype: str, data: bytes) -> Array:
    if datatype != "BYTES":
        return np.frombuffer(data, dtype=NUMPY_OF[datatype].newbyteorder("<"))
    texts, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    return np.array(texts, dtype=object)


def _text_bytes(array: Array) -> bytes:
    """BYTES in binary: each element's length (four bytes, little-endian), then its UTF-8."""
    texts = [str(value).encode() for value in array.ravel().tolist()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _flat(values: object) -> list[object]:
    """Nested lists as one, row-major."""
    if not isinstance(values, list):
        return [values]
    return [leaf for value in values for leaf in _flat(value)] if any(type(v) is list for v in values) else values
