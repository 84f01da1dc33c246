"""All of the data plane's REST paths as one ordinary ASGI app over the corridor: behind the wire door, or alone."""

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.request import Corridor, LabelSink
from gateway.rest.doorkeeper import Doorkeeper, OpenDoor
from gateway.rest.entrance import Entrance
from gateway.rest.invocations import ScoringDoor
from gateway.rest.labels import LabelDoor
from gateway.rest.refusals import no_route, respond
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
) -> Starlette:
    """The app. It holds no state of its own and starts nothing, so that any ASGI server may run it."""
    entrance = Entrance(settings, doorkeeper)
    app = Starlette(
        routes=[
            *OpenInferenceDoor(corridor, entrance, statistics).routes(),
            *ScoringDoor(corridor, entrance).routes(),
            *TensorflowDoor(corridor, entrance).routes(),
            *LabelDoor(labels, entrance).routes(),
        ],
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = (
        False  # a redirect would hide a wrong path from clients that follow it, and fail the others
    )
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, in JSON. Raised before any door, so there is nothing to translate."""
    assert isinstance(error, HTTPException)
    return respond(*no_route(request.method, request.scope["path"], (error.headers or {}).get("Allow")))
