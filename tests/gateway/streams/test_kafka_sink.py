import json

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from gateway.streams import kafka_sink
from gateway.streams.feed import Feed
from gateway.streams.kafka_sink import KafkaSink
from gateway.streams.relay import SinkFailed
from tests.kit.spooled import Place, label, labels, pid_text, predictions, request


@pytest.fixture
def brokers():
    """librdkafka's own mock cluster, which listens on real sockets as long as its producer lives."""
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
    found = cluster.list_topics(timeout=10).brokers
    yield ",".join(f"{one.host}:{one.port}" for one in found.values())
    cluster.flush(1)


def consumed(brokers, topic, count):
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found = []
    try:
        while len(found) < count:
            message = consumer.poll(20)
            assert message is not None, f"{len(found)} of {count} messages came"
            if message.error() is None:
                found.append(message)
    finally:
        consumer.close()
    return found


def test_each_row_is_one_message_with_its_id_and_the_key_of_its_prediction(brokers, tmp_path):
    place = Place(tmp_path)
    place.store(predictions([request(n, unit="u") for n in range(3)], [0.1, 0.9, 0.5]), labels(label(0, 1)))
    sink = KafkaSink(brokers, "runoff.", {})
    rows = Feed(place.uri, "predictions").after(0).rows
    sink.send("predictions", rows)
    sink.send("predictions", rows)  # a repetition after a failure: the same ids
    sink.close()
    messages = consumed(brokers, "runoff.predictions", 6)
    by_id = {}
    for message in messages:
        by_id.setdefault(dict(message.headers())["id"].decode(), []).append(message)
    assert {key: len(found) for key, found in by_id.items()} == {f"predictions:{n}": 2 for n in (1, 2, 3)}
    assert [by_id[f"predictions:{n}"][0].key().decode() for n in (1, 2, 3)] == [pid_text(n) for n in range(3)]
    value = json.loads(by_id["predictions:2"][0].value())
    assert (value["answer_label"], value["unit"], value["input_x"]) == ("1", "u", 1.0)
    assert value["received_at"].startswith("20")
    assert "code" not in value


def test_brokers_that_do_not_answer_are_a_failure_and_nothing_waits_for_ever(monkeypatch):
    monkeypatch.setattr(kafka_sink, "_FLUSH_S", 0.3)
    sink = KafkaSink("127.0.0.1:9", "runoff.", {"log_level": "0"})
    with pytest.raises(SinkFailed, match="1 messages were not acknowledged"):
        sink.send("labels", pa.table({"sequence": [1], "prediction_id": ["p"]}))
    sink.close()


def test_a_property_that_is_none_is_refused():
    with pytest.raises(SinkFailed, match=r"no\.such"):
        KafkaSink("127.0.0.1:9", "runoff.", {"no.such": "x"})


def test_a_full_queue_waits_for_deliveries(brokers):
    sink = KafkaSink(brokers, "t.", {"queue.buffering.max.messages": "10"})
    sink.send("labels", pa.table({"sequence": list(range(200)), "prediction_id": [str(n) for n in range(200)]}))
    sink.close()
    assert len(consumed(brokers, "t.labels", 200)) == 200


def sized(*sizes):
    values = {"sequence": list(range(len(sizes))), "prediction_id": [str(n) for n in range(len(sizes))]}
    return pa.table(values | {"label_text": ["x" * size for size in sizes]})


def test_a_row_above_the_producers_bound_costs_no_other_its_place(brokers):
    sink = KafkaSink(brokers, "t.", {"message.max.bytes": "20000"})
    assert sink.send("labels", sized(10, 30_000, 10, 40_000, 10)) == [1, 3]
    sink.close()
    assert sorted(message.key() for message in consumed(brokers, "t.labels", 3)) == [b"0", b"2", b"4"]


class Refusing:
    """A producer whose broker refuses the batch of a row that is above its own bound, as brokers do: as a whole."""

    def __init__(self, size_max):
        self._size_max, self._batch, self.stored = size_max, [], []

    def produce(self, topic, value, key, *, headers, on_delivery):
        self._batch.append((value, key, on_delivery))

    def poll(self, timeout):
        return 0

    def flush(self, timeout):
        is_refused = any(len(value) > self._size_max for value, _, _ in self._batch)
        for _, key, on_delivery in self._batch:
            on_delivery(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if is_refused else None, None)
            self.stored += [] if is_refused else [key]
        self._batch = []
        return 0


def test_a_batch_that_the_broker_refuses_is_sent_row_by_row(brokers):
    sink = KafkaSink(brokers, "t.", {})
    sink._producer = producer = Refusing(20_000)
    assert sink.send("labels", sized(10, 30_000, 10)) == [1]
    assert producer.stored == ["0", "2"]
