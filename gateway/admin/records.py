"""The handler that deletes what is recorded about one unit, on the word of who may change routes, and notes that it was done."""

import hmac
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.context import Admin, author_of, object_of
from gateway.admin.replies import AdminError, answer
from gateway.streams.table import CommitFailed
from gateway.unit_key import unit_key
from routing.split import canonical_unit

_UNIT_CHARACTERS_MAX = 4096


async def forget(admin: Admin, request: Request) -> Response:
    """Every prediction of the unit, its shadows and labels, over all endpoints. The unit itself is neither logged nor kept, only its hash."""
    body = await object_of(request)
    author = author_of(admin, request, body)
    unit = body.get("unit")
    if not isinstance(unit, str) or not unit or len(unit) > _UNIT_CHARACTERS_MAX:
        raise AdminError(400, "unit_malformed", f"wanted 'unit': a text of 1 to {_UNIT_CHARACTERS_MAX} characters")
    if admin.forget is None:
        raise AdminError(503, "not_ready", "the lake is not written here")
    stored = _stored(unit, unit_key(admin.settings.state_path))
    detail = {"unit": stored[0]}
    # Noted before as well: were it ended half way, what was wanted would be known, and asking again ends it.
    admin.store.note("forget", author=author.principal, reason=author.reason, detail=detail)
    try:
        deleted = await admin.forget(stored)
    except CommitFailed as error:
        raise AdminError(503, "lake_unavailable", f"the lake cannot be written now; ask again: {error}") from error
    admin.store.note("forgotten", author=author.principal, reason=author.reason, detail=detail | {"rows": deleted})
    return answer({"unit": stored[0], "deleted": deleted})


def _stored(unit: str, key: bytes) -> Sequence[str]:
    """How records may hold a unit (`record.unit`): as keyed hash, and raw."""
    plain = canonical_unit(unit)
    return hmac.digest(key, plain, "sha256")[:16].hex(), plain.decode("utf-8", "surrogatepass")
