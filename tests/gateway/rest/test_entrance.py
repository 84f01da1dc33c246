import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admission import Admission
from gateway.errors import MediaTypeUnsupported, NotAllowed, RequestMalformed
from gateway.keys.doorkeeper import Visitor
from gateway.rest.app import build
from gateway.rest.entrance import Entrance, infer_reply, json_reply, only_json, unless_gone, whole_number
from tests.gateway.rest.test_open_inference import reply
from tests.kit.asgi_server import listening


def request(client=("192.0.2.1", 5), **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": pairs, "method": "POST", "path": "/", "client": client})


class Seen:
    """A doorkeeper that lets in whoever shows the right key, and remembers who came."""

    def __init__(self):
        self.visits = []

    def admit(self, visitor, scope, endpoint):
        self.visits.append((visitor, scope, endpoint))
        if visitor.credential != "k":
            raise NotAllowed("not you")
        return True


def test_the_doorkeeper_sees_credential_address_scope_and_endpoint(settings):
    keeper = Seen()
    entrance = Entrance(settings, keeper, lambda *_: None)
    assert entrance.admit(request(authorization="Bearer k"), "label", "e")
    assert entrance.admit(request(x_api_key="k", client=None), "predict")
    with pytest.raises(NotAllowed):
        entrance.admit(request(), "predict")
    assert keeper.visits[0] == (Visitor(credential="k", peer="192.0.2.1"), "label", "e")
    assert keeper.visits[1][0].is_local


@pytest.mark.parametrize(
    "path", ["/v2/models/phishing/infer", "/invocations", "/v1/models/phishing:predict", "/v1/labels"]
)
async def test_a_large_body_for_which_there_is_no_room_is_refused_by_every_call(corridor, sink, settings, path):
    admission = Admission(1, 100_000)
    transport = httpx.ASGITransport(build(corridor, sink, settings, admission=admission))
    async with httpx.AsyncClient(transport=transport, base_url="http://runoff.test") as client:
        admission.hold(50_000)
        refused = await client.post(path, content=b" " * 70_000, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.headers["x-runoff-reason"]) == (503, "process_bound")
        assert refused.headers["retry-after"] == "1"
        admission.release(50_000)
        read = await client.post(path, content=b" " * 70_000, headers={"content-type": "application/json"})
        assert read.status_code == 400
    assert admission.has_room(100_000)


async def test_what_arrives_is_counted_until_it_is_decoded(settings):
    admission = Admission(1, 100_000)
    entrance = Entrance(settings, Seen(), lambda *_: None, admission)
    body = b"x" * 80_000

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    asked = Request({"type": "http", "headers": [], "method": "POST", "path": "/"}, receive)
    seen = await entrance.decoded(asked, lambda read, mark: (read, mark, admission.has_room(30_000)), 7)
    assert seen == (body, 7, False)
    assert admission.has_room(30_000)


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "٣", "9" * 19, ""])
def test_a_length_is_a_whole_number(text):
    with pytest.raises(RequestMalformed, match="whole number"):
        whole_number(text, "L")


def test_a_length_may_be_absent():
    assert whole_number(None, "L") is None
    assert whole_number("17", "L") == 17


def test_json_may_be_left_unsaid_but_nothing_else_said():
    only_json(request())
    only_json(request(content_type="application/json; charset=utf-8"))
    with pytest.raises(MediaTypeUnsupported):
        only_json(request(content_type="text/csv"))


def test_only_predictions_are_compressed():
    asking = request(accept_encoding="gzip")
    assert b"content-encoding" in dict(infer_reply(asking, reply(), [], b"a" * 1000).raw_headers)
    assert b"content-encoding" not in dict(json_reply({"a": "a" * 1000}).raw_headers)


async def test_a_caller_that_leaves_ends_the_work_for_it_and_one_that_stays_gets_its_answer():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def forever():
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    async def soon():
        await asyncio.sleep(0)
        return "here"

    async def answer(request):
        await request.body()
        try:
            return Response(await unless_gone(request, soon() if request.url.path == "/soon" else forever()))
        except ClientDisconnect:
            return Response("nobody")

    app = Starlette(routes=[Route("/{way}", answer, methods=["POST"])])
    async with listening(app) as url, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /soon HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\na")
        assert b"here" in await reader.readuntil(b"here")
        writer.write(b"POST /forever HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\na")
        await begun.wait()
        writer.close()
        await ended.wait()


async def test_a_cancellation_from_elsewhere_is_not_taken_for_a_caller_that_left():
    stays = Request({"type": "http", "headers": []}, receive=asyncio.Event().wait)
    working = asyncio.create_task(unless_gone(stays, asyncio.Event().wait()))
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
