"""Handlers that make, list, rotate and revoke keys. A key is shown once, in the answer that made it; nobody can give what they lack."""

import time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.context import Admin, author_of, object_of, principal_of
from gateway.admin.replies import AdminError, answer, time_text
from gateway.keys.issue import KeyDesk, KeyEnded, KeyRefused, KeyUnknown, Made, Order, checked
from gateway.keys.scopes import Grants
from gateway.state.keys import KeyRecord

OVERLAP_S: Final = 86400.0
"""How long a rotated key goes on beside its successor, unless the caller says else."""


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    scopes: list[str]
    expires_s: float | None = None
    rate_per_s: float | None = None
    burst: int | None = None
    reason: str = ""


class _Rotated(msgspec.Struct, forbid_unknown_fields=True):
    overlap_s: Annotated[float, Meta(ge=0)] = OVERLAP_S
    reason: str = ""


async def list_keys(admin: Admin, _request: Request) -> Response:
    return answer({"keys": [view(key) for key in _desk(admin).all()]})


async def make_key(admin: Admin, request: Request) -> Response:
    body = await object_of(request)
    author, wanted = author_of(admin, request, body), _read(body, _Wanted)
    order = Order(
        name=wanted.name,
        scopes=tuple(wanted.scopes),
        expires_s=wanted.expires_s,
        rate_per_s=wanted.rate_per_s,
        burst=wanted.burst,
    )
    try:
        _check_may_give(request, checked(order))
        made = _desk(admin).make(order, author=author.principal, reason=author.reason)
    except KeyRefused as error:
        raise AdminError(422, "key_invalid", str(error)) from None
    return _shown(admin, made)


async def rotate_key(admin: Admin, request: Request) -> Response:
    body = await object_of(request)
    author, wanted = author_of(admin, request, body), _read(body, _Rotated)
    key_id = _may_touch(admin, request)
    try:
        made = _desk(admin).rotate(key_id, overlap_s=wanted.overlap_s, author=author.principal, reason=author.reason)
    except KeyEnded as error:
        raise AdminError(409, "key_ended", str(error)) from None
    return _shown(admin, made)


async def revoke_key(admin: Admin, request: Request) -> Response:
    author = author_of(admin, request)
    revoked = _desk(admin).revoke(_may_touch(admin, request), author=author.principal, reason=author.reason)
    admin.keys.look()
    return answer(view(revoked))


def view(key: KeyRecord) -> dict[str, Any]:
    """What may be known of a key."""
    now_unix_us = time.time_ns() // 1000
    state = "good" if key.is_good(now_unix_us) else "expired" if key.revoked_unix_us is None else "revoked"
    return {
        "id": key.id,
        "name": key.name,
        "state": state,
        "scopes": key.scopes,
        "rate_per_s": key.rate_per_s,
        "burst": key.burst,
        "created_at": time_text(key.created_unix_us),
        "created_by": key.created_by,
        "expires_at": None if key.expires_unix_us is None else time_text(key.expires_unix_us),
        "revoked_at": None if key.revoked_unix_us is None else time_text(key.revoked_unix_us),
        "replaces": key.replaces,
        "last_used_at": None if key.last_used_unix_us is None else time_text(key.last_used_unix_us),
    }


# ---------------------------------------------------------------- helpers


def _desk(admin: Admin) -> KeyDesk:
    return KeyDesk(admin.store.keys)


def _shown(admin: Admin, made: Made) -> Response:
    """The one answer with the key in it; it opens doors from now on."""
    admin.keys.look()
    replaced = {} if made.replaced is None else {"replaced": view(made.replaced)}
    return answer(view(made.record) | {"key": made.key} | replaced, 201, {"Cache-Control": "no-store"})


def _may_touch(admin: Admin, request: Request) -> str:
    """The id in the path, of a key that the caller could have made. Raises AdminError."""
    try:
        key = _desk(admin).find(str(request.path_params["id"]))
    except KeyUnknown as error:
        raise AdminError(404, "key_unknown", str(error)) from None
    _check_may_give(request, key.scopes)
    return key.id


def _check_may_give(request: Request, scopes: tuple[str, ...]) -> None:
    """Whoever may make keys may not make more of themselves: not by a new key, not by the successor of a mightier one."""
    principal = principal_of(request)
    missing = principal.grants.missing(Grants.parse(scopes).grants) if principal else []
    if missing:
        raise AdminError(403, "not_allowed", f"your key lacks {', '.join(map(str, missing))}, so it cannot give that")


def _read(body: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise AdminError(400, "body_invalid", str(error)) from None
