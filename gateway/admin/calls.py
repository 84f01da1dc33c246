"""The one table of the admin API: its calls, as the router serves them and as `/openapi.json` describes them."""

from typing import Any, Final, Literal

import msgspec

from gateway.admin import keys, looking, records, routes, tuning, webhooks
from gateway.admin.context import Handler
from gateway.keys.scopes import Declared

Method = Literal["GET", "PUT", "PATCH", "POST", "DELETE"]
Schema = dict[str, Any]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `query` and `headers` name what it reads (see PARAMETERS); `answers`: status → what it means.

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


PARAMETERS: Final[dict[str, tuple[str, Schema, bool]]] = {
    "reason": (
        "why; shown in the history and kept in the audit",
        {"type": "string", "minLength": 1, "maxLength": 1000},
        False,
    ),
    "wait": ("seconds to wait for the revision to be live", {"type": "number", "minimum": 0, "maximum": 300}, False),
    "override": ("take versions past the checks that they fail; needs gate:override", {"type": "boolean"}, False),
    "limit": ("how many, newest first", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, False),
    "before": ("only what is older than this number", {"type": "integer", "minimum": 0}, False),
    "endpoint": ("only of this endpoint", {"type": "string"}, False),
    "mirror": ("only this mirror", {"type": "string"}, False),
    "variant": ("whom mirrors are compared with; default: the champion", {"type": "string"}, False),
    "segment_by": (
        "a column of the predictions, such as input_age; or attribute_<name>, with sensitive:read",
        {"type": "string"},
        False,
    ),
    "since": ("only what arrived at or after this moment", {"type": "string", "format": "date-time"}, False),
    "until": ("only what arrived before this moment", {"type": "string", "format": "date-time"}, False),
    "If-Match": ("the ETag of the route as you saw it; required (428 without it)", {"type": "string"}, False),
    "If-None-Match": ("`*` to make a new endpoint", {"type": "string"}, False),
}

_FORGET: Final[Schema] = {
    "type": "object",
    "required": ["unit"],
    "properties": {"unit": {"type": "string", "minLength": 1}, "reason": {"type": "string"}},
}
_DOCUMENT: Final[Schema] = {
    "type": "object",
    "required": ["endpoint", "variants"],
    "properties": {
        "endpoint": {"type": "string"},
        "champion": {"type": "string"},
        "variants": {
            "type": "array",
            "minItems": 1,
            "maxItems": 32,
            "items": {
                "type": "object",
                "required": ["name", "model"],
                "properties": {
                    "name": {"type": "string"},
                    "model": {"type": "string", "examples": ["models:/phishing@champion", "models:/phishing/3"]},
                    "weight": {"type": "number", "minimum": 0},
                    "fallback": {"type": "boolean"},
                },
            },
        },
        "mirrors": {"type": "array", "items": {"type": "object"}},
        "rules": {"type": "array", "items": {"type": "object"}},
    },
    "description": "A route document; every key of it is in the documentation of routes.",
}
_WEIGHTS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "number"},
    "examples": [{"challenger": 20}],
}
_PROMOTE: Final[Schema] = {
    "type": "object",
    "properties": {"variant": {"type": "string"}, "mirror": {"type": "string"}, "reason": {"type": "string"}},
}
_ROLLBACK: Final[Schema] = {
    "type": "object",
    "properties": {"to": {"type": "integer"}, "move_alias": {"type": "boolean"}, "reason": {"type": "string"}},
}
_KEY: Final[Schema] = {
    "type": "object",
    "required": ["name", "scopes"],
    "properties": {
        "name": {"type": "string", "description": "who it is for"},
        "scopes": {"type": "array", "items": {"type": "string"}, "examples": [["predict:phishing", "label:phishing"]]},
        "expires_s": {"type": "number", "description": "seconds from now; left out: it does not expire"},
        "rate_per_s": {"type": "number", "description": "requests a second in each worker; left out: no quota"},
        "burst": {"type": "integer", "minimum": 1},
        "reason": {"type": "string"},
    },
}
_ROTATE: Final[Schema] = {
    "type": "object",
    "properties": {
        "overlap_s": {"type": "number", "minimum": 0, "default": 86400},
        "reason": {"type": "string"},
    },
}
_FOLLOW: Final[Schema] = {
    "type": "object",
    "properties": {
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
        "override": {"type": "boolean"},
        "reason": {"type": "string"},
    },
}
_RESUME: Final[Schema] = {
    "type": "object",
    "properties": {"what": {"enum": ["following", "steps"]}, "reason": {"type": "string"}},
}
_REASON: Final[Schema] = {"type": "object", "properties": {"reason": {"type": "string"}}}

_TUNE: Final[Schema] = {
    "type": "object",
    "properties": {
        "target_ms": {
            "type": "number",
            "description": "the longest that one run may last; default: as before, at first 50",
        },
        "from_traffic": {"type": "string", "description": "an endpoint: on the rows that it was asked"},
        "int8": {
            "type": "boolean",
            "description": "whether the quantised form may be taken, where its certificate holds",
        },
        "score_tolerance": {"type": "number", "description": "of int8 scores, absolute and relative; at first 0.01"},
        "reason": {"type": "string"},
    },
}

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
            body=_DOCUMENT,
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
            body=_PROMOTE,
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
            body=_ROLLBACK,
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
            body=_FOLLOW,
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
            body=_REASON,
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
            body=_RESUME,
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
            body=_WEIGHTS,
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
            body=_DOCUMENT,
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
            body=_TUNE,
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
            query=_WINDOW,
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
            body=_FORGET,
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
            body=_KEY,
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
            body=_ROTATE,
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
            path="/admin/v1/webhooks/mlflow",
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
