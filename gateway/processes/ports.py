"""Listening sockets: one SO_REUSEPORT socket a worker, all on one port that is ours while the gateway runs."""

import errno
import socket
from typing import Final

Address = tuple[str, int] | tuple[str, int, int, int]

_BACKLOG: Final = 2_048


class PortTaken(Exception):
    """Another program listens on this address; the message names it and the setting."""


class PortGroup:
    """An address on which each worker gets a socket of its own, and the kernel spreads connections over those that listen.

    The group's own socket is bound and never listens: it picks the port when it is 0, and keeps it between two workers' sockets.
    SO_REUSEPORT would let a second gateway of the same user share the port in silence, so that it is tried without it first.
    """

    def __init__(self, host: str, port: int, setting: str) -> None:
        """Raises PortTaken, or OSError for an address that is not of this machine. `setting` is named in the message."""
        if port:
            bind(host, port, setting).close()
        self._family, address = _resolved(host, port)
        self._anchor = _bound(self._family, address, setting, is_shared=True)
        self._address: Address = self._anchor.getsockname()
        self._setting = setting

    @property
    def host(self) -> str:
        return str(self._address[0])

    @property
    def port(self) -> int:
        return int(self._address[1])

    @property
    def text(self) -> str:
        """`host:port`, with brackets where the host needs them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def socket(self) -> socket.socket:
        """A new bound socket of the group. It takes no connection before somebody calls `listen` on it."""
        return _bound(self._family, self._address, self._setting, is_shared=True)

    def close(self) -> None:
        self._anchor.close()


def bind(host: str, port: int, setting: str) -> socket.socket:
    """One listening socket that nobody shares. Raises PortTaken."""
    family, address = _resolved(host, port)
    sock = _bound(family, address, setting, is_shared=False)
    try:
        sock.listen(_BACKLOG)
    except OSError as error:  # two programs may bind, the second to listen is refused
        sock.close()
        raise _taken(address, setting) from error
    return sock


def listen(sock: socket.socket) -> None:
    """Starts taking connections on a socket of a group; again is no error."""
    sock.listen(_BACKLOG)


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Address]:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, address  # type: ignore[return-value]  # an internet address: the families asked for have no other


def _bound(family: socket.AddressFamily, address: Address, setting: str, *, is_shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise _taken(address, setting) from error
        raise
    return sock


def _taken(address: Address, setting: str) -> PortTaken:
    return PortTaken(
        f"another program listens on {address[0]} port {address[1]}; stop it, or set {setting} (0 picks a free one)"
    )
