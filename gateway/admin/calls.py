"""The one table of the admin API: its calls, as the router serves them and as `/openapi.json` describes them."""

from typing import Final, Literal

import msgspec

from gateway.admin import keys, looking, records, routes, schemas, tuning, webhooks
from gateway.admin.context import Handler
from gateway.admin.schemas import Schema
from gateway.keys.scopes import Declared
from gateway.settings import WEBHOOK_PATH

Method = Literal["GET", "PUT", "PATCH", "POST", "DELETE"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `query` and `headers` name what it reads (see `gateway/admin/schemas.py`); `answers`: status → what it means.

    `scope` is what a key needs for it, for the endpoint in the path or in `?endpoint=`, else for all endpoints; without one (None)
    nobody may make the call where keys are needed. `sifts`: any grant of the scope will do, the handler leaves out the rest.
    """

    method: Method
    path: str
    handler: Handler
    summary: str
    tag: str
    scope: Declared | None = None
    sifts: bool = False
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    answers: dict[int, str] = msgspec.field(default_factory=lambda: {200: "done"})


_WRITTEN: Final = {
    200: "live (only for a caller who waits)",
    202: "accepted; on its way",
    400: "no reason, or not JSON",
    404: "no such endpoint",
    409: "failed, with its problems (only for a caller who waits)",
    412: "the route is not as you saw it",
    422: "refused, with every problem at once",
    428: "If-Match is missing",
}
_FOUND: Final = {200: "found", 404: "not found"}
_CHANGE: Final = ("reason", "wait")
_PAGE: Final = ("limit", "before")
_WINDOW: Final = ("since", "until")
_ROUTE: Final = "/admin/v1/routes/{endpoint}"
_ENDPOINT: Final = "/admin/v1/endpoints/{endpoint}"
_KEYS: Final = "/admin/v1/keys"


def calls() -> list[Call]:
    """Every call. Actions (`:promote`) stand before the path that they extend, so that the router sees them first."""
    return [
        Call(
            method="GET",
            path="/admin/v1/routes",
            handler=routes.list_routes,
            scope="read",
            sifts=True,
            tag="routes",
            summary="Every endpoint with its route and what of it is served",
        ),
        Call(
            method="POST",
            path=f"{_ROUTE}:plan",
            handler=routes.plan_route,
            scope="read",
            tag="routes",
            summary="What a document would change: problems, models, memory, moved units",
            body=schemas.ROUTE,
            body_required=False,
            answers={200: "the plan"},
        ),
        Call(
            method="POST",
            path=f"{_ROUTE}:promote",
            handler=routes.promote,
            scope="route:write",
            tag="routes",
            summary="The champion takes the version that this arm serves now",
            query=_CHANGE,
            headers=("If-Match",),
            body=schemas.PROMOTE,
            answers=_WRITTEN,
        ),
        Call(
            method="POST",
            path=f"{_ROUTE}:rollback",
            handler=routes.rollback,
            scope="route:write",
            tag="routes",
            summary="Back to the previous live revision, at once and without the registry",
            query=_CHANGE,
            body=schemas.ROLLBACK,
            body_required=False,
            answers=_without(_WRITTEN, 412, 428),
        ),
        Call(
            method="POST",
            path=f"{_ROUTE}:follow",
            handler=routes.follow,
            scope="route:write",
            tag="routes",
            summary="Take the versions that the aliases name; with `override` past the checks they fail (needs gate:override too)",
            query=_CHANGE,
            headers=("If-Match",),
            body=schemas.FOLLOW,
            body_required=False,
            answers=_WRITTEN,
        ),
        Call(
            method="POST",
            path=f"{_ROUTE}:pause",
            handler=routes.pause,
            scope="route:write",
            tag="routes",
            summary="Stay at the present step of the route's steps",
            query=("reason",),
            body=schemas.REASON,
            body_required=False,
            answers={200: "paused", 400: "no reason", 422: "no steps run"},
        ),
        Call(
            method="POST",
            path=f"{_ROUTE}:resume",
            handler=routes.resume,
            scope="route:write",
            tag="routes",
            summary="Follow aliases again (after a rollback, after a refused version) and go on with paused steps",
            query=("reason",),
            body=schemas.RESUME,
            body_required=False,
            answers={200: "done", 400: "no reason", 404: "no such endpoint"},
        ),
        Call(
            method="GET",
            path=f"{_ROUTE}/history",
            handler=routes.history,
            scope="read",
            tag="routes",
            summary="Revisions of the endpoint, newest first",
            query=_PAGE,
            answers=_FOUND,
        ),
        Call(
            method="PATCH",
            path=f"{_ROUTE}/weights",
            handler=routes.patch_weights,
            scope="route:write",
            tag="routes",
            summary="Set weights; arms not named keep theirs",
            query=_CHANGE,
            headers=("If-Match",),
            body=schemas.WEIGHTS,
            answers=_WRITTEN,
        ),
        Call(
            method="GET",
            path=_ROUTE,
            handler=routes.get_route,
            scope="read",
            tag="routes",
            summary="The route document, with `status`, and its ETag",
            answers=_FOUND,
        ),
        Call(
            method="PUT",
            path=_ROUTE,
            handler=routes.put_route,
            scope="route:write",
            tag="routes",
            summary="Make or replace the route; aliases are resolved now",
            query=(*_CHANGE, "override"),
            headers=("If-Match", "If-None-Match"),
            body=schemas.ROUTE,
            answers=_WRITTEN,
        ),
        Call(
            method="DELETE",
            path=_ROUTE,
            handler=routes.delete_route,
            scope="route:write",
            tag="routes",
            summary="Take the endpoint away",
            query=_CHANGE,
            headers=("If-Match",),
            answers=_WRITTEN,
        ),
        Call(
            method="GET",
            path="/admin/v1/revisions",
            handler=routes.list_revisions,
            scope="read",
            tag="history",
            summary="Revisions of all endpoints, newest first",
            query=_PAGE,
        ),
        Call(
            method="GET",
            path="/admin/v1/revisions/{number}",
            handler=routes.get_revision,
            scope="read",
            tag="history",
            summary="One revision whole",
            answers=_FOUND,
        ),
        Call(
            method="GET",
            path="/admin/v1/audit",
            handler=routes.audit,
            scope="read",
            tag="history",
            summary="Who did what, hash-chained",
            query=(*_PAGE, "endpoint"),
        ),
        Call(
            method="GET",
            path="/admin/v1/models",
            handler=looking.list_models,
            scope="read",
            tag="models",
            summary="Model versions made ready to serve",
        ),
        Call(
            method="POST",
            path="/admin/v1/models/{name}/{version}:tune",
            handler=tuning.tune_model,
            scope="model:write",
            tag="models",
            summary="Measure one version anew; workers take the profile within seconds",
            query=("reason",),
            body=schemas.TUNE,
            body_required=False,
            answers={
                200: "the profile",
                400: "no reason",
                404: "not staged here",
                409: "nothing is recorded of the endpoint",
                422: "refused",
                500: "it could not be measured; what was known before still holds",
                503: "too many wait",
            },
        ),
        Call(
            method="GET",
            path="/admin/v1/models/{name}/{version}",
            handler=looking.get_model,
            scope="read",
            tag="models",
            summary="One version: signature, certificate, tuning profile, memory",
            answers=_FOUND,
        ),
        Call(
            method="GET",
            path=f"{_ENDPOINT}/ledger",
            handler=looking.ledger,
            scope="read",
            tag="evidence",
            summary="Champion and mirrors on the same rows",
            query=("mirror", "variant", "segment_by", *_WINDOW),
            answers=_FOUND,
        ),
        Call(
            method="GET",
            path=f"{_ENDPOINT}/quality",
            handler=looking.quality,
            scope="read",
            tag="evidence",
            summary="How right each variant and mirror was",
            query=("by", "segment_by", *_WINDOW),
            answers=_FOUND,
        ),
        Call(
            method="GET",
            path="/admin/v1/predictions/{prediction_id}",
            handler=looking.prediction,
            scope="records:read",
            sifts=True,
            tag="evidence",
            summary="A record, its shadows, its labels",
            answers=_FOUND,
        ),
        Call(
            method="POST",
            path="/admin/v1/records:forget",
            handler=records.forget,
            scope="route:write",  # whoever may set a retention of an hour may delete as well
            tag="evidence",
            summary="Delete what is recorded about one unit, over all endpoints; audited under its keyed hash",
            query=("reason",),
            body=schemas.FORGET,
            answers={
                200: "deleted, with the rows by table",
                400: "no reason or no unit",
                503: "the lake cannot be written",
            },
        ),
        Call(
            method="GET",
            path="/admin/v1/runtime",
            handler=looking.runtime,
            scope="read",
            sifts=True,
            tag="runtime",
            summary="What every process does now",
        ),
        Call(
            method="GET",
            path=_KEYS,
            handler=keys.list_keys,
            scope="keys:write",
            tag="keys",
            summary="Every key that there ever was, without its secret",
        ),
        Call(
            method="POST",
            path=_KEYS,
            handler=keys.make_key,
            scope="keys:write",
            tag="keys",
            summary="Make a key; the answer is the only time that it is shown",
            query=("reason",),
            body=schemas.KEY,
            answers={201: "made", 400: "no reason", 403: "the maker lacks one of its scopes", 422: "refused"},
        ),
        Call(
            method="POST",
            path=f"{_KEYS}/{{id}}:rotate",
            handler=keys.rotate_key,
            scope="keys:write",
            tag="keys",
            summary="Make a successor; the old key goes on for the overlap",
            query=("reason",),
            body=schemas.ROTATE,
            body_required=False,
            answers={201: "made", 400: "no reason", 404: "no such key", 409: "it has ended, or has a successor"},
        ),
        Call(
            method="DELETE",
            path=f"{_KEYS}/{{id}}",
            handler=keys.revoke_key,
            scope="keys:write",
            tag="keys",
            summary="Revoke a key, everywhere within a tenth of a second",
            query=("reason",),
            answers={200: "revoked", 400: "no reason", 404: "no such key"},
        ),
        Call(
            method="POST",
            path=WEBHOOK_PATH,
            handler=webhooks.mlflow,
            scope="public",  # it checks a signature instead of a key
            tag="runtime",
            summary="A signed word from the registry that something moved; only makes the gateway look",
            body={"type": "object"},
            answers={200: "taken", 401: "the signature or its time is not right", 404: "no secret is set"},
        ),
        *_promised(),
    ]


def _promised() -> list[Call]:
    """Calls of the contract that are not built yet: they answer 501 with the code `not_built_yet`."""
    rows: list[tuple[Method, str, str, Declared]] = [
        ("GET", f"{_ENDPOINT}/experiment", "evidence", "read"),
        ("PUT", f"{_ENDPOINT}/experiment", "evidence", "route:write"),
        ("GET", f"{_ENDPOINT}/evidence", "evidence", "read"),
        ("GET", f"{_ENDPOINT}/evaluations", "evidence", "read"),
        ("POST", f"{_ENDPOINT}/evaluations", "evidence", "route:write"),
        ("GET", f"{_ENDPOINT}/rollout", "evidence", "read"),
        ("PUT", f"{_ENDPOINT}/rollout", "evidence", "route:write"),
        ("GET", "/admin/v1/tail", "runtime", "records:read"),
        ("POST", "/admin/v1/runtime/profile", "runtime", "model:write"),
    ]
    return [
        Call(
            method=method,
            path=path,
            handler=looking.not_built_yet,
            summary="Not built yet",
            tag=tag,
            scope=scope,
            body={} if method != "GET" else None,
            body_required=False,
            answers={501: "not built yet"},
        )
        for method, path, tag, scope in rows
    ]


def _without(answers: dict[int, str], *statuses: int) -> dict[int, str]:
    return {status: text for status, text in answers.items() if status not in statuses}
