"""A model that an MLflow scoring server runs (`POST …/invocations`), or whoever speaks as one: Runoff, Databricks, SageMaker's container.

Its answer is what the model's `predict` returns: perhaps labels without probabilities, perhaps values without names.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from models.runtime.http_server import NO_HEADERS, HttpServer
from models.runtime.target import Access, InputRefused, Named, RemoteAnswer, RemoteFailed
from models.tensors import Array

_JSON: Final = {"Content-Type": "application/json"}
_MODEL_HEADER: Final = "x-runoff-model"


class _Reply(msgspec.Struct):
    predictions: Any


class MlflowModel:
    """One model of one scoring server. Belongs to one event loop; calls may overlap.

    Columns go as `dataframe_split`, tensors as `inputs` by name. A server that refuses its only tensor by name gets it bare, as
    models whose signature names no tensor want it; what it took is remembered.
    """

    def __init__(self, url: str, model: str, access: Access) -> None:
        """Raises RemoteRefused for a target that is not allowed. `model` only matters to a server that holds several."""
        self._server = HttpServer(url, access)
        self._headers = _JSON | {"X-Runoff-Endpoint": model}
        self._is_bare: bool | None = None

    async def infer(
        self, inputs: Sequence[Named], *, body_bytes_max: int, headers: Mapping[str, str] = NO_HEADERS
    ) -> RemoteAnswer:
        """One call, or two until it is known how the server wants its tensor. Raises as RemoteModel does."""
        may_be_bare = len(inputs) == 1 and not _are_columns(inputs)
        is_bare = may_be_bare and self._is_bare is True
        async with self._server.calls():
            try:
                answer = await self._invoke(inputs, body_bytes_max, headers, is_bare=is_bare)
            except InputRefused:
                if not may_be_bare or self._is_bare is not None:
                    raise
                answer = await self._invoke(inputs, body_bytes_max, headers, is_bare=True)
                is_bare = True
        if may_be_bare:
            self._is_bare = is_bare
        return answer

    async def close(self) -> None:
        """Closes all connections."""
        await self._server.close()

    async def _invoke(
        self, inputs: Sequence[Named], bytes_max: int, headers: Mapping[str, str], *, is_bare: bool
    ) -> RemoteAnswer:
        body = encode(inputs, is_bare=is_bare)
        reply = await self._server.send("/invocations", body, {**self._headers, **headers}, bytes_max=bytes_max)
        return decode(reply.body, reply.headers.get(_MODEL_HEADER, "").rpartition("/")[2])


def encode(inputs: Sequence[Named], *, is_bare: bool = False) -> bytes:
    """The body of an invocation. What is not finite becomes null, which a data frame reads as NaN."""
    if _are_columns(inputs):
        rows = zip(*(array.ravel().tolist() for _, array in inputs), strict=True)
        return orjson.dumps({"dataframe_split": {"columns": [name for name, _ in inputs], "data": list(rows)}})
    nested = {name: array.tolist() for name, array in inputs}
    return orjson.dumps({"inputs": next(iter(nested.values())) if is_bare else nested})


def decode(body: bytes, version: str = "") -> RemoteAnswer:
    """Reads a scoring reply; raises RemoteFailed where it is not one."""
    try:
        found = msgspec.json.decode(body, type=_Reply).predictions
        if isinstance(found, dict):
            named = {str(name): values for name, values in found.items()}
        elif isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
            named = {str(name): [row[name] for row in found] for name in found[0]}
        elif isinstance(found, list):
            named = {"": found}
        else:
            raise RemoteFailed("remote answer: `predictions` is neither a list nor an object")
        outputs = [(name, _array(values)) for name, values in named.items()]
    except (msgspec.DecodeError, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteFailed(f"remote answer: not a scoring reply ({type(error).__name__})") from error
    return RemoteAnswer(version, outputs, is_prediction=True)


def _are_columns(inputs: Sequence[Named]) -> bool:
    """Whether each input is one value a row, and all have the same rows: a data frame."""
    return all(array.ndim >= 1 and array.size == len(array) == len(inputs[0][1]) for _, array in inputs)


def _array(values: object) -> Array:
    """JSON values as an array: null is NaN among numbers, and empty among texts. Raises ValueError for ragged lists."""
    array: Array = np.array(values)
    if array.dtype.kind not in "OU":
        return array
    array = np.array(values, dtype=object)
    kinds = {type(value) for value in array.ravel().tolist()}
    if kinds & {list, dict}:
        raise ValueError("ragged")
    if kinds <= {int, float, type(None)} and kinds != {type(None)}:
        return array.astype(np.float64)
    flat = np.array(["" if value is None else str(value) for value in array.ravel().tolist()], dtype=object)
    return flat.reshape(array.shape)
