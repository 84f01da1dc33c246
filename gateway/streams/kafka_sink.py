"""Kafka as a sink: one JSON message a row, keyed by its prediction, acknowledged by all replicas. The only room of confluent_kafka."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pyarrow as pa
from confluent_kafka import KafkaException, Producer

from gateway.streams.relay import SinkFailed

_FLUSH_S: Final = 60.0
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
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

    def send(self, table: str, rows: pa.Table) -> None:
        """Waits until every row is acknowledged. Raises SinkFailed."""
        self._failure = None
        topic = self._prefix + table
        for row in rows.to_pylist():
            self._produce(topic, table, row)
        left = self._producer.flush(_FLUSH_S)
        if left:
            self._producer.purge()
            raise SinkFailed(f"{left} messages were not acknowledged within {_FLUSH_S:.0f} s")
        if self._failure is not None:
            raise SinkFailed(self._failure)

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(1.0)

    def _produce(self, topic: str, table: str, row: dict[str, Any]) -> None:
        key = row.get("prediction_id") or row.get("request_id") or row.get("endpoint") or ""
        headers = [("id", f"{table}:{row['sequence']}".encode()), ("endpoint", (row.get("endpoint") or "").encode())]
        value = _ENCODER.encode({name: one for name, one in row.items() if one is not None})
        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers, on_delivery=self._delivered)
            except BufferError:  # its own bound: wait until some are delivered
                self._producer.poll(0.5)
                if self._failure is not None:
                    raise SinkFailed(self._failure) from None
            except KafkaException as error:
                raise SinkFailed(str(error)) from error
            else:
                break
        self._producer.poll(0)

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failure = str(error)
