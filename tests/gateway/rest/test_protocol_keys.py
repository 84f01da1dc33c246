"""The wire door where keys are needed: whoever has one stays on the fast lane, everybody else is refused in the order of their requests."""

import asyncio
import socket

import orjson
import pytest

from gateway.keys.doorkeeper import KeyDoor
from gateway.keys.key import digest_of, mint
from gateway.keys.ring import KeyRing
from gateway.rest.app import build
from gateway.rest.listener import RestListener
from gateway.rest.protocol import WireProtocol
from gateway.settings import Settings
from gateway.state.keys import KeyRecord
from routing.errors import RouteInvalid
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

BODY = orjson.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]})
LAST = b"connection: close\r\n"


class World:
    """A served plane with keys; `cold` lists the paths that took the ordinary way."""

    def __init__(self, folder):
        self.cold = []
        self._now = [100.0]
        self.ring = KeyRing(clock_s=lambda: self._now[0], clock_unix_s=lambda: self._now[0])
        self.records = []
        self.plane = Plane(folder)
        self.plane.serve({"champion": stage_linear(self.plane.artifacts)})
        door = KeyDoor(self.ring, is_open=False)
        settings = Settings(state_dir=str(folder), workers=1)
        app = build(self.plane.corridor, self.plane.labels, settings, doorkeeper=door)

        async def noted(scope, receive, send):
            self.cold.append(scope["path"])
            await app(scope, receive, send)

        protocol = WireProtocol.bind(self.plane.data, self.plane.paths, settings.limits, door)
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._port = self._sock.getsockname()[1]
        self.listener = RestListener(noted, protocol, self._sock, settings)
        self.listener.open()

    def key(self, *scopes, **fields):
        key, key_id = mint()
        self.records.append(KeyRecord(id=key_id, name="k", digest=digest_of(key), scopes=scopes, **fields))
        self.ring.replace(self.records, None)
        return key.encode()

    async def talk(self, *requests, pieces=None):
        """Sends the requests on one connection (in pieces of so many bytes) and answers their statuses and all the text."""
        sent = b"".join(requests)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for at in range(0, len(sent), pieces or len(sent)):
            writer.write(sent[at : at + (pieces or len(sent))])
            await writer.drain()
        async with asyncio.timeout(30):
            text = await reader.read()
        writer.close()
        return [int(part[:3]) for part in text.split(b"HTTP/1.1 ")[1:]], text


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    await made.listener.close(1.0)
    made.plane.close()


def ask(extra=b"", body=BODY):
    head = b"POST /v2/models/line/infer HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n" % len(body)
    return head + extra + b"\r\n" + body


@pytest.mark.parametrize("pieces", [None, 11])
@pytest.mark.parametrize(
    "line", [b"Authorization: Bearer %b\r\n", b"authorization: bearer  %b \r\n", b"X-Api-Key: %b\r\n"]
)
async def test_a_good_key_stays_on_the_fast_lane(world, line, pieces):
    key = world.key("predict:line")
    statuses, text = await world.talk(ask(line % key), ask(line % key), ask(LAST + line % key), pieces=pieces)
    assert (statuses, world.cold) == ([200, 200, 200], [])
    assert text.count(b"x-prediction-id") == 3


@pytest.mark.parametrize("pieces", [None, 11])
async def test_whoever_may_not_is_refused_in_turn_and_disturbs_nobody(world, pieces):
    good, other = world.key("predict"), world.key("predict:other")
    requests = [
        ask(b"x-api-key: %b\r\n" % good),
        ask(),
        ask(b"x-api-key: nonsense\r\n"),
        ask(b"x-api-key: %b\r\n" % other),
        ask(b"authorization: Basic %b\r\n" % good),
        ask(LAST + b"x-api-key: %b\r\n" % good),
    ]
    statuses, text = await world.talk(*requests, pieces=pieces)
    assert statuses == [200, 401, 401, 403, 401, 200]
    assert text.count(b"www-authenticate: Bearer") == 3
    assert good not in text


async def test_two_keys_in_one_request_are_left_to_the_ordinary_way(world):
    good = world.key("predict")
    both = b"x-api-key: nonsense\r\nauthorization: Bearer %b\r\n" % good
    statuses, _ = await world.talk(ask(LAST + both))
    assert (statuses, len(world.cold)) == ([200], 1)


async def test_a_key_that_is_revoked_is_refused_on_the_connection_where_it_was_good(world):
    good = world.key("predict")
    reader, writer = await asyncio.open_connection("127.0.0.1", world._port)
    statuses = []
    for records in (world.records, []):
        world.ring.replace(records, None)
        writer.write(ask(b"x-api-key: %b\r\n" % good))
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
        statuses.append(head[9:12])
    writer.close()
    assert statuses == [b"200", b"401"]


async def test_a_quota_counts_each_request_once_whichever_way_it_takes(world):
    key = world.key("predict", rate_per_s=0.01, burst=3)
    line = b"x-api-key: %b\r\n" % key
    unusual = orjson.dumps({**orjson.loads(BODY), "parameters": {"priority": 1}})
    statuses, text = await world.talk(ask(line), ask(line, unusual), ask(line), ask(line), ask(LAST + line))
    assert statuses == [200, 200, 200, 429, 429]
    assert b"retry-after: 100" in text


async def test_a_route_that_reads_a_secret_header_is_served_by_nobody(world):
    with pytest.raises(RouteInvalid, match="carries a secret"):
        world.plane.serve({"champion": stage_linear(world.plane.artifacts)}, unit={"header": "x-api-key"})
