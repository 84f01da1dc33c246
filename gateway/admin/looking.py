"""Handlers that only look: models, processes, the ledger, quality, single predictions; and what is promised but not built yet."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.context import Admin
from gateway.admin.replies import AdminError, answer
from gateway.control.changes import EndpointAbsent
from models.errors import ArtifactInvalid
from models.staged import StagedModel


async def list_models(admin: Admin, _request: Request) -> Response:
    return answer({"models": [_brief(model) for model in _models(admin)]})


async def get_model(admin: Admin, request: Request) -> Response:
    name, version = request.path_params["name"], request.path_params["version"]
    for model in _models(admin):
        if (model["name"], model["version"]) == (name, version):
            return answer(model)
    raise AdminError(404, "model_unknown", f"no version {version} of model '{name}' was staged here")


async def runtime(admin: Admin, _request: Request) -> Response:
    settings = admin.settings
    listeners = {
        name: f"{scheme}{_bracketed(host)}:{port}"
        for name, scheme, host, port in (
            ("rest", "http://", settings.host, settings.rest_port),
            ("grpc", "", settings.host, settings.grpc_port),
            ("metrics", "http://", settings.metrics_host, settings.metrics_port),
            ("admin", "http://", settings.admin_host, settings.admin_port),
        )
    }
    unfinished = [
        {"endpoint": revision.endpoint, "revision": revision.number, "state": revision.state}
        for revision in admin.store.unfinished()
    ]
    document = admin.fleet.runtime() | {
        "listeners": listeners,
        "revisions": unfinished,
        "alias_moves": admin.store.alias_moves(),
        "audit": {"intact": admin.store.audit_broken_at is None, "broken_at": admin.store.audit_broken_at},
    }
    return answer(document)


async def ledger(admin: Admin, request: Request) -> Response:
    return await _evidence(admin, request, admin.evidence.ledger)


async def quality(admin: Admin, request: Request) -> Response:
    return await _evidence(admin, request, admin.evidence.quality)


async def prediction(admin: Admin, request: Request) -> Response:
    prediction_id = request.path_params["prediction_id"]
    found = await asyncio.to_thread(admin.evidence.prediction, prediction_id)
    if found is None:
        raise AdminError(
            404,
            "prediction_unknown",
            f"no record of prediction '{prediction_id}'; records reach the lake within seconds, if the route records them",
        )
    return answer(found)


async def not_built_yet(_admin: Admin, request: Request) -> Response:
    raise AdminError(501, "not_built_yet", f"{request.method} {request.url.path} is promised and not built yet")


# ---------------------------------------------------------------- helpers


async def _evidence(admin: Admin, request: Request, ask: Callable[[str], dict[str, Any]]) -> Response:
    endpoint = request.path_params["endpoint"]
    if not admin.store.revisions(limit=1, endpoint=endpoint):
        raise EndpointAbsent(f"there is no endpoint '{endpoint}', and there never was")
    return answer(await asyncio.to_thread(ask, endpoint))


def _models(admin: Admin) -> list[dict[str, Any]]:
    """Every staged version once, whole; `used_by` names the endpoints and arms that serve it now."""
    used: dict[str, list[str]] = {}
    for endpoint in admin.store.endpoints():
        live = admin.store.live(endpoint)
        for arm, served in (live.resolutions if live else {}).items():
            used.setdefault(served.digest, []).append(f"{endpoint}/{arm}")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name, version, uri, digest in admin.store.staged():
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
        found[name, version, digest] = model | {
            "state": "live" if digest in used else "staged",
            "flavor": staged.flavor,
            "size_bytes": staged.size_bytes,
            "memory_bytes": staged.profile.memory_bytes if staged.profile else None,
            "signature": staged.signature,
            "answer": staged.answer,
            "certificate": staged.certificate,
            "profile": staged.profile,
        }
    return list(found.values())


def _brief(model: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in model.items() if name not in {"signature", "answer", "certificate", "profile"}
    }


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
