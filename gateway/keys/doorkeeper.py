"""Who may come in on the data listeners: the seam between the doors and what knows keys, and its two sides."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, Protocol

from msgspec import Struct

from gateway.errors import GatewayError, NotAllowed, Overloaded, Unauthenticated, translate
from gateway.keys.ring import KeyRing, Principal
from gateway.keys.scopes import Scope

ANONYMOUS: Final = "anonymous"


class Visitor(Struct, frozen=True, kw_only=True):
    """What a caller shows. `credential` is the bearer token or key, None where none was sent; `peer` the address, None if unknown."""

    credential: str | None
    peer: str | None

    @property
    def is_local(self) -> bool:
        """Whether the caller is on this machine; a socket without an address (a Unix socket, a test) is."""
        if self.peer is None or self.peer in ("", "testclient"):
            return True
        try:
            return ip_address(self.peer).is_loopback
        except ValueError:
            return False

    def __repr__(self) -> str:
        """Never the credential: this may end in a log."""
        return f"Visitor(credential={'None' if self.credential is None else '…'}, peer={self.peer!r})"


class Doorkeeper(Protocol):
    """Decides before a body is read, so that refusing costs almost nothing."""

    def recognise(self, visitor: Visitor, scope: Scope) -> None:
        """Lets pass whoever may do this to any endpoint at all, before it is known to which. Raises Unauthenticated or NotAllowed."""
        ...

    def admit(self, visitor: Visitor, scope: Scope, endpoint: str | None) -> bool:
        """Whether the visitor came with a valid key; takes one request off its quota. `endpoint` None: whichever it may.

        Raises Unauthenticated, NotAllowed or Overloaded.
        """
        ...

    def may(self, visitor: Visitor, scope: Scope, endpoint: str) -> bool:
        """Whether an admitted visitor may do this to this endpoint, where the body or a list names it. Asks for nothing again."""
        ...

    def name(self, visitor: Visitor) -> str:
        """Whose key an admitted visitor showed, as audits name them; `anonymous` for who needed none."""
        ...


class OpenDoor:
    """`[auth] data = open`, and nobody has a key: everybody predicts, labels come from this machine, and nobody loads models."""

    def recognise(self, visitor: Visitor, scope: Scope) -> None:
        self.admit(visitor, scope, None)

    def admit(self, visitor: Visitor, scope: Scope, endpoint: str | None) -> bool:
        del endpoint
        if scope != "predict" and not (scope == "label" and visitor.is_local):
            raise NotAllowed(_WANTED.get(scope, f"this needs a key with {scope}"))
        return False

    def may(self, visitor: Visitor, scope: Scope, endpoint: str) -> bool:
        del visitor, endpoint
        return scope in ("predict", "label")

    def name(self, visitor: Visitor) -> str:
        del visitor
        return ANONYMOUS


_WANTED: Final[dict[Scope, str]] = {
    "model:write": "loading and unloading models needs a key with model:write",
    "label": "labels from another machine need a key with label:<endpoint>",
}


class KeyDoor:
    """Asks the ring. `is_open`: whoever has no key for it may still do what is free without one (`[auth] data = open`)."""

    def __init__(self, ring: KeyRing, *, is_open: bool, refused: Callable[[str], None] | None = None) -> None:
        """`refused` is called with the stable code of each refusal, for whoever counts them."""
        self._ring = ring
        self._refused = refused
        self._keyless = OpenDoor() if is_open else None

    def recognise(self, visitor: Visitor, scope: Scope) -> None:
        try:
            self._admitted(visitor, scope, None)
        except GatewayError as error:
            self._count(error)
            raise

    def admit(self, visitor: Visitor, scope: Scope, endpoint: str | None) -> bool:
        try:
            return self._let_in(visitor, scope, endpoint)
        except GatewayError as error:
            self._count(error)
            raise

    def _let_in(self, visitor: Visitor, scope: Scope, endpoint: str | None) -> bool:
        principal = self._admitted(visitor, scope, endpoint)
        if principal is None:
            return False
        bucket = principal.bucket
        if bucket is not None and not bucket.take():
            raise Overloaded(
                f"over this key's quota of {bucket.rate_per_s:g} requests a second", "key_quota", bucket.wait_s()
            )
        return True

    def may(self, visitor: Visitor, scope: Scope, endpoint: str) -> bool:
        if self._keyless is not None and scope == "predict":
            return True
        principal = self._known(visitor)
        return principal is not None and principal.grants.allow(scope, endpoint)

    def name(self, visitor: Visitor) -> str:
        principal = self._known(visitor)
        return ANONYMOUS if principal is None else principal.name

    def predictor(self, credential: bytes | None, endpoint: str) -> Principal | None:
        """For the wire door: who may predict with this; None: nobody, and `admit` has the words for it. Takes nothing off a quota."""
        if credential is None:
            return None
        principal = self._ring.seen(credential)
        return principal if principal is not None and principal.predicts(endpoint) else None

    def _admitted(self, visitor: Visitor, scope: Scope, endpoint: str | None) -> Principal | None:
        """Who comes in by a key; None: somebody who needs none."""
        if self._keyless is not None:
            principal = None if scope == "predict" else self._known(visitor)
            if principal is None or not _may(principal, scope, endpoint):
                self._keyless.admit(visitor, scope, endpoint)
                return None
            return principal
        if visitor.credential is None:
            raise Unauthenticated("a key is needed: Authorization: Bearer <key>, or X-Api-Key")
        principal = self._ring.principal(visitor.credential)
        if not _may(principal, scope, endpoint):
            where = "" if endpoint is None else f" for endpoint '{endpoint}'"
            raise NotAllowed(f"this key has no scope {scope}{where}")
        return principal

    def _count(self, error: GatewayError) -> None:
        if self._refused is not None:
            self._refused(translate(error).code)

    def _known(self, visitor: Visitor) -> Principal | None:
        """Who it is, None for whoever has no good key."""
        if visitor.credential is None:
            return None
        try:
            return self._ring.principal(visitor.credential)
        except Unauthenticated:
            return None


def _may(principal: Principal, scope: Scope, endpoint: str | None) -> bool:
    if endpoint is None:
        return principal.grants.allow_some(scope)
    return principal.grants.allow(scope, endpoint)


def credential_of(authorization: str | None, api_key: str | None) -> str | None:
    """The token of `Authorization: Bearer …`, else `X-Api-Key`."""
    if authorization is not None:
        kind, _, token = authorization.partition(" ")
        if kind.lower() == "bearer" and token.strip():
            return token.strip()
    return api_key
