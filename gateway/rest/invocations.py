"""MLflow's scoring paths: `/invocations` for the default endpoint or a named one, Databricks' form of it, `/ping`, `/health`, `/version`."""
# ruff: noqa: ARG002  # Starlette calls every handler with its request

import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.request import Corridor, InferRequest
from gateway.rest.entrance import JSON, Entrance, infer_reply, unless_gone
from gateway.rest.headers import Caller
from gateway.rest.metadata import package_version
from gateway.rest.refusals import guarded, respond
from gateway.rest.scoring import Scored, decode, encode, refuse
from routing.records import PROTOCOLS

_MLFLOW: Final = PROTOCOLS.index("mlflow")


class ScoringDoor:
    """Everything that MLflow's and Databricks' clients call."""

    def __init__(self, corridor: Corridor, entrance: Entrance) -> None:
        self._corridor = corridor
        self._entrance = entrance
        self._version = package_version("mlflow", default=package_version()).encode()

    def routes(self) -> list[Route]:
        """Refusals of the scoring paths have MLflow's form."""
        score = guarded(self.score, refuse)
        return [
            Route("/invocations", score, methods=["POST"]),
            Route("/endpoints/{m}/invocations", score, methods=["POST"]),
            Route("/serving-endpoints/{m}/invocations", score, methods=["POST"]),
            Route("/ping", guarded(self.ping), methods=["GET"]),
            Route("/health", guarded(self.ping), methods=["GET"]),
            Route("/version", guarded(self.version), methods=["GET"]),
        ]

    async def score(self, request: Request) -> Response:
        received_ns = time.monotonic_ns()
        self._entrance.recognise(request, "predict")  # the default endpoint is not for everybody to know
        with self._entrance.reading():
            caller = self._entrance.caller(request)
            endpoint = request.path_params.get("m") or caller.endpoint or self._corridor.default_endpoint()
        self._entrance.admit(request, "predict", endpoint)
        with self._entrance.reading():
            view = self._corridor.view(endpoint)
        with self._entrance.reading(view.endpoint):
            media = request.headers.get("content-type")
            scored = await self._entrance.decoded(request, decode, media, view.signature, own_max=view.body_bytes_max)
        asked = request_of(view.endpoint, scored, caller, received_ns=received_ns)
        asked.may_explain = caller.explain and self._entrance.may(request, "read", view.endpoint)
        reply = await unless_gone(request, self._corridor.infer(asked))
        return infer_reply(request, reply, [JSON], encode(reply))

    async def ping(self, request: Request) -> Response:
        """A newline, and 404 while not ready, as MLflow's server answers."""
        return respond(200 if self._corridor.is_ready else 404, [JSON], b"\n")

    async def version(self, request: Request) -> Response:
        """The MLflow version whose scoring protocol this is; its clients compare it with their own."""
        return respond(200, [JSON], self._version)


def request_of(endpoint: str, scored: Scored, caller: Caller, *, received_ns: int) -> InferRequest:
    """The one request type out of a decoded scoring request and its headers."""
    asked = caller.asks(endpoint, scored.inputs, protocol=_MLFLOW, received_ns=received_ns)
    asked.request_id = caller.request_id or scored.client_request_id
    return asked
