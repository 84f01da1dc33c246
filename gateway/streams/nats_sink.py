"""NATS JetStream as a sink: one JSON message a row, acknowledged by the stream, which drops repetitions. The only room of nats."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import nats
import pyarrow as pa
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from gateway.streams.messages import Message, messages
from gateway.streams.relay import SinkFailed

_Result = TypeVar("_Result")
_TIMEOUT_S: Final = 60.0
_CONNECT_S: Final = 5.0
_ACK_S: Final = 5.0
_DUPLICATES_S: Final = 120.0
_UNACKNOWLEDGED_MAX: Final = 256
_HEADERS_BYTES: Final = 1024
"""What the server counts as part of a message's size beside its value, at most: two headers of ours with their names."""
_TOO_LARGE: Final = 10054
"""JetStream's code for a message above the stream's own `max_msg_size`."""


class NatsSink:
    """Subjects `<prefix><table>` of the stream `stream`, which is made (on files) where it is not there. Raises SinkFailed.

    A row that is sent again has the same `Nats-Msg-Id` (`<table>:<sequence>`): the stream takes it once within its duplicate window
    (two minutes in one made here), and consumers drop what came later by it.
    """

    def __init__(self, servers: Sequence[str], stream: str, prefix: str, credentials_file: str | None = None) -> None:
        self._prefix = prefix
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sink-nats-loop", daemon=True)
        self._thread.start()
        try:
            self._client, self._stream = self._wait(_connect(list(servers), stream, prefix, credentials_file))
        except SinkFailed:
            self._end()
            raise

    def send(self, table: str, rows: pa.Table) -> Sequence[int]:
        """Waits until the stream has acknowledged every row, or found it too large. Raises SinkFailed."""
        return self._wait(self._publish(table, rows))

    def close(self) -> None:
        """Gives the connection back; one that is broken is let go as it is."""
        try:
            self._wait(asyncio.wait_for(self._client.close(), _CONNECT_S))
        finally:
            self._end()

    async def _publish(self, table: str, rows: pa.Table) -> Sequence[int]:
        subject, too_large = self._prefix + table, []
        for portion in messages(table, rows):
            taken = await asyncio.gather(*[self._one(subject, message) for message in portion])
            too_large += [message.sequence for message, is_taken in zip(portion, taken, strict=True) if not is_taken]
        return too_large

    async def _one(self, subject: str, message: Message) -> bool:
        """Whether it was small enough. A server closes the connection of who sends more than it takes, so that is not tried."""
        if len(message.value) + _HEADERS_BYTES > self._client.max_payload:
            return False
        headers = {"Nats-Msg-Id": message.id, "endpoint": message.endpoint}
        try:
            await self._stream.publish(subject, message.value, timeout=_ACK_S, headers=headers)
        except APIError as error:
            if error.err_code != _TOO_LARGE:
                raise
            return False
        return True

    def _wait(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result(_TIMEOUT_S)
        except Exception as error:  # the client raises its own errors, OSError and time-outs alike
            running.cancel()
            raise SinkFailed(f"{type(error).__name__}: {error}") from error

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _connect(
    servers: list[str], stream: str, prefix: str, credentials_file: str | None
) -> tuple[Client, JetStreamContext]:
    security: dict[str, Any] = {} if credentials_file is None else {"user_credentials": credentials_file}
    # The relay tries again by itself; a client that did so as well would hide that the sink is down.
    connecting = nats.connect(servers, allow_reconnect=False, connect_timeout=_CONNECT_S, error_cb=_unheard, **security)
    client = await asyncio.wait_for(connecting, _CONNECT_S)  # which by itself would go on asking for ever
    try:
        context = client.jetstream(timeout=_ACK_S, publish_async_max_pending=_UNACKNOWLEDGED_MAX)
        try:
            await context.stream_info(stream)
        except NotFoundError:
            subjects = [f"{prefix}{table}" for table in ("predictions", "shadows", "labels", "metrics")]
            await context.add_stream(StreamConfig(name=stream, subjects=subjects, duplicate_window=_DUPLICATES_S))
    except BaseException:
        await client.close()
        raise
    return client, context


async def _unheard(_error: Exception) -> None:
    """Whoever sends is told; the client's own logger would tell it once more."""
