"""Callers for Locust, over REST and gRPC, for any endpoint: what it takes is asked from the gateway, values are drawn from one seed.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 --grpc 127.0.0.1:8081 --endpoint phishing

`--headless -u 20 -r 20 -t 30s` runs without the browser; `RestUser` or `RpcUser` behind it asks over one protocol only.
"""

import random
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.experimental.gevent
import numpy as np
from locust import FastHttpUser, User, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser

from gateway.rpc import open_inference_pb2 as pb
from models.tensors import NUMPY_OF

grpc.experimental.gevent.init_gevent()  # type: ignore[no-untyped-call]  # lets gRPC wait where gevent switches

_METHOD: Final = "/inference.GRPCInferenceService/{}"
_UNITS: Final = 10_000
_TEXTS: Final = ("a", "b", "c")


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    """More options of `locust`; each can also be set as LOCUST_<NAME>."""
    parser.add_argument("--endpoint", default="", env_var="LOCUST_ENDPOINT", help="endpoint; default: the only one")
    parser.add_argument("--grpc", default="127.0.0.1:8081", env_var="LOCUST_GRPC", help="address of the gRPC listener")
    parser.add_argument("--rows", type=int, default=1, env_var="LOCUST_ROWS", help="rows of a request")
    parser.add_argument("--rate", type=float, default=50.0, env_var="LOCUST_RATE", help="requests a second of one user")


class Caller(User):
    """What both kinds share: their own values, their own pace."""

    abstract = True

    def wait_time(self) -> float:
        return float(constant_throughput(self.environment.parsed_options.rate)(self))

    def draw(self, datatype: str, shape: list[int]) -> np.ndarray[Any, Any]:
        """Values for one input; free dimensions become the wanted rows, inner ones 1."""
        first, *rest = [
            abs(dim) if place or dim > 0 else self.environment.parsed_options.rows for place, dim in enumerate(shape)
        ]
        size = (first, *rest)
        if datatype == "BYTES":
            return np.array([random.choice(_TEXTS) for _ in range(int(np.prod(size)))], object).reshape(size)
        values = np.random.default_rng(random.getrandbits(32)).normal(size=size)
        return values.astype(NUMPY_OF[datatype])

    @property
    def unit(self) -> str:
        return f"unit-{random.randrange(_UNITS)}"


class RestUser(Caller, FastHttpUser):
    """Open Inference over REST, one kept connection a user."""

    def on_start(self) -> None:
        """Asks what the endpoint takes."""
        name = self.environment.parsed_options.endpoint
        if not name:
            name = self.client.post("/v2/repository/index").json()[0]["name"]
        self._path = f"/v2/models/{name}/infer"
        self._inputs = self.client.get(f"/v2/models/{name}", name="/v2/models/[endpoint]").json()["inputs"]

    @task
    def infer(self) -> None:
        inputs = []
        for one in self._inputs:
            array = self.draw(one["datatype"], one["shape"])
            inputs.append({**one, "shape": list(array.shape), "data": array.ravel().tolist()})
        headers = {"X-Runoff-Unit": self.unit}
        with self.rest("POST", self._path, json={"inputs": inputs}, headers=headers, name="REST infer") as reply:
            if reply.js is not None and "prediction_id" not in reply.js.get("parameters", {}):
                reply.failure(f"no prediction id: {reply.text[:200]}")


class RpcUser(Caller):
    """Open Inference over gRPC, one channel a user."""

    def on_start(self) -> None:
        """Opens the channel and asks what the endpoint takes."""
        self._channel = grpc.insecure_channel(self.environment.parsed_options.grpc)
        name = self.environment.parsed_options.endpoint
        if not name:
            index = self._call("RepositoryIndex", pb.RepositoryIndexRequest, pb.RepositoryIndexResponse)
            name = index(pb.RepositoryIndexRequest()).models[0].name
        self._name = name
        metadata = self._call("ModelMetadata", pb.ModelMetadataRequest, pb.ModelMetadataResponse)
        self._inputs = metadata(pb.ModelMetadataRequest(name=name)).inputs
        self._infer = self._call("ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse)

    def on_stop(self) -> None:
        """Closes the channel."""
        self._channel.close()

    @task
    def infer(self) -> None:
        request = pb.ModelInferRequest(model_name=self._name)
        for one in self._inputs:
            array = self.draw(one.datatype, list(one.shape))
            tensor = request.inputs.add(name=one.name, datatype=one.datatype, shape=array.shape)
            if one.datatype == "BYTES":
                tensor.contents.bytes_contents.extend(value.encode() for value in array.ravel())
            else:
                request.raw_input_contents.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
        began = time.perf_counter()
        error: Exception | None = None
        length = 0
        try:
            reply = self._infer(request, metadata=[("x-runoff-unit", self.unit)], timeout=10)
            length = reply.ByteSize()
            if "prediction_id" not in reply.parameters:
                error = RuntimeError("no prediction id in the reply")
        except grpc.RpcError as trouble:
            error = trouble
        events.request.fire(
            request_type="gRPC",
            name="gRPC infer",
            response_time=(time.perf_counter() - began) * 1000,
            response_length=length,
            exception=error,
            context={},
        )

    def _call(self, method: str, request: Any, response: Any) -> Callable[..., Any]:
        return self._channel.unary_unary(
            _METHOD.format(method),
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
