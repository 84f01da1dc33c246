"""Handlers that only look: models, processes, the ledger, quality, single predictions; and what is promised but not built yet."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin import views
from gateway.admin.context import Admin, may
from gateway.admin.replies import AdminError, answer
from gateway.control.changes import EndpointAbsent
from gateway.settings import Listener, Settings
from models import profiles
from models.errors import ArtifactInvalid
from models.staged import Profile, StagedModel
from routing.validate import validate


async def list_models(admin: Admin, _request: Request) -> Response:
    return answer({"models": [_brief(model) for model in _models(admin)]})


async def get_model(admin: Admin, request: Request) -> Response:
    name, version = request.path_params["name"], request.path_params["version"]
    for model in _models(admin):
        if (model["name"], model["version"]) == (name, version):
            return answer(model)
    raise AdminError(404, "model_unknown", f"no version {version} of model '{name}' was staged here")


async def runtime(admin: Admin, request: Request) -> Response:
    """Whatever names an endpoint is left out for who may not look at that."""

    def is_shown(endpoint: str | None) -> bool:
        return endpoint is None or may(admin, request, "read", endpoint)

    unfinished = [
        {"endpoint": revision.endpoint, "revision": revision.number, "state": revision.state}
        for revision in admin.store.unfinished()
        if is_shown(revision.endpoint)
    ]
    moves = [(move, admin.store.revision(move.revision)) for move in views.alias_moves(admin.store)]
    found = admin.fleet.runtime()
    document = found | {
        "lines": [line for line in found["lines"] if is_shown(line.get("endpoint"))],
        "listeners": _listeners(admin.settings),
        "revisions": unfinished,
        "alias_moves": [move for move, revision in moves if revision is None or is_shown(revision.endpoint)],
        "registry": admin.follower.heard,
        "audit": views.verdict(admin.store),
    }
    return answer(document)


async def ledger(admin: Admin, request: Request) -> Response:
    """Mirrors against the champion, or against `?variant=`, on the rows that it answered."""
    route, query = validate(_document(admin, request)), request.query_params
    since, until = _instant(request, "since"), _instant(request, "until")
    _allow_segment(admin, request, route.endpoint)

    def ask() -> dict[str, Any]:
        from gateway.evidence.ledger import Question

        question = Question(
            endpoint=route.endpoint,
            mirror=query.get("mirror"),
            champion=query.get("variant", route.champion),
            segment_by=query.get("segment_by"),
            since_unix_s=since,
            until_unix_s=until,
            exogenous=route.label.exogenous,
            keys_in_use=admin.settings.auth.data == "keys",
            label_window_s=route.label.window_s,
        )
        return admin.evidence().ledger(question)

    return await _asked(ask)


async def quality(admin: Admin, request: Request) -> Response:
    """Of every variant (by assignment, with `?by=answered` by who answered) and mirror, and with `?segment_by=` of each value of that column."""
    route, query = validate(_document(admin, request)), request.query_params
    since, until = _instant(request, "since"), _instant(request, "until")
    _allow_segment(admin, request, route.endpoint)

    def ask() -> dict[str, Any]:
        from gateway.evidence.quality import Question

        question = Question(
            endpoint=route.endpoint,
            by=query.get("by", "assigned"),
            segment_by=query.get("segment_by"),
            since_unix_s=since,
            until_unix_s=until,
            label_window_s=route.label.window_s,
        )
        return admin.evidence().quality(question)

    return await _asked(ask)


async def prediction(admin: Admin, request: Request) -> Response:
    prediction_id = request.path_params["prediction_id"]
    windows_s = {route.endpoint: route.label.window_s for _, route in admin.store.live_routes()}
    try:
        found = await asyncio.to_thread(lambda: admin.evidence().prediction(prediction_id, windows_s))
    except ValueError:
        found = None
    if found is None or not may(admin, request, "records:read", found["endpoint"] or ""):
        raise AdminError(
            404,
            "prediction_unknown",
            f"no record of prediction '{prediction_id}'; records reach the lake within seconds, if the route records them",
        )
    return answer(found)


async def not_built_yet(_admin: Admin, request: Request) -> Response:
    raise AdminError(501, "not_built_yet", f"{request.method} {request.url.path} is promised and not built yet")


# ---------------------------------------------------------------- helpers


def _allow_segment(admin: Admin, request: Request, endpoint: str) -> None:
    """Raises AdminError for who wants to see the evidence by an attribute that is kept apart, without the scope."""
    column = request.query_params.get("segment_by", "")
    if column.startswith("attribute_") and not may(admin, request, "sensitive:read", endpoint):
        raise AdminError(403, "not_allowed", f"evidence by sensitive attributes needs sensitive:read:{endpoint}")


async def _asked(ask: Callable[[], dict[str, Any]]) -> Response:
    """Questions to the lake may take seconds, so they are asked on a thread."""
    try:
        return answer(await asyncio.to_thread(ask))
    except ValueError as error:
        raise AdminError(400, "query_invalid", str(error)) from error


def _document(admin: Admin, request: Request) -> dict[str, Any]:
    """The newest document of the endpoint, also of one that was deleted: its records are still there."""
    endpoint = request.path_params["endpoint"]
    live = admin.store.live(endpoint)
    found = [live] if live else admin.store.revisions(limit=10, endpoint=endpoint)
    document = next((revision.document for revision in found if revision.document is not None), None)
    if document is None:
        raise EndpointAbsent(f"there is no endpoint '{endpoint}', and there never was")
    return document


def _instant(request: Request, name: str) -> float | None:
    """A moment in the query, RFC 3339, as Unix seconds; None: not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise AdminError(400, "query_invalid", f"wanted ?{name}=<RFC 3339>, got {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _listeners(settings: Settings) -> dict[str, str]:
    addresses: list[tuple[Listener, str, int]] = [
        ("rest", settings.host, settings.rest_port),
        ("grpc", settings.host, settings.grpc_port),
        ("metrics", settings.metrics_host, settings.metrics_port),
        ("admin", settings.admin_host, settings.admin_port),
    ]
    if settings.webhook_port is not None:
        addresses.append(("webhook", settings.webhook_host, settings.webhook_port))
    return {
        name: f"{'' if name == 'grpc' else settings.tls.scheme(name) + '://'}{_bracketed(host)}:{port}"
        for name, host, port in addresses
    }


def _models(admin: Admin) -> list[dict[str, Any]]:
    """Every staged version once, whole; `used_by` names the endpoints and arms that serve it now."""
    used: dict[str, list[str]] = {}
    for endpoint in admin.store.endpoints():
        live = admin.store.live(endpoint)
        for arm, served in (live.resolutions if live else {}).items():
            used.setdefault(served.digest, []).append(f"{endpoint}/{arm}")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name, version, uri, digest in admin.store.staged.all():
        model: dict[str, Any] = {
            "name": name,
            "version": version,
            "digest": digest,
            "uri": uri,
            "used_by": used.get(digest, []),
        }
        try:
            staged = StagedModel.read(admin.artifacts / digest)
        except ArtifactInvalid:
            found[name, version, digest] = model | {"state": "missing"}
            continue
        profile = profiles.read(admin.artifacts / digest)
        found[name, version, digest] = model | {
            "state": "live" if digest in used else "staged",
            "flavor": staged.flavor,
            "size_bytes": staged.size_bytes,
            "memory_bytes": profile.memory_bytes if profile else None,
            "tuned": _tuned(profile) if profile else None,
            "signature": staged.signature,
            "answer": staged.answer,
            "certificate": staged.certificate,
            "profile": profile,
        }
    return list(found.values())


def _tuned(profile: Profile) -> dict[str, Any]:
    """The profile in a line of a list: the batch, what a full run of it takes, and the setting."""
    rows = max(rows for rows in profile.seconds_by_rows if rows <= max(profile.rows_max, min(profile.seconds_by_rows)))
    seconds = profile.seconds_by_rows[rows]
    return {
        "rows_max": profile.rows_max,
        "run_s": seconds,
        "rows_per_s": rows * profile.setting.runs / seconds,
        "threads": profile.setting.threads,
        "form": profile.setting.form,
    }


def _brief(model: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in model.items() if name not in {"signature", "answer", "certificate", "profile"}
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
