"""What the gRPC connections of one worker share: handlers, limits, the writer of answers, and how much all of them hold."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import grpc

from gateway.dataplane import Dataplane
from gateway.keys.doorkeeper import Doorkeeper
from gateway.rpc.wire.bounds import Bounds
from gateway.rpc.wire.calls import Handler
from gateway.rpc.wire.outflow import Ledger
from gateway.rpc.wire.plan import Plan
from gateway.rpc.wire.reply import ReplyWriter
from gateway.settings import Limits

_STREAMS_MAX: Final = 256
_HELD_MESSAGES: Final = 4
"""So many messages of the largest size may be half here, over all connections; and so many may wait to be taken."""


class SharedConnection(Protocol):
    """A connection as its server sees it."""

    def sweep(self, now_s: float) -> None:
        """About twice a second: ends what is too slow."""
        ...

    def shutdown(self) -> None:
        """No new calls; ends once those in flight are answered."""
        ...

    def abort(self) -> None:
        """Ends now."""
        ...


class Shared:
    """What the connections of one worker share.

    `held_bytes` are messages of theirs that are not with a handler yet, `unsent` those that their callers do not take yet.
    """

    def __init__(
        self,
        plane: Dataplane,
        handlers: Sequence[grpc.GenericRpcHandler],
        limits: Limits,
        doorkeeper: Doorkeeper,
    ) -> None:
        self.plane = plane
        self.limits = limits
        self.doorkeeper = doorkeeper
        self.replies = ReplyWriter(plane)
        self.connections: set[SharedConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.held_bytes = 0
        self.held_bytes_max = _HELD_MESSAGES * limits.body_bytes_binary_max
        self.unsent = Ledger()
        self.unsent_bytes_max = _HELD_MESSAGES * limits.body_bytes_binary_max
        self.bounds = Bounds(
            streams_max=min(limits.inflight_max, _STREAMS_MAX),
            header_bytes_max=limits.header_bytes_max,
            header_count_max=limits.header_count_max,
            header_s=limits.header_s,
            idle_s=limits.idle_s,
        )
        self._handlers = handlers
        self._found: dict[str, Handler] = {}

    def handler(self, plan: Plan) -> Handler | None:
        """The handler of a method, None where nobody has it. Those that are found are kept: their number is ours."""
        found = self._found.get(plan.path)
        if found is None:
            details = _Details(plan.path, tuple(plan.metadata))
            for handlers in self._handlers:
                found = handlers.service(details)
                if found is not None:
                    self._found[plan.path] = found
                    break
        return found


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method = method
        self.invocation_metadata = metadata
