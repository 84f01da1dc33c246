"""Kafka as a sink: one JSON message a row, keyed by its prediction, acknowledged by all replicas. The only room of confluent_kafka."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

from gateway.streams.messages import Message, messages
from gateway.streams.relay import SinkFailed

_FLUSH_S: Final = 60.0
_OURS: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "zstd",
    "linger.ms": 20,
    "delivery.timeout.ms": 45_000,
    "queue.buffering.max.messages": 50_000,
}


class KafkaSink:
    """Topics `<prefix><table>` at `brokers`. `properties` are librdkafka's own, for security; they override ours.

    A row that is sent again after a failure has the same header `id` (`<table>:<sequence>`), by which consumers drop it.
    """

    def __init__(self, brokers: str, prefix: str, properties: Mapping[str, str]) -> None:
        self._prefix = prefix
        try:
            self._producer = Producer({**_OURS, **properties, "bootstrap.servers": brokers})
        except KafkaException as error:
            raise SinkFailed(str(error)) from error
        self._failure: str | None = None
        self._too_large: list[Message] = []

    def send(self, table: str, rows: pa.Table) -> Sequence[int]:
        """Waits until every row is acknowledged, or found too large. Raises SinkFailed."""
        self._failure, self._too_large = None, []
        topic = self._prefix + table
        for portion in messages(table, rows):
            for message in portion:
                self._produce(topic, message)
        self._flush()
        # A broker refuses a batch as a whole: which of its messages is too large shows when each is sent alone.
        doubtful, self._too_large = sorted(self._too_large, key=lambda one: one.sequence), []
        for message in doubtful:
            self._produce(topic, message)
            self._flush()
        return [message.sequence for message in self._too_large]

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(1.0)

    def _flush(self) -> None:
        left = self._producer.flush(_FLUSH_S)
        if left:
            self._producer.purge()
            raise SinkFailed(f"{left} messages were not acknowledged within {_FLUSH_S:.0f} s")
        if self._failure is not None:
            raise SinkFailed(self._failure)

    def _produce(self, topic: str, message: Message) -> None:
        headers: dict[str, str | bytes | None] = {"id": message.id, "endpoint": message.endpoint}
        delivered = partial(self._delivered, message)
        while True:
            try:
                self._producer.produce(topic, message.value, message.key, headers=headers, on_delivery=delivered)
            except BufferError:  # its own bound: wait until some are delivered
                self._producer.poll(0.5)
                if self._failure is not None:
                    raise SinkFailed(self._failure) from None
            except KafkaException as error:
                self._delivered(message, error.args[0], None)
                if self._failure is not None:
                    raise SinkFailed(self._failure) from error
                break
            else:
                break
        self._producer.poll(0)

    def _delivered(self, message: Message, error: Any, _message: Any) -> None:
        if error is None:
            return
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._too_large.append(message)
        else:
            self._failure = str(error)
