import re

import httpx
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from gateway.admin.app import webhooks_alone
from gateway.admin.calls import calls
from gateway.admin.webhooks import DELIVERIES_MAX, SignatureRefused, Webhooks
from gateway.keys.issue import KeyDesk, Order
from gateway.keys.scopes import SCOPES
from gateway.settings import Auth, Settings
from tests.kit.control import ControlPlane, route

SECRET = "a shared secret"
PATH = "/admin/v1/webhooks/mlflow"
BODY = '{"entity": "model_version_alias", "action": "created", "data": {"name": "phishing", "alias": "é"}}'
NOW = 1_790_000_000


def signed(delivery="d-1", at=NOW, body=BODY, secret=SECRET):
    """Headers as MLflow itself makes them."""
    signature = _generate_hmac_signature(secret, delivery, str(at), body)
    return {"x-mlflow-signature": signature, "x-mlflow-timestamp": str(at), "x-mlflow-delivery-id": delivery}


class Nudged:
    def __init__(self):
        self.count = 0
        self.webhooks = Webhooks(SECRET, self, clock=lambda: NOW)

    def __call__(self):
        self.count += 1

    def take(self, headers, body=BODY):
        return self.webhooks.take(headers, body.encode())


@pytest.fixture
def nudged():
    return Nudged()


def test_what_mlflow_signs_nudges_once(nudged):
    assert nudged.take(signed())
    assert not nudged.take(signed())
    assert nudged.take(signed("d-2"))
    assert nudged.count == 2


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(secret="another"),
        signed(body="{}"),
        signed() | {"x-mlflow-delivery-id": "d-9"},
        signed() | {"x-mlflow-timestamp": str(NOW + 1)},
        signed() | {"x-mlflow-signature": "v1,"},
        signed() | {"x-mlflow-signature": signed()["x-mlflow-signature"].replace("v1,", "v2,")},
        signed(at=NOW - 301),
        signed(at=NOW + 301),
        signed(at="soon"),
        signed(at=f"-{NOW}"),
    ],
)
def test_what_is_not_signed_with_our_secret_now_is_refused(nudged, headers):
    with pytest.raises(SignatureRefused):
        nudged.take(headers)
    assert nudged.count == 0


def test_one_of_several_signatures_is_enough(nudged):
    both = f"{signed(secret='old')['x-mlflow-signature']} {signed()['x-mlflow-signature']}"
    assert nudged.take(signed() | {"x-mlflow-signature": both})


def test_the_memory_of_deliveries_is_bounded(nudged):
    for number in range(DELIVERIES_MAX + 10):
        nudged.take(signed(f"d-{number}"))
    assert len(nudged.webhooks._seen) == DELIVERIES_MAX
    assert not nudged.take(signed(f"d-{DELIVERIES_MAX}"))


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
