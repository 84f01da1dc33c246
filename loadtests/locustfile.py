"""Callers for Locust, over REST and gRPC, for any endpoint: what it takes is asked from the gateway, values are drawn at random.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 --grpc 127.0.0.1:8081 --scenario spike --endpoint phishing

`--headless -u 20 -r 20 -t 30s --html report.html` runs without the browser (20 callers at most, 20 more a second, 30 seconds in all);
`RestUser` or `RpcUser` behind it asks over one protocol only. The scenarios: `loadtests/scenarios.py`.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.experimental.gevent
import numpy as np
from locust import FastHttpUser, LoadTestShape, User, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from gateway.rpc import open_inference_pb2 as pb
from loadtests.scenarios import SCENARIOS, Scenario
from models.tensors import NUMPY_OF

grpc.experimental.gevent.init_gevent()  # type: ignore[no-untyped-call]  # lets gRPC wait where gevent switches

_METHOD: Final = "/inference.GRPCInferenceService/{}"
_UNITS: Final = 10_000
_TEXTS: Final = ("a", "b", "c")
_LABELS_MAX: Final = 100
_HOST: Final = "http://127.0.0.1:8080"
_answered: "deque[tuple[str, Any]]" = deque(maxlen=10_000)
"""Prediction ids and the first value of each answer, waiting for their labels."""


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    """More options of `locust`; each can also be set as LOCUST_<NAME>."""
    told = "; ".join(f"{name}: {scenario.means}" for name, scenario in SCENARIOS.items())
    parser.add_argument("--scenario", default="steady", choices=[*SCENARIOS], env_var="LOCUST_SCENARIO", help=told)
    asked = "endpoint, or several with commas between them for `mixed`; default: the first one, for `mixed` all"
    parser.add_argument("--endpoint", default="", env_var="LOCUST_ENDPOINT", help=asked)
    parser.add_argument("--grpc", default="127.0.0.1:8081", env_var="LOCUST_GRPC", help="address of the gRPC listener")
    parser.add_argument("--rows", type=int, default=1, env_var="LOCUST_ROWS", help="rows of a request")
    parser.add_argument("--rate", type=float, default=50.0, env_var="LOCUST_RATE", help="requests a second of one user")


@events.init.add_listener
def choose(environment: Environment, **_: Any) -> None:
    """Labels are posted only where the scenario says so."""
    if not _scenario(environment).tells_truth and TruthUser in environment.user_classes:
        environment.user_classes.remove(TruthUser)


def _scenario(environment: Environment) -> Scenario:
    options = environment.parsed_options
    return SCENARIOS[options.scenario if options is not None else "steady"]


class Shape(LoadTestShape):
    """The chosen scenario; `--users` is its peak, `--run-time` how long it takes."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        scenario = SCENARIOS[options.scenario]
        peak, rate = options.num_users or 1, options.spawn_rate or options.num_users or 1
        callers = scenario.callers(self.get_run_time(), options.run_time or scenario.duration_s, peak)
        return None if callers is None else (callers + scenario.tells_truth, float(rate))


class Caller(User):
    """What both kinds share: their own values, their own pace."""

    abstract = True

    def wanted(self, known: Callable[[], list[str]]) -> list[str]:
        """The endpoints to ask; `known` tells all there are."""
        named = [name for name in self.environment.parsed_options.endpoint.split(",") if name] or known()
        return named if _scenario(self.environment).asks_all else named[:1]

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

    host = _HOST

    def on_start(self) -> None:
        """Asks what the endpoints take."""
        names = self.wanted(self._known)
        self._inputs = {
            name: self.client.get(f"/v2/models/{name}", name="/v2/models/[endpoint]").json()["inputs"] for name in names
        }

    def _known(self) -> list[str]:
        return list(dict.fromkeys(one["name"] for one in self.client.post("/v2/repository/index").json()))

    @task
    def infer(self) -> None:
        name = random.choice([*self._inputs])
        inputs = []
        for one in self._inputs[name]:
            array = self.draw(one["datatype"], one["shape"])
            shown = {key: one[key] for key in ("name", "datatype")}
            inputs.append({**shown, "shape": list(array.shape), "data": array.ravel().tolist()})
        title = "REST infer" if len(self._inputs) == 1 else f"REST infer {name}"
        headers = {"X-Runoff-Unit": self.unit}
        with self.rest(
            "POST", f"/v2/models/{name}/infer", json={"inputs": inputs}, headers=headers, name=title
        ) as reply:
            if reply.js is None:
                return
            prediction_id = reply.js.get("parameters", {}).get("prediction_id")
            if prediction_id is None:
                reply.failure(f"no prediction id: {reply.text[:200]}")
            else:
                _answered.append((prediction_id, reply.js["outputs"][0]["data"][0]))


class RpcUser(Caller):
    """Open Inference over gRPC, one channel a user."""

    def on_start(self) -> None:
        """Opens the channel and asks what the endpoints take."""
        self._channel = grpc.insecure_channel(self.environment.parsed_options.grpc)
        metadata = self._call("ModelMetadata", pb.ModelMetadataRequest, pb.ModelMetadataResponse)
        names = self.wanted(self._known)
        self._inputs = {name: metadata(pb.ModelMetadataRequest(name=name)).inputs for name in names}
        self._infer = self._call("ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse)

    def _known(self) -> list[str]:
        index = self._call("RepositoryIndex", pb.RepositoryIndexRequest, pb.RepositoryIndexResponse)
        return list(dict.fromkeys(one.name for one in index(pb.RepositoryIndexRequest()).models))

    def on_stop(self) -> None:
        """Closes the channel."""
        self._channel.close()

    @task
    def infer(self) -> None:
        name = random.choice([*self._inputs])
        request = pb.ModelInferRequest(model_name=name)
        for one in self._inputs[name]:
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
            else:
                _answered.append((reply.parameters["prediction_id"].string_param, _first(reply)))
        except grpc.RpcError as trouble:
            error = trouble
        events.request.fire(
            request_type="gRPC",
            name="gRPC infer" if len(self._inputs) == 1 else f"gRPC infer {name}",
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


def _first(reply: pb.ModelInferResponse) -> Any:
    """The first value of the first output."""
    raw, datatype = reply.raw_output_contents[0], reply.outputs[0].datatype
    if datatype == "BYTES":
        return raw[4 : 4 + int.from_bytes(raw[:4], "little")].decode()
    return np.frombuffer(raw, NUMPY_OF[datatype], 1)[0].item()


class TruthUser(Caller, FastHttpUser):
    """Posts the truth about what the others were answered, many at once: nine times in ten it is what the first output said."""

    host = _HOST
    fixed_count = 1

    @task
    def tell(self) -> None:
        due = [_answered.popleft() for _ in range(min(_LABELS_MAX, len(_answered)))]
        if not due:
            return
        wrong = due[0][1]
        labels = [
            {"prediction_id": prediction_id, "row": 0, "label": wrong if random.random() < 0.1 else answer}
            for prediction_id, answer in due
        ]
        with self.rest("POST", "/v1/labels", json=labels, name="REST labels") as reply:
            if reply.js is not None and reply.js.get("rejected"):
                reply.failure(f"rejected: {str(reply.js['rejected'][0])[:200]}")
