"""The admin API as an ASGI application: the table of calls, the guard before it, and one translation of every error."""

import sqlite3
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from importlib import resources
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.admin.calls import Call, calls
from gateway.admin.context import Admin, may, principal_of
from gateway.admin.guard import Guard
from gateway.admin.openapi import openapi
from gateway.admin.replies import AdminError, answer, invalid, refusal
from gateway.control.changes import EndpointAbsent, NothingToFollow, NothingToRestore
from gateway.control.ramp import NothingToPause
from gateway.settings import WEBHOOK_PATH
from gateway.state.store import RevisionStale
from gateway.telemetry.log import EventLog
from routing.errors import RouteInvalid

log = EventLog(__name__)

_NAMED_MAX: Final = 10
PUBLIC_PAGES: Final = frozenset({"/", "/docs", "/openapi.json"})
"""Shipped with the package, the same for everybody: they show nothing of this gateway."""


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
    auth = admin.settings.auth
    public = PUBLIC_PAGES | {call.path for call in table if call.scope == "public"}
    return Guard(app, ring=admin.keys.ring, needs_keys=auth.admin == "keys", names=auth.admin_hosts, public=public)


def webhooks_alone(admin: Admin) -> ASGIApp:
    """For the listener of whoever sends webhooks: that one call, whose signature stands in place of a key, and nothing else."""
    (call,) = (call for call in calls() if call.path == WEBHOOK_PATH)
    app = Starlette(
        routes=[Route(call.path, _handled(admin, call), methods=[call.method])],
        exception_handlers={HTTPException: _http, Exception: _unexpected},
    )
    return Guard(app, ring=admin.keys.ring, needs_keys=True, public={call.path})


def _handled(admin: Admin, call: Call) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            if admin.settings.auth.admin == "keys":
                _check_scope(call, request)
            return await call.handler(admin, request)
        except AdminError as error:
            return refusal(error)
        except RouteInvalid as error:
            return refusal(invalid(error))
        except RevisionStale as error:
            headers = {} if error.current is None else {"ETag": f'"{error.current}"'}
            return refusal(AdminError(412, "precondition_failed", str(error)), headers)
        except EndpointAbsent as error:
            return refusal(AdminError(404, "endpoint_unknown", f"{error}{_others(admin, request)}"))
        except NothingToRestore as error:
            return refusal(AdminError(422, "nothing_to_restore", str(error)))
        except NothingToPause as error:
            return refusal(AdminError(422, "nothing_to_pause", str(error)))
        except NothingToFollow as error:
            return refusal(AdminError(422, "nothing_to_follow", str(error)))
        except sqlite3.OperationalError as error:
            log.error("state_not_writable", error=error, method=request.method, path=request.url.path)
            text = f"the state database does not take it now ({error}); look at what is there, then try again"
            return refusal(AdminError(503, "state_unavailable", text), {"Retry-After": "5"})

    return handle


def _others(admin: Admin, request: Request) -> str:
    """Which endpoint may have been meant, of those that the caller may see."""
    name = str(request.path_params["endpoint"])
    known = [endpoint for endpoint in admin.store.endpoints() if may(admin, request, "read", endpoint)]
    if name in known:
        return ""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; there: {', '.join(known[:_NAMED_MAX]) or 'none'}"


def _check_scope(call: Call, request: Request) -> None:
    """Whether the key may make this call, which is denied to all if the table does not say what it takes. Raises AdminError."""
    if call.scope == "public":
        return
    principal = principal_of(request)
    if principal is None or call.scope is None:
        raise AdminError(403, "not_allowed", "this call is open to nobody: it has no scope")
    grants = principal.grants
    endpoint = request.path_params.get("endpoint")
    if endpoint is None and "endpoint" in call.query:
        endpoint = request.query_params.get("endpoint")
    if endpoint is not None:
        is_allowed, where = grants.allow(call.scope, endpoint), f" for endpoint '{endpoint}'"
    elif call.sifts:
        is_allowed, where = grants.allow_some(call.scope), ""
    else:
        is_allowed = grants.allow_all(call.scope)
        where = " for all endpoints" if grants.allow_some(call.scope) else ""
    if not is_allowed:
        raise AdminError(403, "not_allowed", f"this key has no scope {call.scope}{where}")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "path_unknown", 405: "method_not_allowed"}.get(error.status_code, "refused")
    return refusal(
        AdminError(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}"), error.headers
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("admin_call_broke", error=error, method=request.method, path=request.url.path)
    return refusal(AdminError(500, "internal", "internal error; the log of control has the details"))
