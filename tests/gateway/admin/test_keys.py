"""Keys on the admin listener: the auth matrix of every call, and the calls that make keys."""

import httpx
import msgspec
import pytest
from starlette.requests import Request

from gateway.admin.app import PUBLIC_PAGES, _check_scope
from gateway.admin.calls import calls
from gateway.admin.context import PRINCIPAL
from gateway.admin.replies import AdminError
from gateway.keys.issue import KeyDesk, Order
from gateway.keys.ring import Principal
from gateway.keys.scopes import EVERYTHING, SCOPES
from gateway.settings import Auth, Settings
from tests.kit.control import ControlPlane, route

PATH_VALUES = {"{endpoint}": "phishing", "{number}": "1", "{name}": "phishing", "{version}": "1", "{id}": "0" * 12}
WHO = {"author": "local:ann", "reason": "because"}
NEW = {"If-None-Match": "*"}


@pytest.fixture
async def plane(tmp_path):
    settings = Settings(state_dir=str(tmp_path / "var"), auth=Auth(admin="keys"))
    async with ControlPlane(tmp_path / "var", settings=settings) as made:
        yield made


@pytest.fixture
def key_of(plane):
    """Makes a key with these scopes, as `--local` does."""
    desk = KeyDesk(plane.store.keys)

    def make(*scopes, **fields):
        made = desk.make(Order(name="k", scopes=scopes, **fields), **WHO)
        plane.keys.look()
        return made.key

    return make


async def ask(plane, method, path, key=None, **more):
    transport = httpx.ASGITransport(plane.app, raise_app_exceptions=False)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example:8090") as client:
        return await client.request(method, path, headers=headers | more.pop("headers", {}), **more)


def filled(template):
    for name, value in PATH_VALUES.items():
        template = template.replace(name, value)
    return template


# ── the matrix ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_call_declares_its_scope():
    assert [call.path for call in calls() if call.scope is None] == []
    assert [call.path for call in calls() if call.scope == "public"] == ["/admin/v1/webhooks/mlflow"]


def test_every_route_of_the_app_stands_in_the_table_or_is_a_public_page(plane):
    routes = {route.path for route in plane.app._app.routes}
    assert routes - {call.path for call in calls()} == PUBLIC_PAGES


@pytest.mark.parametrize(
    "call", [call for call in calls() if call.scope != "public"], ids=lambda c: f"{c.method} {c.path}"
)
async def test_nobody_makes_a_call_who_may_not(plane, key_of, call):
    others = [scope for scope in SCOPES if scope != call.scope]
    elsewhere = [f"{scope}:elsewhere" for scope in SCOPES if scope != "keys:write"]
    good = key_of(call.scope)
    bad = {
        "no key": (None, 401),
        "bad key": ("nonsense", 401),
        "bad secret": (good[:-3] + "AAA", 401),
        "expired": (key_of(call.scope, expires_s=1e-6), 401),
        "wrong scope": (key_of(*others), 403),
    }
    if not call.sifts:
        bad["wrong endpoint"] = (key_of(*elsewhere), 403)
    for name, (key, status) in bad.items():
        reply = await ask(plane, call.method, filled(call.path), key)
        assert reply.status_code == status, (name, reply.text)
        assert set(reply.json()) == {"error", "code"}
        assert ("www-authenticate" in reply.headers) == (status == 401)
    if "/evidence" not in call.path and call.tag != "evidence":  # these may ask the lake
        assert (await ask(plane, call.method, filled(call.path), good)).status_code not in (401, 403)


def test_a_call_without_a_scope_is_open_to_nobody():
    call = msgspec.structs.replace(calls()[0], scope=None)
    scope = {"type": "http", "path_params": {}, "query_string": b"", PRINCIPAL: Principal("key:x", EVERYTHING)}
    with pytest.raises(AdminError) as refused:
        _check_scope(call, Request(scope))
    assert refused.value.status == 403


async def test_pages_that_show_nothing_need_no_key_and_a_signed_webhook_brings_its_own(plane):
    for path in PUBLIC_PAGES - {"/"}:
        assert (await ask(plane, "GET", path)).status_code == 200
    assert (await ask(plane, "POST", "/admin/v1/webhooks/mlflow")).status_code not in (200, 403)


# ── what a key sees ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_list_shows_the_endpoints_that_the_key_is_for(plane, key_of):
    for endpoint in ("phishing", "spam"):
        assert (await plane.put(route(endpoint))).state == "live"
    for scopes, names in ((["read"], ["phishing", "spam"]), (["read:sp*"], ["spam"]), (["read:x"], [])):
        reply = await ask(plane, "GET", "/admin/v1/routes", key_of(*scopes))
        assert [one["endpoint"] for one in reply.json()["routes"]] == names
    reply = await ask(plane, "GET", "/admin/v1/runtime", key_of("read:x"))
    assert reply.status_code == 200
    assert "spam" not in reply.text


async def test_the_question_about_one_endpoint_is_for_who_may_look_at_it(plane, key_of):
    key = key_of("read:phishing")
    statuses = [
        (await ask(plane, "GET", f"/admin/v1/audit{query}", key)).status_code
        for query in ("?endpoint=phishing", "?endpoint=spam", "")
    ]
    assert statuses == [200, 403, 403]


async def test_the_author_of_a_change_is_the_key(plane, key_of):
    key = key_of("route:write:phishing")
    reply = await ask(plane, "PUT", "/admin/v1/routes/phishing?reason=x&wait=10", key, json=route(), headers=NEW)
    assert reply.status_code == 200, reply.text
    assert plane.store.live("phishing").author == f"key:k/{key.split('_')[1]}"


async def test_pages_of_other_origins_and_forms_are_refused_with_a_key_too(plane, key_of):
    key = key_of("keys:write")
    foreign = await ask(plane, "GET", "/admin/v1/keys", key, headers={"Origin": "https://evil.example"})
    form = await ask(plane, "POST", "/admin/v1/keys?reason=x", key, data={"name": "x"})
    assert (foreign.status_code, form.status_code) == (403, 415)


async def test_a_used_up_quota_is_429_with_the_time_to_wait(plane, key_of):
    key = key_of("read", rate_per_s=0.01, burst=1)
    assert (await ask(plane, "GET", "/admin/v1/routes", key)).status_code == 200
    reply = await ask(plane, "GET", "/admin/v1/routes", key)
    assert (reply.status_code, int(reply.headers["retry-after"]) > 1) == (429, True)


async def test_while_the_listener_is_open_a_good_key_still_says_who_it_is(tmp_path):
    async with ControlPlane(tmp_path / "var") as plane:
        made = KeyDesk(plane.store.keys).make(Order(name="ann", scopes=("read",)), **WHO)
        plane.keys.look()
        transport = httpx.ASGITransport(plane.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for endpoint, key in (("a", made.key), ("b", "nonsense")):
                headers = {"Authorization": f"Bearer {key}"} | NEW
                path = f"/admin/v1/routes/{endpoint}?reason=x"
                assert (await client.put(path, json=route(endpoint), headers=headers)).status_code == 202
        authors = {one.endpoint: one.author for one in plane.store.revisions(limit=10)}
        assert authors == {"a": f"key:ann/{made.record.id}", "b": "local:ann"}


# ── making keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = "/admin/v1/keys"


async def test_a_key_is_made_shown_once_rotated_and_revoked(plane, key_of):
    admin = key_of(*SCOPES)
    body = {"name": "app", "scopes": ["read"], "expires_s": 3600, "rate_per_s": 50, "burst": 5, "reason": "new"}
    reply = await ask(plane, "POST", KEYS, admin, json=body)
    assert (reply.status_code, reply.headers["cache-control"]) == (201, "no-store")
    first = reply.json()
    assert (await ask(plane, "GET", "/admin/v1/routes", first["key"])).status_code == 200
    reply = await ask(plane, "POST", f"{KEYS}/{first['id']}:rotate?reason=old", admin, json={"overlap_s": 3600})
    second = reply.json()
    assert (reply.status_code, second["replaces"], second["replaced"]["id"]) == (201, first["id"], first["id"])
    for key in (first["key"], second["key"]):
        assert (await ask(plane, "GET", "/admin/v1/routes", key)).status_code == 200
    reply = await ask(plane, "POST", f"{KEYS}/{first['id']}:rotate?reason=old", admin)
    assert (reply.status_code, reply.json()["code"]) == (409, "key_ended")
    reply = await ask(plane, "DELETE", f"{KEYS}/{second['id']}?reason=leaked", admin)
    assert reply.json()["state"] == "revoked"
    assert (await ask(plane, "GET", "/admin/v1/routes", second["key"])).status_code == 401
    listed = (await ask(plane, "GET", KEYS, admin)).text
    assert first["key"] not in listed
    assert "digest" not in listed
    actions = [row.action for row in plane.store.audit(limit=3)]
    assert actions == ["key_revoked", "key_rotated", "key_made"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "a", "scopes": ["read"]}, 400),
        ({"name": "a", "reason": "x"}, 400),
        ({"name": "a", "scopes": "read", "reason": "x"}, 400),
        ({"name": "a", "scopes": ["read"], "colour": "red", "reason": "x"}, 400),
        ({"name": "a", "scopes": ["fly"], "reason": "x"}, 422),
        ({"name": "", "scopes": ["read"], "reason": "x"}, 422),
        ({"name": "a", "scopes": ["read"], "expires_s": -1, "reason": "x"}, 422),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(plane, key_of, body, status):
    assert (await ask(plane, "POST", KEYS, key_of(*SCOPES), json=body)).status_code == status


async def test_nobody_gives_touches_or_inherits_what_they_lack(plane, key_of):
    clerk, admin = key_of("keys:write", "read:phishing"), key_of(*SCOPES)
    mighty = admin.split("_")[1]
    for scopes, status in ((["read:phishing"], 201), (["read"], 403), (["predict:phishing"], 403)):
        body = {"name": "x", "scopes": scopes, "reason": "x"}
        assert (await ask(plane, "POST", KEYS, clerk, json=body)).status_code == status
    assert (await ask(plane, "POST", f"{KEYS}/{mighty}:rotate?reason=x", clerk)).status_code == 403
    assert (await ask(plane, "DELETE", f"{KEYS}/{mighty}?reason=x", clerk)).status_code == 403
    assert (await ask(plane, "DELETE", f"{KEYS}/{'0' * 12}?reason=x", admin)).status_code == 404
