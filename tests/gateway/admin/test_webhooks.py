import re

import httpx
import pytest

from gateway.admin.app import webhooks_alone
from gateway.admin.calls import calls
from gateway.keys.issue import KeyDesk, Order
from gateway.keys.scopes import SCOPES
from gateway.settings import Auth, Settings
from tests.kit.control import ControlPlane, route
from tests.kit.deliveries import BODY, NOW, SECRET, signed

PATH = "/admin/v1/webhooks/mlflow"


def client_of(plane):
    return httpx.AsyncClient(transport=httpx.ASGITransport(plane.app), base_url="http://127.0.0.1:8090")


@pytest.mark.parametrize("access", ["open", "keys"])
async def test_a_webhook_makes_the_gateway_look_and_needs_no_key(tmp_path, access):
    settings = Settings(state_dir=str(tmp_path), webhook_secret=SECRET, auth=Auth(admin=access))
    async with ControlPlane(tmp_path, settings=settings) as plane, client_of(plane) as http:
        await plane.put(route())
        plane.admin_webhooks._clock = lambda: NOW
        headers = signed() | {"content-type": "application/json"}
        reply = await http.post(PATH, content=BODY, headers=headers)
        assert (reply.status_code, reply.json()) == (200, {"accepted": True, "repeated": False})
        assert plane.follower._nudged.is_set()
        again = await http.post(PATH, content=BODY, headers=headers)
        assert again.json()["repeated"]
        bad = await http.post(PATH, content=BODY + " ", headers=headers)
        assert (bad.status_code, bad.json()["code"]) == (401, "signature_refused")


@pytest.mark.parametrize("access", ["open", "keys"])
async def test_on_a_listener_of_their_own_webhooks_are_all_that_anybody_may(tmp_path, access):
    settings = Settings(state_dir=str(tmp_path), webhook_secret=SECRET, auth=Auth(admin=access))
    async with ControlPlane(tmp_path, settings=settings) as plane:
        plane.admin_webhooks._clock = lambda: NOW
        transport = httpx.ASGITransport(webhooks_alone(plane.admin))
        key = KeyDesk(plane.store.keys).make(Order(name="all", scopes=SCOPES), author="test", reason="test").key
        plane.keys.look()
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example:8091") as http:
            for call in calls():
                if call.path == PATH:
                    continue
                path = re.sub(r"{[^}]*}", "x", call.path)
                assert (await http.request(call.method, path)).status_code == 401, path
                mighty = await http.request(call.method, path, headers={"x-api-key": key})
                assert mighty.status_code == 404, path
            for path in ("/", "/docs", "/openapi.json"):
                assert (await http.get(path)).status_code == 401, path
            headers = signed() | {"content-type": "application/json"}
            assert (await http.get(PATH)).status_code == 405
            assert (await http.post(PATH, content=BODY)).status_code == 415
            assert (
                await http.post(PATH, content=BODY, headers=headers | {"origin": "https://evil"})
            ).status_code == 403
            assert (await http.post(PATH, content=BODY + " ", headers=headers)).status_code == 401
            assert (await http.post(PATH, content=b"x" * 2_000_000, headers=headers)).status_code == 413
            assert not plane.follower._nudged.is_set()
            assert (await http.post(PATH, content=BODY, headers=headers)).json() == {
                "accepted": True,
                "repeated": False,
            }
            assert plane.follower._nudged.is_set()


async def test_without_a_secret_there_are_no_webhooks(tmp_path):
    async with ControlPlane(tmp_path) as plane, client_of(plane) as http:
        reply = await http.post(PATH, content=BODY, headers=signed() | {"content-type": "application/json"})
        assert reply.status_code == 404
