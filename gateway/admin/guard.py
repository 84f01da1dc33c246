"""Who may speak to the admin listener, decided before anything is read: no foreign page, no rebound name, no form, no huge body.

Without keys the listener trusts whoever can reach loopback; a web page that the operator happens to visit can reach it too. So a
name that is not ours is refused (DNS rebinding), an Origin that is not ours is refused (cross-site requests), and a body has to be
`application/json` (a form cannot send that without asking first, and nobody here answers the question).
"""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.replies import AdminError, refusal

BODY_BYTES_MAX: Final = 1 << 20
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """Wraps the whole application. `names`: Host names accepted beside loopback; `needs_keys`: nobody is let in without one."""

    def __init__(self, app: ASGIApp, *, names: Sequence[str], needs_keys: bool) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)
        self._needs_keys = needs_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._admit(str(scope["method"]), headers)
        except AdminError as error:
            challenge = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            await refusal(error, challenge)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    def _admit(self, method: str, headers: Headers) -> None:
        if self._needs_keys:
            # Keys are not built yet; an operator who asks for them must not get an open door instead.
            raise AdminError(401, "unauthenticated", "[auth] admin = keys: a key is needed")
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise AdminError(
                403, "host_refused", "Host is not localhost, a loopback address or one of auth.admin_hosts"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise AdminError(403, "origin_refused", "requests from pages of other origins are refused")
        if method in _WRITES:
            media, length = headers.get("content-type"), headers.get("content-length", "0")
            has_body = length != "0" or "transfer-encoding" in headers
            if (has_body or media) and (media or "").split(";")[0].strip().lower() != "application/json":
                raise AdminError(415, "media_type_unsupported", f"wanted Content-Type application/json, got {media}")
            if length.isdigit() and int(length) > BODY_BYTES_MAX:
                raise _too_large()

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False


def _bounded(receive: Receive) -> Receive:
    """A body without a declared length is bounded as it comes."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > BODY_BYTES_MAX:
            raise _too_large()
        return message

    return bounded


def _too_large() -> AdminError:
    return AdminError(413, "body_too_large", f"a body may have {BODY_BYTES_MAX} bytes")
