"""The features process: holds the feature store, so that no worker has to, and answers workers and control over a Unix socket.

It is started where a repository is set. Feast (240 MB, some seconds) is imported at the start where a route has features, else when one
asks for it first.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.features.client import SocketPath
from gateway.features.frames import SOCKET, Answered, Cutter, Describe, Failed, FrameInvalid, framed, read_asked
from gateway.features.lane import Lane, Services
from gateway.pipe import Pipe, PipeBroken
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

BUSY_MAX_S: Final = 60.0
"""A single question that takes longer hangs; the first one imports Feast and opens the repository."""
LANES_MAX: Final = 64
"""Services that are asked at once; each has a thread."""
_BEAT_S: Final = 1.0
_WARM_MAX_S: Final = 20.0
"""A store that takes longer to open is opened by the first that ask."""


class Features:
    """Listens below `folder` for as long as it runs. Made and run on one event loop."""

    def __init__(self, folder: Path, open_store: Callable[[], Services]) -> None:
        self._folder = folder
        self._open_store = open_store
        self._lanes: dict[str, Lane] = {}
        self._callers: set[_Caller] = set()
        self._server: asyncio.Server | None = None
        self._stopping = asyncio.Event()
        self._inode = 0
        self.is_drained = False
        """Whether it ends because the supervisor said so, or is gone."""

    async def start(self, listening: socket.socket | None = None) -> None:
        """Listens, on the socket that `listen` gave, or makes one; raises OSError."""
        made = listening or listen(self._folder)
        self._inode = (self._folder / SOCKET).stat().st_ino
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Caller(self), sock=made)

    async def warm(self, services: Iterable[str]) -> None:
        """Has the stores of these services opened and read once. Before `start`, so that a predecessor answers meanwhile."""
        asked = list(services)[:LANES_MAX]
        warm = [asyncio.get_running_loop().create_future() for _ in asked]
        for service, answered in zip(asked, warm, strict=True):
            lane = self.lane(service)
            assert lane is not None, "no more than there may be"
            lane.put(Describe(0, service), answered.set_result)
        if warm:
            await asyncio.wait(warm, timeout=_WARM_MAX_S)

    @property
    def is_replaced(self) -> bool:
        """Whether a successor listens where this process did."""
        try:
            return (self._folder / SOCKET).stat().st_ino != self._inode
        except FileNotFoundError:
            return False

    async def run(self) -> None:
        """Until `stop`."""
        await self._stopping.wait()
        await self.close()

    def stop(self) -> None:
        self._stopping.set()

    async def close(self) -> None:
        """Ends all connections; whoever waits is told so by that."""
        if self._server is not None:
            self._server.close()
        for caller in list(self._callers):
            caller.close()
        for lane in self._lanes.values():
            lane.close()
        if not self.is_replaced:
            with suppress(OSError):
                (self._folder / SOCKET).unlink(missing_ok=True)

    def lane(self, service: str) -> Lane | None:
        """Who answers for a service; None when there are too many."""
        found = self._lanes.get(service)
        if found is None and len(self._lanes) < LANES_MAX:
            found = self._lanes[service] = Lane(service, self._open_store)
        return found

    def joined(self, caller: "_Caller") -> None:
        self._callers.add(caller)

    def left(self, caller: "_Caller") -> None:
        self._callers.discard(caller)

    async def beat(self, pipe: Pipe) -> None:
        """Tells the supervisor each second that this process lives. A store that never answers ends it: only a new one asks anew."""
        pipe.send({"event": "ready"})
        while True:
            asked = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            lag_s = max(0.0, time.monotonic() - asked - _BEAT_S)
            pipe.send({"event": "beat", "loop_lag_s": round(lag_s, 6), "endpoints": {}})
            for service, lane in self._lanes.items():
                if lane.busy_s > BUSY_MAX_S:
                    log.error("feature_store_hangs", service=service, seconds=BUSY_MAX_S)
                    self.stop()

    async def obey(self, pipe: Pipe) -> None:
        """Follows the supervisor's commands; without a supervisor there is nobody to answer."""
        with suppress(PipeBroken):
            async for line in pipe:
                if line.get("command") == "drain":
                    break
        self.is_drained = True
        self.stop()


class _Caller(asyncio.Protocol):
    """A connection of a worker, or of control."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._cutter = Cutter()
        self._outbox: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._features.joined(self)

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._cutter.cut(data):
                asked = read_asked(payload)
                lane = self._features.lane(asked.service)
                if lane is None:
                    self.send(Failed(asked.id, "overloaded", f"more than {LANES_MAX} feature services are asked"))
                else:
                    lane.put(asked, self.send)
        except (FrameInvalid, ValueError) as error:
            log.warning("feature_caller_unreadable", problem=type(error).__name__)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._features.left(self)

    def send(self, answer: Answered) -> None:
        """Answers, in one write with all else of this turn."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        try:
            self._outbox.append(framed(answer))
        except (ValueError, TypeError) as error:  # too large, or of a kind without a form on the wire
            self._outbox.append(framed(Failed(answer.id, "unavailable", str(error))))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        frames, self._outbox = self._outbox, []
        if self._transport is not None:
            self._transport.write(b"".join(frames))


def listen(folder: Path) -> socket.socket:
    """The socket, on which callers may queue up from now on. One that a predecessor left is replaced. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with SocketPath(folder) as path:
            (folder / SOCKET).unlink(missing_ok=True)
            made.bind(path)
            made.listen()
    except OSError:
        made.close()
        raise
    return made


def is_answered(folder: Path) -> bool:
    """Whether somebody listens there already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller, SocketPath(folder) as path:
        try:
            caller.connect(path)
        except OSError:
            return False
    return True


def opener(repo: str | None) -> Callable[[], Services]:
    """Opens the repository, on the thread that will ask it."""

    def opened() -> Services:
        if repo is None:
            raise FileNotFoundError("no feature repository is set: [features] repo")
        if "://" not in repo and not os.path.isfile(f"{repo}/feature_store.yaml"):  # noqa: PTH113  # a path of the operator's
            raise FileNotFoundError(f"{repo} is no feature repository: it has no feature_store.yaml")
        try:
            from gateway.features.store import Store
        except ImportError as error:
            raise ImportError(f"{error}; install the extra: pip install 'runoff[feast]'") from error
        return Store(repo)

    return opened
