"""Where a remote model runs: which addresses may be called at all, and what can go wrong with a call, whatever its protocol."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from models.errors import ModelFailed
from models.tensors import Array

REPLY_BYTES_MAX: Final = 16 << 20
_RESOLVED_S: Final = 30.0
"""How long a resolved address is kept: a name that moves is followed, and no call waits for the resolver twice in a row."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Named = tuple[str, Array]
"""A tensor and its name."""


class RemoteFailed(ModelFailed):
    """The server could not be reached, refused the call, or answered something that is no answer."""


class RemoteTimeout(RemoteFailed):
    """No whole answer within the time."""


class RemoteRefused(RemoteFailed):
    """The target is not allowed, or its name resolves only to addresses that are not."""


class InputRefused(RemoteFailed):
    """The server lives and does not take this input; another input may fare better."""


class BodyTooLarge(RemoteFailed):
    """The encoded input is above the caller's bound; nothing was sent."""


class RemoteAnswer(msgspec.Struct, frozen=True):
    """What the server answered: the version it names (empty: none) and its outputs in its own order.

    `is_prediction`: not the model's outputs but what its `predict` makes of them, as MLflow answers; a bare one has the name "".
    """

    version: str
    outputs: list[Named]
    is_prediction: bool = False


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How another server may be called. `token` goes as a bearer token, None: none does; `timeout_s` bounds a call as a whole.

    `allow`: host names or addresses, compared whole.
    """

    allow: Sequence[str]
    token: str | None = None
    timeout_s: float = 5.0
    clock: Callable[[], float] = time.monotonic


class Target:
    """One server by its address. Belongs to one event loop.

    The name is resolved here and the connection goes to that very address, so a name cannot change its meaning in between.
    """

    def __init__(self, url: str, *, allow: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Raises RemoteRefused when the host is not in `allow`, or the address is no plain HTTP address."""
        try:
            parts = urlsplit(url)
            self.host = (parts.hostname or "").rstrip(".").lower()
            self.port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise RemoteRefused(f"remote {url!r}: not an address") from error
        if parts.scheme not in _DEFAULT_PORTS or "@" in parts.netloc:
            raise RemoteRefused(f"remote {self.host!r}: wanted http:// or https:// without a password in the address")
        if self.host not in {name.strip("[]").rstrip(".").lower() for name in allow}:
            raise RemoteRefused(f"remote host {self.host!r} is not in remotes.allow")
        self.is_tls = parts.scheme == "https"
        self.authority = parts.netloc
        self.path = parts.path.rstrip("/")
        self._clock = clock
        self._address: str | None = None
        self._failures = 0
        self._resolved_at = -_RESOLVED_S

    async def address(self) -> str:
        """The address to call now. Raises RemoteRefused where every address of the name is refused, OSError where it has none."""
        if self._address is not None and self._clock() - self._resolved_at < _RESOLVED_S:
            return self._address
        found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        allowed = [str(address) for *_, (address, *_) in found if is_allowed_address(str(address))]
        if not allowed:
            raise RemoteRefused(f"remote host {self.host!r} resolves to link-local or otherwise refused addresses only")
        self._address, self._resolved_at = allowed[self._failures % len(allowed)], self._clock()
        return self._address

    def forget(self) -> None:
        """After a failure: the name may have moved, and where it has several addresses the next one may be the one that listens."""
        self._failures += 1
        self._resolved_at = -_RESOLVED_S


def is_allowed_address(text: str) -> bool:
    """Whether an address may be called: not link-local (cloud metadata lives there), multicast or unspecified, in any disguise."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.sixtofour is not None:
            address = address.sixtofour
        elif address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)
