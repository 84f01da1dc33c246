"""The admin API as an ASGI application: the table of calls, the guard before it, and one translation of every error."""

from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.admin.calls import Call, calls
from gateway.admin.context import Admin
from gateway.admin.guard import Guard
from gateway.admin.openapi import openapi
from gateway.admin.replies import AdminError, answer, invalid, refusal
from gateway.control.changes import EndpointAbsent, NothingToRestore
from gateway.state.store import RevisionStale
from gateway.telemetry.log import EventLog
from routing.errors import RouteInvalid

log = EventLog(__name__)


def build(admin: Admin) -> ASGIApp:
    table = calls()
    description = openapi(table)
    page = (resources.files("gateway.admin") / "docs.html").read_text("utf-8")

    async def describe(_request: Request) -> Response:
        return answer(description)

    async def docs(_request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'self' 'unsafe-inline'"})

    async def home(_request: Request) -> Response:
        return RedirectResponse("/docs")

    app = Starlette(
        routes=[
            *(Route(call.path, _handled(admin, call), methods=[call.method]) for call in table),
            Route("/openapi.json", describe),
            Route("/docs", docs),
            Route("/", home),
        ],
        exception_handlers={HTTPException: _http, Exception: _unexpected},
    )
    return Guard(app, names=admin.settings.auth.admin_hosts, needs_keys=admin.settings.auth.admin == "keys")


def _handled(admin: Admin, call: Call) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            return await call.handler(admin, request)
        except AdminError as error:
            return refusal(error)
        except RouteInvalid as error:
            return refusal(invalid(error))
        except RevisionStale as error:
            headers = {} if error.current is None else {"ETag": f'"{error.current}"'}
            return refusal(AdminError(412, "precondition_failed", str(error)), headers)
        except EndpointAbsent as error:
            return refusal(AdminError(404, "endpoint_unknown", str(error)))
        except NothingToRestore as error:
            return refusal(AdminError(422, "nothing_to_restore", str(error)))

    return handle


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "path_unknown", 405: "method_not_allowed"}.get(error.status_code, "refused")
    return refusal(
        AdminError(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}"), error.headers
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("admin_call_broke", error=error, method=request.method, path=request.url.path)
    return refusal(AdminError(500, "internal", "internal error; the log of control has the details"))
