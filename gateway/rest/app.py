"""All of the data plane's REST paths as one ordinary ASGI app over the corridor: behind the wire door, or alone."""

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admission import Admission
from gateway.errors import NotAllowed
from gateway.keys.doorkeeper import Doorkeeper, OpenDoor
from gateway.keys.policy import PATHS
from gateway.repository import Repository
from gateway.request import Corridor, LabelSink
from gateway.rest.entrance import Entrance
from gateway.rest.invocations import ScoringDoor
from gateway.rest.labels import LabelDoor
from gateway.rest.refusals import no_route, refuse, respond
from gateway.rest.tensorflow import TensorflowDoor
from gateway.rest.v2 import OpenInferenceDoor
from gateway.settings import Settings
from gateway.statistics import Statistics

_OPEN_DOOR: Final = OpenDoor()


def build(
    corridor: Corridor,
    labels: LabelSink,
    settings: Settings,
    *,
    doorkeeper: Doorkeeper = _OPEN_DOOR,
    statistics: Statistics | None = None,
    repository: Repository | None = None,
    admission: Admission | None = None,
) -> Starlette:
    """The app. It holds no state of its own and starts nothing, so that any ASGI server may run it."""
    entrance = Entrance(settings, doorkeeper, corridor.refused, admission)
    app = Starlette(
        routes=[
            route if route.path in PATHS else _undeclared(route)
            for route in (
                *OpenInferenceDoor(corridor, entrance, statistics, repository).routes(),
                *ScoringDoor(corridor, entrance).routes(),
                *TensorflowDoor(corridor, entrance).routes(),
                *LabelDoor(labels, entrance).routes(),
            )
        ],
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = (
        False  # a redirect would hide a wrong path from clients that follow it, and fail the others
    )
    return app


def _undeclared(route: Route) -> Route:
    """A path that nobody has said who may call: nobody may."""

    async def deny(_: Request) -> Response:
        return respond(*refuse(NotAllowed("this path is open to nobody: it has no scope")))

    return Route(route.path, deny, methods=list(route.methods or ()))


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, in JSON. Raised before any door, so there is nothing to translate."""
    assert isinstance(error, HTTPException)
    return respond(*no_route(request.method, request.scope["path"], (error.headers or {}).get("Allow")))
