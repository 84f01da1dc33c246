"""One HTTP exchange with a gateway: the key goes in, JSON or a readable error comes out."""

import json
import os
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

from runoff.errors import GatewayUnreachable, NotSendable, RequestRefused

_JSON: Final = {"Content-Type": "application/json"}


class Transport:
    """A kept connection to one listener. Not thread-safe. `wait_s` of a call is added to the time its answer may take."""

    def __init__(
        self, url: str, *, key: str | None = None, timeout_s: float = 60.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = _address(url)
        self._timeout_s = timeout_s
        headers = {"Authorization": f"Bearer {_sendable(key)}"} if key else {}
        self._client = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout_s, transport=transport, verify=_tls(self.url)
        )

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> httpx.Response:
        """The reply, when its status is below 400. Raises RequestRefused and GatewayUnreachable."""
        try:
            reply = self._client.request(
                method,
                path,
                content=None if body is None else _json(body),
                params={name: value for name, value in (query or {}).items() if value is not None},
                headers={**({} if body is None else _JSON), **(headers or {})},
                timeout=self._timeout_s + wait_s,
            )
        except httpx.TimeoutException as error:
            raise GatewayUnreachable(f"{self.url} did not answer within {self._timeout_s + wait_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GatewayUnreachable(f"no gateway answers at {self.url}: {error}; {_remedy(str(error))}") from error
        if reply.status_code >= 400:
            raise _refusal(reply)
        return reply

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _address(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL("")
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise GatewayUnreachable(f"wanted an address such as http://127.0.0.1:8090 (--url, RUNOFF_URL), got {url!r}")
    return url.rstrip("/")


def _sendable(key: str) -> str:
    """Before a library says what is wrong with it, and repeats it."""
    if not key.isascii() or not key.isprintable() or " " in key:
        raise NotSendable("the key is not one line of ASCII characters; is it the right file? (--key-file, RUNOFF_KEY)")
    return key


_REMEDIES: Final = {
    "CERTIFICATE_VERIFY_FAILED": "SSL_CERT_FILE names the PEM of who signed the gateway's certificate",
    "disconnected without": "does it speak https there, or want a certificate of its callers (RUNOFF_CLIENT_CERT)?",
    "WRONG_VERSION_NUMBER": "it speaks http there, not https",
}
"""By a part of what httpx says."""


def _remedy(error: str) -> str:
    default = "is `runoff serve` running there? another address goes with --url or RUNOFF_URL"
    return next((remedy for part, remedy in _REMEDIES.items() if part in error), default)


def _tls(url: str) -> ssl.SSLContext | bool:
    """How an https gateway is trusted, and shown the certificate that it may want: RUNOFF_CLIENT_CERT, a PEM of both key and chain."""
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for nothing: httpx's own would read all authorities, for 20 ms
    own = os.environ.get("RUNOFF_CLIENT_CERT")
    if not own:
        return True
    context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
    try:
        context.load_cert_chain(own)
    except OSError as error:
        raise GatewayUnreachable(f"RUNOFF_CLIENT_CERT: {own}: {error}") from error
    return context


def _json(body: object) -> bytes:
    """Raises NotSendable for what JSON does not know. Moments and numpy's numbers are what they look like."""
    try:
        return json.dumps(body, allow_nan=False, default=_plain).encode()
    except (ValueError, TypeError) as error:
        raise NotSendable(f"this cannot be sent as JSON: {error}") from error


def _plain(value: Any) -> object:
    for name in ("isoformat", "item"):
        if hasattr(value, name):
            return getattr(value, name)()
    raise TypeError(f"{type(value).__name__} {str(value)[:80]!r}")


def _refusal(reply: httpx.Response) -> RequestRefused:
    try:
        document = reply.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and "error_code" in document:  # MLflow's form, on its paths
        return RequestRefused(reply.status_code, str(document["error_code"]), str(document.get("message", "")))
    if not isinstance(document, dict) or "error" not in document:
        text = f"{reply.request.url} answered {reply.status_code} without saying why; is this a Runoff admin listener?"
        return RequestRefused(reply.status_code, "not_runoff", text)
    problems, code, text = document.get("problems") or [], str(document.get("code", "")), str(document["error"])
    if reply.status_code == 404 and reply.request.url.path.startswith("/admin/") and code in {"", "not_found"}:
        code = "not_admin"
        text = (
            f"{reply.request.url} is not there ({text}); is this the admin listener? `runoff serve` prints its address"
        )
    return RequestRefused(reply.status_code, code, text, problems)
