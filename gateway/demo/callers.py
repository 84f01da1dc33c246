"""Three kinds of application that ask the same endpoint: V2 over REST, MLflow's scoring over REST, V2 over gRPC."""

import math
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc.aio
import msgspec

from gateway.demo.flights import INPUTS, REAL, STRINGS
from gateway.demo.http1 import CallFailed, HttpClient, Reply
from gateway.demo.models import MODEL
from gateway.rpc import open_inference_pb2 as pb

UNIT_HEADER: Final = "x-aircraft-day"
"""What the route splits by: one aircraft on one day keeps its variant, for a late aircraft is late again."""

Value = str | int | float
Values = Sequence[Value]
"""One flight's inputs, in the order of INPUTS."""

_TIMEOUT_S: Final = 10.0
_DATATYPES: Final = tuple("BYTES" if name in STRINGS else "FP64" if name in REAL else "INT64" for name in INPUTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `status` is 200, the REST status of a refusal, gRPC's status number below 0, or 0 when nobody answered.

    The other fields are empty for a refusal, and `label` is then −1; `problem` says what it was.
    """

    status: int
    prediction_id: str = ""
    variant: str = ""
    revision: int = 0
    label: int = -1
    problem: str = ""


class Caller(Protocol):
    """One application. `name` is as the lake names its protocol."""

    name: str

    async def ask(self, values: Values, unit: str, request_id: str) -> Answer:
        """Asks for one flight; never raises for what the network or the gateway may do."""
        ...

    async def close(self) -> None: ...


class V2Caller:
    name = "v2-rest"

    def __init__(self, url: str, connections: int) -> None:
        self._client = HttpClient(url, connections=connections, timeout_s=_TIMEOUT_S)
        self._path = f"/v2/models/{MODEL}/infer"

    async def ask(self, values: Values, unit: str, request_id: str) -> Answer:
        inputs = [
            {"name": name, "datatype": datatype, "shape": [1, 1], "data": [_null_for_nan(value)]}
            for name, datatype, value in zip(INPUTS, _DATATYPES, values, strict=True)
        ]
        reply = await _post(self._client, self._path, {"inputs": inputs}, unit, request_id)
        if isinstance(reply, Answer):
            return reply
        document = msgspec.json.decode(reply.body)
        said = document["parameters"]
        label = next(output["data"][0] for output in document["outputs"] if output["name"] == "label")
        return Answer(
            status=200,
            prediction_id=said["prediction_id"],
            variant=said["variant"],
            revision=int(said["revision"]),
            label=int(label),
        )

    async def close(self) -> None:
        self._client.close()


class MlflowCaller:
    name = "mlflow"

    def __init__(self, url: str, connections: int) -> None:
        self._client = HttpClient(url, connections=connections, timeout_s=_TIMEOUT_S)

    async def ask(self, values: Values, unit: str, request_id: str) -> Answer:
        body = {"dataframe_split": {"columns": INPUTS, "data": [[_null_for_nan(value) for value in values]]}}
        reply = await _post(self._client, "/invocations", body, unit, request_id)
        if isinstance(reply, Answer):
            return reply
        document = msgspec.json.decode(reply.body)
        return Answer(
            status=200,
            prediction_id=document["prediction_id"],
            variant=reply.headers["x-runoff-variant"],
            revision=int(reply.headers["x-runoff-revision"]),
            label=int(document["predictions"][0]),
        )

    async def close(self) -> None:
        self._client.close()


class GrpcCaller:
    name = "v2-grpc"

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._infer: Any = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )

    async def ask(self, values: Values, unit: str, request_id: str) -> Answer:
        request = pb.ModelInferRequest(model_name=MODEL)
        for name, datatype, value in zip(INPUTS, _DATATYPES, values, strict=True):
            request.inputs.add(name=name, datatype=datatype, shape=(1, 1))
            request.raw_input_contents.append(_raw(value, datatype))
        metadata = (("x-request-id", request_id), *([(UNIT_HEADER, unit)] if unit else ()))
        try:
            reply = await self._infer(request, timeout=_TIMEOUT_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return Answer(status=-int(error.code().value[0]), problem=error.details() or error.code().name)
        said = reply.parameters
        place = next(place for place, output in enumerate(reply.outputs) if output.name == "label")
        return Answer(
            status=200,
            prediction_id=said["prediction_id"].string_param,
            variant=said["variant"].string_param,
            revision=said["revision"].int64_param,
            label=struct.unpack("<q", reply.raw_output_contents[place])[0],
        )

    async def close(self) -> None:
        await self._channel.close()


class LabelPoster:
    """Where the truth goes when it is known."""

    def __init__(self, url: str) -> None:
        self._client = HttpClient(url, connections=1, timeout_s=_TIMEOUT_S)

    async def post(self, truths: Sequence[tuple[str, int]]) -> int:
        """Posts prediction ids with labels; answers how many were accepted."""
        body = [{"prediction_id": prediction_id, "label": label} for prediction_id, label in truths]
        try:
            reply = await self._client.post("/v1/labels", msgspec.json.encode(body))
        except CallFailed:
            return 0
        return int(msgspec.json.decode(reply.body)["accepted"]) if reply.status == 202 else 0

    async def close(self) -> None:
        self._client.close()


async def _post(client: HttpClient, path: str, body: object, unit: str, request_id: str) -> Reply | Answer:
    headers = {"x-request-id": request_id, **({UNIT_HEADER: unit} if unit else {})}
    try:
        reply = await client.post(path, msgspec.json.encode(body), headers)
    except CallFailed as error:
        return Answer(status=0, problem=str(error))
    if reply.status != 200:
        return Answer(status=reply.status, problem=reply.body[:300].decode(errors="replace"))
    return reply


def _null_for_nan(value: Value) -> Value | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def _raw(value: Value, datatype: str) -> bytes:
    """One element of a raw tensor: strings with their length before them, numbers little-endian."""
    if datatype == "BYTES":
        text = str(value).encode()
        return struct.pack("<I", len(text)) + text
    return struct.pack("<q" if datatype == "INT64" else "<d", value)


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000
