"""The handler that has a model measured anew. It changes how a model is run, and with int8 its answers within a tolerance: it is audited."""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.context import Admin, author_of, may, object_of
from gateway.admin.replies import AdminError, answer
from gateway.control.tuning import NothingRecorded, TuningBusy
from models.errors import ArtifactInvalid
from models.staged import Ask, ModelKey
from models.tuning.job import TuningFailed


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it was asked for last. `from_traffic` is an endpoint."""

    target_ms: Annotated[float, Meta(gt=0, le=60_000)] | None = None
    from_traffic: str | None = None
    int8: bool | None = None
    score_tolerance: Annotated[float, Meta(gt=0, le=1)] | None = None
    share_weights: bool | None = None
    reason: str = ""


async def tune_model(admin: Admin, request: Request) -> Response:
    body = await object_of(request)
    author = author_of(admin, request, body)
    try:
        wanted = msgspec.convert(body, _Wanted)
    except msgspec.ValidationError as error:
        raise AdminError(422, "tuning_invalid", str(error)) from None
    key = ModelKey(request.path_params["name"], request.path_params["version"])
    digest = next(
        (found for name, version, _, found in admin.store.staged.all() if (name, version) == (key.name, key.version)),
        None,
    )
    if digest is None:
        raise AdminError(404, "model_unknown", f"no version {key.version} of model '{key.name}' was staged here")
    if wanted.from_traffic is not None and not may(admin, request, "read", wanted.from_traffic):
        raise AdminError(403, "not_allowed", f"this key has no scope read for endpoint '{wanted.from_traffic}'")
    ask = _ask(admin.tuning.asked(digest), wanted)
    try:
        profile = await admin.tuning.tune(digest, ask=ask, endpoint=wanted.from_traffic)
    except NothingRecorded as error:
        raise AdminError(409, "nothing_recorded", str(error)) from None
    except TuningBusy as error:
        raise AdminError(503, "tuning_busy", str(error)) from None
    except (TuningFailed, ArtifactInvalid) as error:
        raise AdminError(500, "tuning_failed", f"{key} could not be measured: {error}") from None
    detail = {"model": str(key), "digest": digest, "form": profile.setting.form, **msgspec.to_builtins(ask)}
    admin.store.note("tune", author=author.principal, reason=author.reason, detail=detail)
    return answer({"name": key.name, "version": key.version, "digest": digest, "profile": profile})


def _ask(before: Ask, wanted: _Wanted) -> Ask:
    return Ask(
        target_s=before.target_s if wanted.target_ms is None else wanted.target_ms / 1000,
        int8=before.int8 if wanted.int8 is None else wanted.int8,
        score_tolerance=before.score_tolerance if wanted.score_tolerance is None else wanted.score_tolerance,
        share_weights=before.share_weights if wanted.share_weights is None else wanted.share_weights,
    )
