"""The Open Inference Protocol's paths, with Triton's extensions, as ordinary ASGI over the corridor."""
# ruff: noqa: ARG002  # Starlette calls every handler with its request

import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import NotReady, RequestMalformed
from gateway.repository import Repository, pins_in
from gateway.request import Corridor, InferRequest, ModelView
from gateway.rest.entrance import Entrance, infer_reply, json_reply, unless_gone, whole_number
from gateway.rest.headers import Caller, earliest, request_id_of
from gateway.rest.json_tensors import UNREADABLE
from gateway.rest.metadata import model_config, model_metadata, repository_index, server_metadata, warm_versions
from gateway.rest.open_inference import Decoded, Parameter, decode, encode
from gateway.rest.refusals import guarded, refuse, respond
from gateway.rest.stats import gathered, stats_document
from gateway.statistics import Statistics
from models.errors import InputInvalid, NotWarm
from routing.records import PROTOCOLS

T = TypeVar("T")
_V2_REST: Final = PROTOCOLS.index("v2-rest")


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _LoadRequest(msgspec.Struct):
    parameters: dict[str, Any] = {}


class OpenInferenceDoor:
    """All of `/v2`."""

    def __init__(
        self,
        corridor: Corridor,
        entrance: Entrance,
        statistics: Statistics | None = None,
        repository: Repository | None = None,
    ) -> None:
        self._corridor = corridor
        self._entrance = entrance
        self._statistics = statistics
        self._repository = repository

    def routes(self) -> list[Route]:
        """Reserved names first: `/v2/models/stats` is no model."""
        get, post = ["GET"], ["POST"]
        routes = [
            Route("/v2", guarded(self.server), methods=get),
            Route("/v2/health/live", guarded(self.live), methods=get),
            Route("/v2/health/ready", guarded(self.ready), methods=get),
            Route("/v2/models/stats", guarded(self.stats_of_all), methods=get),
            Route("/v2/repository/index", guarded(self.index), methods=post),
            Route("/v2/repository/models/{m}/load", guarded(self.load), methods=post),
            Route("/v2/repository/models/{m}/unload", guarded(self.unload), methods=post),
        ]
        for model in ("/v2/models/{m}", "/v2/models/{m}/versions/{v}"):
            routes += [
                Route(model, guarded(self.model), methods=get),
                Route(f"{model}/ready", guarded(self.model_ready), methods=get),
                Route(f"{model}/config", guarded(self.config), methods=get),
                Route(f"{model}/stats", guarded(self.stats), methods=get),
                Route(f"{model}/infer", guarded(self.infer), methods=post),
            ]
        return routes

    async def infer(self, request: Request) -> Response:
        received_ns = time.monotonic_ns()
        view = self._admitted(request, None)  # whether the version may be asked for is the corridor's question
        with self._entrance.reading(view.endpoint):
            caller = self._entrance.caller(request)
            name = "Inference-Header-Content-Length"
            header_length = whole_number(request.headers.get(name), name)
            decoded = await self._entrance.decoded(
                request,
                decode,
                header_length,
                view.signature,
                binary=header_length is not None,
                is_light=header_length == 0,
                own_max=view.body_bytes_max,
            )
            asked = request_of(
                view.endpoint,
                decoded,
                caller,
                protocol=_V2_REST,
                received_ns=received_ns,
                version=request.path_params.get("v"),
                may_explain=caller.explain and self._entrance.may(request, "read", view.endpoint),
            )
        reply = await unless_gone(request, self._corridor.infer(asked))
        return infer_reply(request, reply, *encode(reply, decoded))

    async def server(self, request: Request) -> Response:
        self._entrance.admit(request, "predict")
        return json_reply(server_metadata())

    async def live(self, request: Request) -> Response:
        return json_reply({"live": True})

    async def ready(self, request: Request) -> Response:
        if self._corridor.is_ready:
            return json_reply({"ready": True})
        return json_reply({"error": "not ready", "code": "not_ready", "ready": False}, status=503)

    async def model(self, request: Request) -> Response:
        return json_reply(model_metadata(self._admitted(request, request.path_params.get("v"))))

    async def model_ready(self, request: Request) -> Response:
        endpoint = request.path_params["m"]
        self._entrance.admit(request, "predict", endpoint)
        with self._entrance.reading():
            state = self._corridor.state(endpoint, request.path_params.get("v"))
        if state.is_ready:
            return json_reply({"name": endpoint, "ready": True})
        status, headers, _ = refuse(NotWarm(f"'{endpoint}' is not warm here"))
        document = {"error": f"'{endpoint}' is not warm here", "code": "not_warm", "name": endpoint, "ready": False}
        return respond(status, headers, orjson.dumps(document))

    async def config(self, request: Request) -> Response:
        return json_reply(model_config(self._admitted(request, request.path_params.get("v"))))

    async def stats(self, request: Request) -> Response:
        view = self._admitted(request, request.path_params.get("v"))
        return json_reply(stats_document(await gathered(self._statistics, [view], request.path_params.get("v"))))

    async def stats_of_all(self, request: Request) -> Response:
        self._entrance.admit(request, "predict")
        return json_reply(stats_document(await gathered(self._statistics, self._views(request))))

    async def index(self, request: Request) -> Response:
        self._entrance.admit(request, "predict")
        asked = await self._entrance.decoded(request, _optional, _IndexRequest(), '{"ready": true|false}')
        states = self._repository.index() if self._repository else warm_versions(self._corridor.views())
        seen = [one for one in states if self._entrance.may(request, "predict", one.endpoint)]
        return json_reply(repository_index(seen, ready_only=asked.ready))

    async def load(self, request: Request) -> Response:
        """A revision that resolves the endpoint's aliases now; answered when it is live, with an empty body, as Triton does."""
        endpoint, author = self._writer(request)
        asked = await self._entrance.decoded(request, _optional, _LoadRequest(), '{"parameters": {…}}')
        await self._loader().load(endpoint, pins_in(asked.parameters), author)
        return respond(200, [], b"")

    async def unload(self, request: Request) -> Response:
        endpoint, _ = self._writer(request)
        await self._loader().unload(endpoint)
        return respond(200, [], b"")

    def _writer(self, request: Request) -> tuple[str, str]:
        """The endpoint in the path, and the name of the key that may change what is loaded for it."""
        endpoint = request.path_params["m"]
        self._entrance.admit(request, "model:write", endpoint)
        return endpoint, self._entrance.name(request)

    def _loader(self) -> Repository:
        if self._repository is None:
            raise NotReady("nobody loads models for this listener", "repository")
        return self._repository

    def _views(self, request: Request) -> list[ModelView]:
        """The endpoints that this caller may know of."""
        may = self._entrance.may
        return [view for view in self._corridor.views() if may(request, "predict", view.endpoint)]

    def _admitted(self, request: Request, version: str | None) -> ModelView:
        """The view of the model in the path, for a caller who may see it. Raises before any of the body is read."""
        endpoint = request.path_params["m"]
        self._entrance.admit(request, "predict", endpoint)
        with self._entrance.reading():
            return self._corridor.view(endpoint, version)


def _optional(body: bytes, absent: T, form: str) -> T:
    """A body that may be left out, of the type of `absent`, which then stands for it. Raises RequestMalformed."""
    try:
        return msgspec.json.decode(body, type=type(absent)) if body.strip() else absent
    except UNREADABLE:
        raise RequestMalformed(f"wanted an empty body or {form}") from None


def request_of(
    endpoint: str,
    decoded: Decoded,
    caller: Caller,
    *,
    protocol: int,
    received_ns: int,
    version: str | None = None,
    may_explain: bool = False,
) -> InferRequest:
    """The one request type out of a decoded V2 request and its headers or metadata. Raises InputInvalid for a bad parameter."""
    timeout_us = _natural(decoded.parameters, "timeout")
    asked = caller.asks(endpoint, decoded.inputs, protocol=protocol, received_ns=received_ns)
    asked.parameters = decoded.parameters
    asked.request_id = caller.request_id or request_id_of(decoded.id)
    asked.timeout_s = earliest(caller.timeout_s, timeout_us / 1e6 if timeout_us else None)
    asked.priority = _natural(decoded.parameters, "priority")
    asked.version, asked.may_explain = version, may_explain
    return asked


def _natural(parameters: Mapping[str, Parameter], name: str) -> int:
    """`timeout` (microseconds) and `priority`; absent or 0 is the default of the route."""
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise InputInvalid(f"parameter '{name}': wanted a whole number from 0 up")
    return value
