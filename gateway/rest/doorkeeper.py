"""Who may come in: the seam between the doors and whatever knows keys. Without keys the door is open, but not for everything."""

from ipaddress import ip_address
from typing import Literal, Protocol

from msgspec import Struct

from gateway.errors import NotAllowed

Scope = Literal["predict", "label", "model:write"]
"""`predict` covers metadata too: it tells what a caller needs to know to ask."""


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


class Doorkeeper(Protocol):
    """Decides before a body is read, so that refusing costs almost nothing."""

    def admit(self, visitor: Visitor, scope: Scope, endpoint: str | None) -> bool:
        """Whether the visitor came with a valid key. Raises Unauthenticated or NotAllowed."""
        ...


class OpenDoor:
    """`[auth] data = open`: everybody predicts, labels come from this machine, and nobody loads models."""

    def admit(self, visitor: Visitor, scope: Scope, endpoint: str | None) -> bool:
        del endpoint
        if scope == "model:write":
            raise NotAllowed("loading and unloading models needs a key with model:write")
        if scope == "label" and not visitor.is_local:
            raise NotAllowed("labels from another machine need a key with label:<endpoint>")
        return False


def credential_of(authorization: str | None, api_key: str | None) -> str | None:
    """The token of `Authorization: Bearer …`, else `X-Api-Key`."""
    if authorization is not None:
        kind, _, token = authorization.partition(" ")
        if kind.lower() == "bearer" and token.strip():
            return token.strip()
    return api_key
