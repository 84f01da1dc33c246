"""What the handlers of the admin API work with, made once by the control process."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.replies import AdminError
from gateway.control.changes import ANY, Author, Changes
from gateway.control.fleet import Fleet
from gateway.control.follow import Follower
from gateway.control.planning import Planner
from gateway.control.ramp import Ramps
from gateway.control.reconcile import Reconciler
from gateway.control.tuning import Tuning
from gateway.keys.ring import Principal
from gateway.keys.scopes import Scope
from gateway.keys.watch import KeyWatch
from gateway.settings import Settings
from gateway.state.store import StateStore

if TYPE_CHECKING:
    from gateway.admin.deliveries import Webhooks
    from gateway.evidence.evidence import Evidence

WAIT_S_MAX: Final = 300.0


class Admin(msgspec.Struct, frozen=True, kw_only=True):
    """`principal` writes where no key says who does; `keys` know who has one. `evidence` is called on a thread: its first call imports DuckDB (0.4 s).

    `webhooks` None: no secret is set, so there are none. `forget` deletes what is recorded about units; None: nobody writes a lake here.
    """

    settings: Settings
    store: StateStore
    fleet: Fleet
    changes: Changes
    planner: Planner
    reconciler: Reconciler
    follower: Follower
    ramps: Ramps
    webhooks: "Webhooks | None"
    evidence: Callable[[], "Evidence"]
    artifacts: Path
    tuning: Tuning
    principal: str
    keys: KeyWatch
    forget: Callable[[Sequence[str]], Awaitable[dict[str, int]]] | None = None


Handler = Callable[[Admin, Request], Awaitable[Response]]
PRINCIPAL: Final = "runoff.principal"
"""Where in an ASGI scope the guard notes who came in with a key."""


def principal_of(request: Request) -> Principal | None:
    """Who came in with a key; None where nobody has to (`[auth] admin = open`)."""
    principal: Principal | None = request.scope.get(PRINCIPAL)
    return principal


def may(admin: Admin, request: Request, scope: Scope, endpoint: str) -> bool:
    """Whether the caller may do this to an endpoint that stands in no path: for lists, and for what is known by another name."""
    if admin.settings.auth.admin == "open":
        return True
    principal = principal_of(request)
    return principal is not None and principal.grants.allow(scope, endpoint)


async def body_of(request: Request) -> Any:
    """The JSON body; None when there is none. Raises AdminError."""
    raw = await request.body()
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AdminError(400, "json_malformed", f"the body is not JSON: {error}") from error


async def object_of(request: Request) -> dict[str, Any]:
    """The body as an object, empty when there is none."""
    body = await body_of(request)
    if body is not None and not isinstance(body, dict):
        raise AdminError(400, "json_malformed", "wanted a JSON object as the body")
    return body or {}


def author_of(admin: Admin, request: Request, body: dict[str, Any] | None = None) -> Author:
    """Who asks and why; the reason may stand in an action's body as well. Raises AdminError without one."""
    reason = request.query_params.get("reason") or (body or {}).get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise AdminError(
            400, "reason_missing", "every change needs a reason: --reason on the command line, ?reason=… in a request"
        )
    if len(reason) > 1000:
        raise AdminError(400, "reason_too_long", f"wanted a reason of at most 1000 characters, got {len(reason)}")
    principal = principal_of(request)
    return Author(principal.name if principal else admin.principal, reason.strip())


def expected_of(request: Request, *, creates: bool = False) -> int | None:
    """The revision that the caller saw, from If-Match; None from `If-None-Match: *`. Raises AdminError (428, 412)."""
    seen, absent = request.headers.get("if-match"), request.headers.get("if-none-match")
    if creates and absent is not None and seen is None:
        if absent.strip() != "*":
            raise AdminError(412, "precondition_failed", "wanted If-None-Match: *")
        return None
    if seen is None:
        wanted = ", or If-None-Match: * for a new endpoint" if creates else ""
        raise AdminError(
            428, "precondition_required", f"wanted If-Match with the ETag of the route as you saw it{wanted}"
        )
    if seen.strip() == "*":
        return ANY
    text = seen.strip().removeprefix("W/").strip('"')
    if not is_number(text):
        raise AdminError(412, "precondition_failed", f"If-Match {seen} is no ETag of a route")
    return int(text)


def wait_of(request: Request) -> float | None:
    """Seconds of `?wait=`, at most 300; None: the caller does not wait."""
    text = request.query_params.get("wait")
    if text is None:
        return None
    try:
        wait_s = float(text or WAIT_S_MAX)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < float("inf"):
        raise AdminError(400, "wait_malformed", f"wanted ?wait=<seconds>, got {text!r}")
    return min(wait_s, WAIT_S_MAX)


def is_number(text: str) -> bool:
    """Whether a text is a plain decimal number that a revision could have (at most 18 digits)."""
    return text.isascii() and text.isdecimal() and len(text) <= 18


def page_of(request: Request) -> tuple[int, int | None]:
    """`?limit=` (1 to 1000, default 50) and `?before=`."""
    query = request.query_params
    limit, before = query.get("limit", "50"), query.get("before")
    if not is_number(limit) or not 1 <= int(limit) <= 1000 or not (before is None or is_number(before)):
        raise AdminError(400, "page_malformed", "wanted ?limit=1…1000 and ?before=<number>")
    return int(limit), None if before is None else int(before)
