"""What stands against a route's remote mirrors on this machine: hosts and secrets that the operator has not allowed, rows that would come back.

The document alone cannot show it, so that it is asked when a route is written, not when it is read. The shadow process holds to the
same bounds once more at every call, by the address that the name has then.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from gateway.settings import Settings
from models.runtime.target import RemoteRefused, Target
from routing.errors import Problem
from routing.traffic import Remote, Route

Routes = Callable[[], Mapping[str, Route]]
"""The routes that are served or on their way, by endpoint."""

_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared with, never bound


class Remotes:
    """`environ` is only asked whether a variable is set."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], routes: Routes) -> None:
        self._settings = settings
        self._environ = environ
        self._routes = routes

    def problems(self, route: Route) -> list[Problem]:
        """Everything at once, by path."""
        found: list[Problem] = []
        for place, mirror in enumerate(route.mirrors):
            if mirror.remote is not None:
                path = f"mirrors[{place}].remote"
                found += [*self._target(path, mirror.remote), *self._auth(path, mirror.remote)]
                found += self._cycle(path, route, mirror.remote)
        return found

    def _target(self, path: str, remote: Remote) -> Iterator[Problem]:
        allow = self._settings.remotes.allow
        try:
            Target(remote.url, allow=allow)
        except RemoteRefused as error:
            remedy = f"an operator adds the host to remotes.allow (now {', '.join(allow)}) and restarts the gateway"
            yield Problem(f"{path}.url", "remote_not_allowed", str(error), remedy)

    def _auth(self, path: str, remote: Remote) -> Iterator[Problem]:
        """Who may write routes must not be able to send any variable of this process to a server of theirs."""
        if remote.auth is None:
            return
        name, host = remote.auth.removeprefix("env:"), _host(remote)
        allowed = self._settings.remotes.auth_env
        if not (_is_loopback(host) or any(fnmatchcase(name, pattern) for pattern in allowed)):
            text = f"variable {name} may not be sent to {host}"
            remedy = f"an operator adds {name} to remotes.auth_env and restarts the gateway"
            yield Problem(f"{path}.auth", "auth_not_allowed", text, remedy)
        elif not self._environ.get(name):
            remedy = "set it where the gateway is started, and restart it"
            yield Problem(
                f"{path}.auth", "auth_unset", f"variable {name} is not set in the gateway's environment", remedy
            )

    def _cycle(self, path: str, route: Route, remote: Remote) -> Iterator[Problem]:
        """A mirror that leads back here, over whichever other endpoints of this gateway, would feed itself for ever."""
        routes = {**self._routes(), route.endpoint: route}
        way: list[tuple[str, tuple[str, ...]]] = [(name, (name,)) for name in self._endpoints(remote)]
        seen: set[str] = set()
        while way:
            name, steps = way.pop()
            if name == route.endpoint:
                text = f"'{' → '.join((route.endpoint, *steps))}': rows would come back to this endpoint and be mirrored again"
                yield Problem(path, "remote_cycle", text, "let the mirror name a model, not this gateway")
                return
            if name in seen or name not in routes:
                continue
            seen.add(name)
            onward = [mirror.remote for mirror in routes[name].mirrors if mirror.remote]
            way += [(after, (*steps, after)) for one in onward for after in self._endpoints(one)]

    def _endpoints(self, remote: Remote) -> set[str]:
        """The endpoints of this very gateway that a remote may mean; none, where it is another server."""
        own = {self._settings.grpc_port} if remote.protocol == "v2-grpc" else {self._settings.rest_port}
        try:
            parts = urlsplit(remote.url)
            if parts.port not in own or not self._is_here((parts.hostname or "").lower()):
                return set()
        except ValueError:
            return set()
        return {remote.model, parts.path.rstrip("/").rpartition("/")[2]} - {""}

    def _is_here(self, host: str) -> bool:
        bound = self._settings.host.lower()
        if host == bound or (_is_loopback(host) and (_is_loopback(bound) or bound in _ANY)):
            return True
        return bound in _ANY and host in {socket.gethostname().lower(), *_ANY}


def _host(remote: Remote) -> str:
    try:
        return (urlsplit(remote.url).hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
