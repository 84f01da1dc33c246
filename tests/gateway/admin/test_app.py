import asyncio
import sqlite3

import httpx
import pytest

from gateway.settings import Auth, Settings
from tests.kit.control import ControlPlane, route

SPLIT = {"champion": ("models:/phishing@champion", 90), "challenger": ("models:/phishing@challenger", 10)}
PATH = "/admin/v1/routes/phishing"
NEW = {"If-None-Match": "*"}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        yield made


@pytest.fixture
async def http(plane):
    async with client_of(plane) as client:
        yield client


def client_of(plane):
    transport = httpx.ASGITransport(plane.app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8090")


@pytest.fixture
async def made(http):
    """The route is live; its ETag."""
    reply = await http.put(f"{PATH}?reason=new&wait=10", json=route(**SPLIT), headers=NEW)
    assert reply.status_code == 200, reply.text
    return reply.headers["etag"]


async def test_a_new_route_is_accepted_and_becomes_live(http, plane):
    reply = await http.put(f"{PATH}?reason=new", json=route(**SPLIT), headers=NEW)
    assert reply.status_code == 202
    assert reply.json()["state"] in {"pending", "loading"}
    ended = await plane.reconciler.finished(reply.json()["revision"], 10)
    assert ended.state == "live"


async def test_a_caller_who_waits_is_told_what_is_live_and_with_which_shares(http):
    reply = await http.put(f"{PATH}?reason=new&wait=10", json=route(**SPLIT), headers=NEW)
    assert reply.status_code == 200
    assert sum(reply.json()["shares"].values()) == 1
    assert reply.json()["shares"]["champion"] == pytest.approx(0.9, abs=0.01)


async def test_a_caller_who_waits_in_vain_is_told_why(http):
    bad = route(champion=("models:/phishing/9", 1))
    reply = await http.put(f"{PATH}?reason=new&wait=10", json=bad, headers=NEW)
    assert reply.status_code == 409
    assert reply.json()["code"] == "revision_failed"
    assert reply.json()["problems"][0]["path"] == "variants[0].model"


async def test_waiting_ends_with_202_when_it_takes_longer(http, plane):
    plane.fleet.hear({"event": "workers", "live": ["a"]})
    reply = await http.put(f"{PATH}?reason=new&wait=0.05", json=route(**SPLIT), headers=NEW)
    assert (reply.status_code, reply.json()["state"]) == (202, "warming")


async def test_a_bad_document_is_refused_with_all_problems(http, plane):
    bad = {"endpoint": "phishing", "variants": [{"name": "a b", "model": "nothing", "weight": -1}], "colour": "red"}
    reply = await http.put(f"{PATH}?reason=new", json=bad, headers=NEW)
    assert reply.status_code == 422
    problems = reply.json()["problems"]
    assert len(problems) >= 4
    assert all(problem["path"] and problem["code"] for problem in problems)
    assert plane.store.revisions(limit=1) == []


async def test_a_document_for_another_endpoint_is_refused(http):
    reply = await http.put(f"{PATH}?reason=new", json=route("spam"), headers=NEW)
    assert (reply.status_code, reply.json()["problems"][0]["code"]) == (422, "endpoint_differs")


async def test_features_want_a_feature_store(http):
    document = route(**SPLIT) | {"features": {"service": "f"}}
    reply = await http.put(f"{PATH}?reason=new&wait=10", json=document, headers=NEW)
    (problem,) = reply.json()["problems"]
    assert (reply.status_code, problem["path"], problem["code"]) == (409, "features.service", "feature_store_missing")
    assert "[features] repo" in problem["remedy"]


async def test_a_route_as_it_was_read_can_be_put_back(http, made):
    seen = await http.get(PATH)
    assert seen.headers["etag"] == made
    document = seen.json()
    assert document["status"]["state"] == "live"
    document["variants"][0]["weight"] = 50
    reply = await http.put(f"{PATH}?reason=even&wait=10", json=document, headers={"If-Match": made})
    assert reply.status_code == 200
    assert (await http.get(PATH)).json()["variants"][0]["weight"] == 50


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", PATH), ("DELETE", PATH), ("PATCH", f"{PATH}/weights"), ("POST", f"{PATH}:promote")],
)
async def test_writes_need_if_match_and_the_current_one(http, made, method, path):
    body = {"PUT": route(**SPLIT), "PATCH": {"challenger": 1}, "POST": {"variant": "challenger"}}.get(method)
    query = {"reason": "x"}
    without = await http.request(method, path, params=query, json=body)
    assert (without.status_code, without.json()["code"]) == (428, "precondition_required")
    stale = await http.request(method, path, params=query, json=body, headers={"If-Match": '"99"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, made)


async def test_creating_what_exists_is_refused(http, made):
    reply = await http.put(f"{PATH}?reason=new", json=route(**SPLIT), headers=NEW)
    assert reply.status_code == 412


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", PATH),
        ("DELETE", PATH),
        ("PATCH", f"{PATH}/weights"),
        ("POST", f"{PATH}:promote"),
        ("POST", f"{PATH}:rollback"),
    ],
)
async def test_every_change_needs_a_reason(http, made, method, path):
    reply = await http.request(method, path, headers={"If-Match": made}, json={})
    assert (reply.status_code, reply.json()["code"]) == (400, "reason_missing")


async def test_weights_answer_with_weights_and_shares(http, made):
    reply = await http.patch(f"{PATH}/weights?reason=more", json={"challenger": 90}, headers={"If-Match": made})
    assert reply.status_code == 202
    assert reply.json()["state"] == "live"
    assert reply.json()["weights"] == {"champion": 90.0, "challenger": 90.0}
    assert reply.json()["shares"]["challenger"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("weights", [{"nobody": 1}, {"champion": "many"}, {"champion": -1}])
async def test_bad_weights_are_refused(http, made, weights):
    reply = await http.patch(f"{PATH}/weights?reason=x", json=weights, headers={"If-Match": made})
    assert reply.status_code == 422, reply.text


async def test_promotion_rollback_and_history(http, plane, made):
    promoted = await http.post(
        f"{PATH}:promote?wait=5", json={"variant": "challenger", "reason": "better"}, headers={"If-Match": made}
    )
    assert promoted.status_code == 200, promoted.text
    status = (await http.get(PATH)).json()["status"]
    assert status["versions"]["champion"] == "phishing/2"
    assert status["alias_moves"][0]["alias"] == "champion"
    back = await http.post(f"{PATH}:rollback", json={"reason": "worse"})
    assert (back.status_code, back.json()["state"]) == (202, "live")
    history = (await http.get(f"{PATH}/history")).json()["revisions"]
    assert [(row["action"], row["reason"], row["author"]) for row in history] == [
        ("rollback", "worse", "local:ann"),
        ("promote", "better", "local:ann"),
        ("put", "new", "local:ann"),
    ]
    assert "weights: champion 90 → 1, challenger 10 → 0" in history[1]["changes"]


async def test_a_proposal_is_shown_and_taken_with_one_call(http, plane, made):
    plane.shelf.publish("phishing", "3", alias="champion")
    await plane.follower.step()
    await asyncio.gather(*plane.follower._rehearsals.values())
    following = (await http.get(PATH)).json()["status"]["following"]
    assert following["state"] == "proposed"
    assert following["aliases"]["champion"] == {
        "reference": "models:/phishing@champion",
        "serves": "1",
        "names": "3",
    }
    assert following["summary"] == "proposed: champion 1 → 3 (passes)"
    stale = await http.post(
        f"{PATH}:follow", json={"versions": {"champion": "2"}, "reason": "go"}, headers={"If-Match": made}
    )
    assert stale.status_code == 412
    done = await http.post(f"{PATH}:follow?wait=5", json={"reason": "go"}, headers={"If-Match": made})
    assert done.status_code == 200, done.text
    assert (await http.get(PATH)).json()["status"]["versions"]["champion"] == "phishing/3"
    nothing = await http.post(f"{PATH}:follow", json={"reason": "again"}, headers={"If-Match": "*"})
    assert (nothing.status_code, nothing.json()["code"]) == (422, "nothing_to_follow")


async def test_a_document_goes_past_the_checks_only_by_override(http, plane, made):
    plane.shelf.publish("phishing", "3", inputs=("x", "extra"))
    document = route(champion=("models:/phishing/3", 1))
    refused = await http.put(f"{PATH}?reason=new&wait=5", json=document, headers={"If-Match": made})
    assert (refused.status_code, refused.json()["problems"][0]["code"]) == (409, "signature_incompatible")
    passed = await http.put(f"{PATH}?reason=new&wait=5&override=true", json=document, headers={"If-Match": made})
    assert passed.status_code == 200, passed.text


async def test_a_rollback_without_a_past_is_refused(http, made):
    reply = await http.post(f"{PATH}:rollback?reason=x")
    assert (reply.status_code, reply.json()["code"]) == (422, "nothing_to_restore")


async def test_a_plan_says_what_would_change_and_changes_nothing(http, plane, made):
    plane.shelf.publish("phishing", "3")
    document = route(champion=("models:/phishing@champion", 50), challenger=("models:/phishing/3", 50))
    reply = await http.post(f"{PATH}:plan", json=document)
    plan = reply.json()
    assert plan["problems"] == []
    assert "weights: champion 90 → 50, challenger 10 → 50" in plan["changes"]
    states = {arm["arm"]: (arm["model"], arm["was"], arm["state"]) for arm in plan["models"]}
    assert states == {
        "champion": ("phishing/1", "phishing/1", "loaded"),
        "challenger": ("phishing/3", "phishing/2", "to_stage"),
    }
    assert plan["moves"][0]["source"] == "champion"
    assert plan["moved"] == pytest.approx(0.4, abs=0.01)
    assert len(plane.store.revisions(limit=9)) == 1


async def test_a_plan_of_the_same_document_names_an_alias_that_moved(http, plane, made):
    assert (await http.post(f"{PATH}:plan", json=route(**SPLIT))).json()["changes"] == []
    plane.shelf.publish("phishing", "3", alias="champion")
    changes = (await http.post(f"{PATH}:plan", json=route(**SPLIT))).json()["changes"]
    assert changes == ["champion: models:/phishing@champion is phishing/3 now (was phishing/1)"]


async def test_a_plan_of_a_bad_document_lists_its_problems(http):
    plan = (await http.post(f"{PATH}:plan", json={"endpoint": "phishing"})).json()
    assert plan["problems"]
    assert plan["changes"] == []


async def test_deleting_takes_the_endpoint_away(http, made):
    reply = await http.delete(f"{PATH}?reason=over&wait=5", headers={"If-Match": made})
    assert reply.status_code == 200
    assert (await http.get(PATH)).status_code == 404
    assert (await http.get("/admin/v1/routes")).json() == {"routes": []}


async def test_a_failed_change_shows_at_the_route_that_stays(http, made):
    bad = route(champion=("models:/phishing/9", 1))
    await http.put(f"{PATH}?reason=bad&wait=5", json=bad, headers={"If-Match": made})
    seen = await http.get(PATH)
    assert seen.headers["etag"] == made
    assert "there is no such version" in seen.json()["status"]["problem"]


async def test_looking(http, made):
    revision = (await http.get("/admin/v1/revisions/1")).json()
    assert revision["split_sha256"]
    assert revision["models"]["champion"]["key"] == {"name": "phishing", "version": "1"}
    audit = (await http.get("/admin/v1/audit?limit=1")).json()
    assert (audit["intact"], len(audit["rows"])) == (True, 1)
    models = (await http.get("/admin/v1/models")).json()["models"]
    assert {(model["version"], model["state"]) for model in models} == {("1", "live"), ("2", "live")}
    model = (await http.get("/admin/v1/models/phishing/1")).json()
    assert model["signature"]["inputs"][0]["name"] == "x"
    runtime = (await http.get("/admin/v1/runtime")).json()
    assert runtime["listeners"]["rest"] == "http://127.0.0.1:8080"
    assert (await http.get("/admin/v1/endpoints/phishing/ledger")).json()["mirrors"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/admin/v1/routes/nix",
        "/admin/v1/routes/nix/history",
        "/admin/v1/revisions/99",
        "/admin/v1/revisions/abc",
        "/admin/v1/models/nix/1",
        "/admin/v1/endpoints/nix/quality",
        "/admin/v1/predictions/nix",
        "/nowhere",
    ],
)
async def test_what_is_not_there_is_404_in_json(http, path):
    reply = await http.get(path)
    assert reply.status_code == 404
    assert set(reply.json()) >= {"error", "code"}


async def test_what_is_promised_and_not_built_says_so(http):
    reply = await http.get("/admin/v1/endpoints/phishing/experiment")
    assert (reply.status_code, reply.json()["code"]) == (501, "not_built_yet")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:8090"}, 403),
        ({"Host": "localhost:8090"}, 200),
        ({"Host": "[::1]:8090"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "http://127.0.0.1:8090"}, 200),
    ],
)
async def test_foreign_names_and_pages_are_refused(http, headers, status):
    reply = await http.get("/admin/v1/routes", headers=headers)
    assert reply.status_code == status
    assert "access-control-allow-origin" not in reply.headers


async def test_a_body_is_json_by_its_media_type(http):
    for media in ("text/plain", "application/x-www-form-urlencoded"):
        reply = await http.post(f"{PATH}:plan", content=b"{}", headers={"Content-Type": media})
        assert (reply.status_code, reply.json()["code"]) == (415, "media_type_unsupported")


async def test_what_is_not_json_is_400(http):
    reply = await http.post(f"{PATH}:plan", content=b"{", headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (400, "json_malformed")


async def test_a_body_is_bounded_whether_or_not_its_length_is_declared(http):
    async def endless():
        for _ in range(40):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    declared = await http.post(f"{PATH}:plan", content=b" " * (2 << 20), headers=headers)
    streamed = await http.post(f"{PATH}:plan", content=endless(), headers=headers)
    assert (declared.status_code, streamed.status_code) == (413, 413)


async def test_with_keys_asked_for_nobody_is_let_in_without_one(tmp_path):
    settings = Settings(state_dir=str(tmp_path), auth=Auth(admin="keys"))
    async with ControlPlane(tmp_path, settings=settings) as plane, client_of(plane) as http:
        assert (await http.get("/admin/v1/routes")).status_code == 401


async def test_every_served_call_is_described_and_every_described_call_is_served(http):
    description = (await http.get("/openapi.json")).json()
    assert description["openapi"].startswith("3.1")
    for path, methods in description["paths"].items():
        for method in methods:
            reply = await http.request(method, path.replace("{", "").replace("}", ""))
            assert reply.status_code != 405, (method, path)
            assert reply.headers["content-type"] == "application/json"


async def test_the_description_is_browsable_without_any_other_host(http):
    page = await http.get("/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text
    assert "https://" not in page.text


async def test_the_registry_is_never_asked_on_the_event_loop(http, plane, made):
    import threading

    loop_thread, seen = threading.get_ident(), set()
    ask = plane.preparation._resolve
    plane.preparation._resolve = lambda ref: (seen.add(threading.get_ident()), ask(ref))[1]
    await asyncio.gather(*(http.post(f"{PATH}:plan", json=route(**SPLIT)) for _ in range(3)))
    assert seen
    assert loop_thread not in seen


async def test_a_state_that_cannot_be_written_now_is_said_and_leaves_what_was(http, plane, made, monkeypatch):
    other = sqlite3.connect(plane.settings.state_file, isolation_level=None)
    plane.store._database.connection.execute("PRAGMA busy_timeout = 10")
    monkeypatch.setattr(type(plane.store._database), "_waits", lambda *_: None)  # it stays at that
    other.execute("BEGIN IMMEDIATE")
    refused = await http.patch(f"{PATH}/weights?reason=more", json={"challenger": 20}, headers={"If-Match": made})
    other.execute("ROLLBACK")
    assert (refused.status_code, refused.json()["code"]) == (503, "state_unavailable")
    assert "locked" in refused.json()["error"]
    taken = await http.patch(f"{PATH}/weights?reason=more", json={"challenger": 20}, headers={"If-Match": made})
    assert taken.status_code == 202
    other.close()
