"""A model that another server runs: the client of the Open Inference Protocol's REST form (V2), and the one room of httpx in `models`.

The caller bounds how many calls run at once; this bounds what one call may take: time, bytes, and which addresses it may reach.
"""

import asyncio
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
import orjson

from models.errors import ModelFailed
from models.tensors import NUMPY_OF, Array, datatype_of

REPLY_BYTES_MAX: Final = 16 << 20
_RESOLVED_S: Final = 30.0
"""How long a resolved address is kept: a name that moves is followed, and no call waits for the resolver twice in a row."""
_HEADER_LENGTH: Final = "inference-header-content-length"
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_INPUT_REFUSED: Final = frozenset({400, 413, 422})

Named = tuple[str, Array]
"""A tensor and its name."""


class RemoteFailed(ModelFailed):
    """The server could not be reached, refused the call, or answered something that is no answer."""


class RemoteTimeout(RemoteFailed):
    """No whole answer within the time."""


class RemoteRefused(RemoteFailed):
    """The target is not allowed, or its name resolves only to addresses that are not."""


class InputRefused(RemoteFailed):
    """The server lives and does not take this input (400, 413, 422); another input may fare better."""


class BodyTooLarge(RemoteFailed):
    """The encoded input is above the caller's bound; nothing was sent."""


class RemoteAnswer(msgspec.Struct, frozen=True):
    """What the server answered: the version it names (empty: none) and its outputs in its own order."""

    version: str
    outputs: list[Named]


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
    """One model of one server. Belongs to one event loop; calls may overlap.

    `allow`: host names or addresses, compared whole; the name is resolved here and the connection goes to that very address, so a name
    cannot change its meaning in between. No proxies, no redirects, no cookies, none of the caller's headers. `token` goes as a bearer token.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        allow: Sequence[str],
        token: str | None = None,
        timeout_s: float = 5.0,
        calls_max: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises RemoteRefused when the host is not in `allow`, or the address is no plain HTTP address."""
        self._url = httpx.URL(url)
        host = self._url.host.rstrip(".").lower()
        if self._url.scheme not in {"http", "https"} or self._url.userinfo:
            raise RemoteRefused(
                f"remote {self._url.host!r}: wanted http:// or https:// without a password in the address"
            )
        if host not in {name.strip("[]").rstrip(".").lower() for name in allow}:
            raise RemoteRefused(f"remote host {host!r} is not in remotes.allow")
        self._host = host
        self._path = f"{self._url.path.rstrip('/')}/v2"
        self._model = quote(model, safe="")
        self._timeout_s = timeout_s
        self._clock = clock
        self._address: str | None = None
        self._resolved_at = -_RESOLVED_S
        self._is_binary: bool | None = None
        self._headers = {
            "Host": self._url.netloc.decode("ascii"),
            "X-Runoff-Shadow": "1",
            "User-Agent": "runoff-shadow",
            "Accept-Encoding": "identity",
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(timeout_s),
            limits=httpx.Limits(max_connections=calls_max, max_keepalive_connections=calls_max),
        )

    async def infer(self, inputs: Sequence[Named], *, body_bytes_max: int) -> RemoteAnswer:
        """One call. Raises RemoteTimeout, RemoteRefused, InputRefused, BodyTooLarge or, for all else, RemoteFailed."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._is_binary is None:
                    self._is_binary = await self._takes_binary()
                body, headers = encode(inputs, binary=self._is_binary)
                if len(body) > body_bytes_max:
                    raise BodyTooLarge(f"remote input: wanted at most {body_bytes_max} bytes, got {len(body)}")
                status, reply_headers, reply = await self._call("POST", f"/models/{self._model}/infer", body, headers)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RemoteTimeout(f"remote {self._host}: no answer within {self._timeout_s} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self._resolved_at = -_RESOLVED_S
            raise RemoteFailed(f"remote {self._host}: {type(error).__name__}") from error
        if status in _INPUT_REFUSED:
            raise InputRefused(f"remote {self._host}: status {status}")
        if status != 200:
            raise RemoteFailed(f"remote {self._host}: status {status}")
        return decode(reply, reply_headers.get(_HEADER_LENGTH))

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def _takes_binary(self) -> bool:
        """Whether the server lists the binary tensor extension; a server that does not say so gets JSON."""
        status, _, reply = await self._call("GET", "", b"", {})
        if status != 200:
            return False
        try:
            return "binary_tensor_data" in msgspec.json.decode(reply, type=_Server).extensions
        except msgspec.DecodeError:
            return False

    async def _call(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, httpx.Headers, bytes]:
        url = self._url.copy_with(host=await self._resolve(), path=self._path + path, query=None, fragment=None)
        request = self._client.build_request(
            method, url, content=body, headers=self._headers | headers, extensions={"sni_hostname": self._host}
        )
        response = await self._client.send(request, stream=True)
        try:
            chunks, size_bytes = [], 0
            async for chunk in response.aiter_raw():
                size_bytes += len(chunk)
                if size_bytes > REPLY_BYTES_MAX:
                    raise RemoteFailed(f"remote {self._host}: the answer is above {REPLY_BYTES_MAX} bytes")
                chunks.append(chunk)
        finally:
            await response.aclose()
            self._client.cookies.clear()
        return response.status_code, response.headers, b"".join(chunks)

    async def _resolve(self) -> str:
        if self._address is not None and self._clock() - self._resolved_at < _RESOLVED_S:
            return self._address
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._url.port or 0, type=socket.SOCK_STREAM)
        allowed = [str(address) for *_, (address, *_) in found if is_allowed_address(str(address))]
        if not allowed:
            raise RemoteRefused(
                f"remote host {self._host!r} resolves to link-local or otherwise refused addresses only"
            )
        self._address, self._resolved_at = allowed[0], self._clock()
        return self._address


def is_allowed_address(text: str) -> bool:
    """Whether an address may be called: not link-local (cloud metadata lives there), multicast or unspecified, in any disguise."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.sixtofour is not None:
            address = address.sixtofour
        elif address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)


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
