"""Handlers that read and change routes. Each is thin: what a change means is said in `gateway/control/changes.py`."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin import views
from gateway.admin.context import Admin, author_of, body_of, expected_of, is_number, may, object_of, page_of, wait_of
from gateway.admin.replies import AdminError, answer
from gateway.control.changes import EndpointAbsent
from gateway.state.revision import Revision
from routing.errors import RouteInvalid

_SERVING_S: Final = 2.0
"""How long an answer waits for workers to take up what is live; they look every 20 ms, unless they hang."""


async def list_routes(admin: Admin, request: Request) -> Response:
    names = (endpoint for endpoint in admin.store.endpoints() if may(admin, request, "read", endpoint))
    currents = (admin.store.current(endpoint) for endpoint in names)
    return answer({"routes": [views.route(admin.store, admin.fleet, current) for current in currents if current]})


async def get_route(admin: Admin, request: Request) -> Response:
    current = _current(admin, request)
    return answer(views.route(admin.store, admin.fleet, current), headers={"ETag": views.etag(current)})


async def put_route(admin: Admin, request: Request) -> Response:
    author, expected, wait_s = author_of(admin, request), expected_of(request, creates=True), wait_of(request)
    document = await object_of(request)
    document.pop("status", None)  # what a GET added
    override = _override(admin, request, request.query_params.get("override", "false") == "true")
    try:
        revision = admin.changes.put(_endpoint(request), document, expected=expected, author=author, override=override)
    except RouteInvalid as error:
        raise await admin.planner.refusal(error) from error
    return await _written(admin, revision, wait_s)


async def patch_weights(admin: Admin, request: Request) -> Response:
    author, expected, wait_s = author_of(admin, request), expected_of(request), wait_of(request)
    body = await object_of(request)
    if not body:
        raise AdminError(400, "body_invalid", 'wanted {"variant": weight, …}, got no weight')
    before = admin.store.current(_endpoint(request))
    revision, route = admin.changes.weights(_endpoint(request), body, expected=expected, author=author)
    if before is not None and revision.number == before.number:
        more = {"state": "unchanged", "changes": [], "weights": views.weights(route)}
        return answer(views.written(revision) | more, headers={"ETag": views.etag(revision)})
    return await _written(admin, revision, wait_s, weights=views.weights(route))


async def delete_route(admin: Admin, request: Request) -> Response:
    author, expected, wait_s = author_of(admin, request), expected_of(request), wait_of(request)
    revision = admin.changes.delete(_endpoint(request), expected=expected, author=author)
    return await _written(admin, revision, wait_s)


async def plan_route(admin: Admin, request: Request) -> Response:
    body = await body_of(request)
    if isinstance(body, dict):
        body.pop("status", None)
    return answer(await admin.planner.plan(_endpoint(request), body))


async def promote(admin: Admin, request: Request) -> Response:
    body = await object_of(request)
    author, expected, wait_s = author_of(admin, request, body), expected_of(request), wait_of(request)
    kinds = [kind for kind in ("variant", "mirror") if kind in body]
    if len(kinds) != 1 or not isinstance(body[kinds[0]], str):
        raise AdminError(400, "body_invalid", 'wanted {"variant": name} or {"mirror": name}')
    revision = admin.changes.promote(
        _endpoint(request), body[kinds[0]], is_mirror=kinds[0] == "mirror", expected=expected, author=author
    )
    return await _written(admin, revision, wait_s)


async def rollback(admin: Admin, request: Request) -> Response:
    body = await object_of(request)
    author, wait_s = author_of(admin, request, body), wait_of(request)
    to, move_alias = body.get("to"), body.get("move_alias", False)
    is_revision = isinstance(to, int) and not isinstance(to, bool) and 0 < to < 1 << 63
    if not (to is None or is_revision) or not isinstance(move_alias, bool):
        raise AdminError(400, "body_invalid", 'wanted {"to"?: revision, "move_alias"?: true | false}')
    revision = admin.changes.rollback(_endpoint(request), to=to, move_alias=move_alias, author=author)
    return await _written(admin, revision, wait_s)


async def follow(admin: Admin, request: Request) -> Response:
    """Takes what the aliases named at the newest look. `versions` guards against an alias that has moved since somebody looked."""
    body = await object_of(request)
    author, expected, wait_s = author_of(admin, request, body), expected_of(request), wait_of(request)
    wanted, override = body.get("versions"), body.get("override", False)
    if not (wanted is None or isinstance(wanted, dict)) or not isinstance(override, bool):
        raise AdminError(400, "body_invalid", 'wanted {"versions"?: {arm: version}, "override"?: true | false}')
    offered = admin.changes.offered(_endpoint(request))
    if wanted is not None and not wanted.items() <= offered.items():
        named = ", ".join(f"{arm} {version}" for arm, version in offered.items()) or "what is served"
        raise AdminError(412, "precondition_failed", f"the aliases name {named} by now; look again")
    revision = admin.changes.follow(
        _endpoint(request),
        offered if wanted is None else wanted,
        expected=expected,
        author=author,
        override=_override(admin, request, override),
    )
    return await _written(admin, revision, wait_s)


async def pause(admin: Admin, request: Request) -> Response:
    author = author_of(admin, request, await object_of(request))
    ramp = admin.ramps.pause(_endpoint(request), author=author)
    return answer({"endpoint": _endpoint(request), "state": "paused", "step": ramp.step + 1})


async def resume(admin: Admin, request: Request) -> Response:
    """Both things that control does by itself, or with `what` one of them."""
    body = await object_of(request)
    author, endpoint, what = author_of(admin, request, body), _endpoint(request), body.get("what")
    if what not in {None, "following", "steps"}:
        raise AdminError(400, "body_invalid", 'wanted {"what"?: "following" | "steps"}')
    if what != "steps":
        admin.changes.resume(endpoint, author=author)
        admin.follower.nudge()
    if what != "following":
        admin.ramps.resume(endpoint, author=author)
    return answer({"endpoint": endpoint, "state": "resumed"})


async def history(admin: Admin, request: Request) -> Response:
    endpoint = _endpoint(request)
    limit, before = page_of(request)
    found = admin.store.revisions(limit=limit, before=before, endpoint=endpoint)
    if not found and before is None:
        raise EndpointAbsent(f"there is no endpoint '{endpoint}', and there never was")
    revisions = [views.history(admin.store, revision) for revision in found]
    return answer({"endpoint": endpoint, "revisions": revisions, "audit": views.verdict(admin.store)})


async def list_revisions(admin: Admin, request: Request) -> Response:
    limit, before = page_of(request)
    found = admin.store.revisions(limit=limit, before=before)
    revisions = [views.history(admin.store, revision) for revision in found]
    return answer({"revisions": revisions, "audit": views.verdict(admin.store)})


async def get_revision(admin: Admin, request: Request) -> Response:
    number = str(request.path_params["number"])
    found = admin.store.revision(int(number)) if is_number(number) else None
    if found is None:
        raise AdminError(404, "revision_unknown", f"there is no revision {number}")
    return answer(views.revision(admin.store, found))


async def audit(admin: Admin, request: Request) -> Response:
    limit, before = page_of(request)
    rows = admin.store.audit(limit=limit, before=before, endpoint=request.query_params.get("endpoint"))
    return answer({**views.verdict(admin.store), "rows": [views.audit(row) for row in rows]})


# ---------------------------------------------------------------- helpers


def _endpoint(request: Request) -> str:
    return str(request.path_params["endpoint"])


def _override(admin: Admin, request: Request, is_wanted: bool) -> bool:
    """Whether the checks are passed by; raises AdminError for a key that may not."""
    if is_wanted and not may(admin, request, "gate:override", _endpoint(request)):
        raise AdminError(403, "not_allowed", f"this key has no scope gate:override for endpoint '{_endpoint(request)}'")
    return is_wanted


def _current(admin: Admin, request: Request) -> Revision:
    current = admin.store.current(_endpoint(request))
    if current is None:
        raise EndpointAbsent(f"there is no endpoint '{_endpoint(request)}'")
    return current


def _live_number(admin: Admin, revision: Revision) -> int | None:
    live = admin.store.live(revision.endpoint)
    return live.number if live else None


async def _written(admin: Admin, revision: Revision, wait_s: float | None, **more: object) -> Response:
    """202 with the revision and its state; for a caller who waits 200 once it is live, 409 when it failed or was overtaken."""
    status = 202
    if wait_s is not None:
        revision = await admin.reconciler.finished(revision.number, wait_s)
        status = {"live": 200, "failed": 409, "superseded": 409}.get(revision.state, 202)
        if status == 409 and admin.store.was_live(revision.number):  # and something newer is by now: a step, an alias
            status = 200
    document = views.written(revision) | {"changes": views.changes(admin.store, revision)} | more
    compiled = admin.store.compiled(revision.number)
    if status == 200 and compiled is not None and wait_s is not None:  # the caller's next request finds it everywhere
        await admin.fleet.serving(revision.number, min(wait_s, _SERVING_S))
    if compiled is not None:
        document["shares"] = compiled.shares
    if status == 200 and revision.state == "superseded":
        document["followed_by"] = _live_number(admin, revision)
    if status == 409:
        kind = "failed" if revision.state == "failed" else "was superseded by a newer one before it was live"
        document |= {
            "error": f"revision {revision.number} of endpoint '{revision.endpoint}' {kind}",
            "code": f"revision_{revision.state}",
        }
    return answer(document, status, {"ETag": views.etag(revision)})
