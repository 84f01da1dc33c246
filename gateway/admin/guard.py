"""Who may speak to the admin listener, decided before anything is read: no foreign page, no rebound name, no form, no huge body.

Without keys the listener trusts whoever can reach loopback; a web page that the operator happens to visit can reach it too. So a
name that is not ours is refused (DNS rebinding), an Origin that is not ours is refused (cross-site requests), and a body has to be
`application/json` (a form cannot send that without asking first, and nobody here answers the question).
"""

from collections.abc import Container, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admin.context import PRINCIPAL
from gateway.admin.replies import AdminError, refusal
from gateway.errors import GatewayError, Overloaded, Unauthenticated, translate
from gateway.keys.doorkeeper import credential_of
from gateway.keys.ring import KeyRing, Principal

BODY_BYTES_MAX: Final = 1 << 20
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """Wraps the whole application. `names`: Host names accepted beside loopback while no key is needed.

    `needs_keys`: nobody is let in without one, but to the `public` paths. What a key may do is for the table of calls to say.
    """

    def __init__(
        self, app: ASGIApp, *, ring: KeyRing, needs_keys: bool, names: Sequence[str] = (), public: Container[str] = ()
    ) -> None:
        self._app = app
        self._ring = ring
        self._needs_keys = needs_keys
        self._names = frozenset(name.lower() for name in names)
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_source(str(scope["method"]), headers)
            scope[PRINCIPAL] = self._principal(str(scope["path"]), headers)
        except AdminError as error:
            await refusal(error)(scope, receive, send)
            return
        except GatewayError as error:
            wire = translate(error)
            more = {"WWW-Authenticate": "Bearer"} if wire.status == 401 else {"Retry-After": str(wire.retry_after_s)}
            await refusal(AdminError(wire.status, wire.code, wire.message), more)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    def _principal(self, path: str, headers: Headers) -> Principal | None:
        """Who comes in with a key; None: somebody who needs none. Raises Unauthenticated or Overloaded."""
        credential = credential_of(headers.get("authorization"), headers.get("x-api-key"))
        if path in self._public:
            return None
        if not self._needs_keys:
            try:
                return None if credential is None else self._ring.principal(credential)
            except Unauthenticated:
                return None
        if credential is None:
            raise Unauthenticated("a key is needed: Authorization: Bearer <key> (`--key-file`, RUNOFF_KEY)")
        principal = self._ring.principal(credential)
        bucket = principal.bucket
        if bucket is not None and not bucket.take():
            raise Overloaded("over this key's quota", "key_quota", bucket.wait_s())
        return principal

    def _check_source(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._needs_keys and not self._is_ours(host):
            raise AdminError(
                403, "host_refused", "Host is not localhost, a loopback address or one of auth.admin_hosts"
            )
        origin = headers.get("origin")
        if origin is not None and _place_of(origin) != host.lower():
            raise AdminError(403, "origin_refused", "requests from pages of other origins are refused")
        if method in _WRITES:
            media, length = headers.get("content-type"), headers.get("content-length", "0")
            has_body = length != "0" or "transfer-encoding" in headers
            if (has_body or media) and (media or "").split(";")[0].strip().lower() != "application/json":
                raise AdminError(415, "media_type_unsupported", f"wanted Content-Type application/json, got {media}")
            if length.isascii() and length.isdecimal() and (len(length) > 18 or int(length) > BODY_BYTES_MAX):
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


def _place_of(origin: str) -> str | None:
    """Host and port of an Origin; None for what is no address, which is then foreign."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


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
