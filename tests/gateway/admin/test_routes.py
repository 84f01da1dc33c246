import asyncio

import httpx
import pytest

from tests.kit.control import ANN, ControlPlane, route

PAIR = {"champion": ("models:/phishing@champion", 90), "challenger": ("models:/phishing@challenger", 10)}
PATH = "/routes/phishing"
ANY = {"If-Match": "*"}


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        await made.put(route(**PAIR))
        yield made


@pytest.fixture
async def http(plane):
    transport = httpx.ASGITransport(plane.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8090/admin/v1") as client:
        yield client


async def test_the_list_has_what_is_there_and_not_what_was_deleted(plane, http):
    plane.shelf.publish("spam", "1")
    await plane.put(route("spam", champion=("models:/spam/1", 1)))
    assert [one["endpoint"] for one in (await http.get("/routes")).json()["routes"]] == ["phishing", "spam"]
    await http.delete("/routes/spam?reason=why", headers=ANY)
    assert [one["endpoint"] for one in (await http.get("/routes")).json()["routes"]] == ["phishing"]


async def test_every_write_answers_with_the_tag_that_the_next_one_needs(http):
    first = await http.patch(f"{PATH}/weights?reason=why", json={"challenger": 20}, headers={"If-Match": '"1"'})
    assert first.json()["weights"] == {"champion": 90.0, "challenger": 20.0}
    assert (await http.get(PATH)).headers["etag"] == first.headers["etag"] == '"2"'
    again = await http.patch(
        f"{PATH}/weights?reason=why", json={"challenger": 30}, headers={"If-Match": first.headers["etag"]}
    )
    assert again.status_code == 202


@pytest.mark.parametrize(
    "body", [{}, {"variant": "challenger", "mirror": "challenger"}, {"variant": 1}, {"mirror": None}]
)
async def test_a_promotion_names_one_arm(http, plane, body):
    reply = await http.post(f"{PATH}:promote?reason=why", json=body, headers=ANY)
    assert (reply.status_code, reply.json()["code"]) == (400, "body_invalid")
    assert plane.store.current("phishing").number == 1


@pytest.mark.parametrize("body", [{"to": "1"}, {"to": True}, {"to": 1.0}, {"move_alias": "yes"}])
async def test_a_rollback_goes_to_a_number(http, body):
    reply = await http.post(f"{PATH}:rollback?reason=why", json=body)
    assert (reply.status_code, reply.json()["code"]) == (400, "body_invalid")


async def test_an_alias_that_moved_again_since_somebody_looked_is_not_taken(http, plane):
    for version in ("3", "4"):
        plane.shelf.publish("phishing", version, alias="champion")
        await plane.follower.step()
    seen = {"versions": {"champion": "3"}}
    stale = await http.post(f"{PATH}:follow?reason=why", json=seen, headers=ANY)
    assert stale.status_code == 412
    assert "champion 4" in stale.json()["error"]
    assert plane.live()["champion"] == "1"
    taken = await http.post(f"{PATH}:follow?reason=why&wait=10", json={"versions": {"champion": "4"}}, headers=ANY)
    assert (taken.status_code, plane.live()["champion"]) == (200, "4")


async def test_a_resumed_endpoint_takes_its_alias_anew(http, plane):
    first = plane.store.live("phishing")
    changed = await plane.put(route(champion=("models:/phishing@champion", 1)), expected=first.number)
    assert (changed.number, (await http.post(f"{PATH}:rollback?reason=why")).status_code) == (2, 202)
    assert plane.store.standings.followed("phishing").following.state == "paused"
    assert (await http.post(f"{PATH}:resume?reason=why")).json() == {"endpoint": "phishing", "state": "resumed"}
    assert plane.store.standings.followed("phishing").following.state != "paused"


async def test_history_is_read_page_by_page_and_ends_with_an_empty_one(http, plane):
    for weight in (20, 30):
        plane.changes.weights("phishing", {"challenger": weight}, expected=weight // 10 - 1, author=ANN)
    pages, before = [], None
    while True:
        query = {"limit": 2} | ({} if before is None else {"before": before})
        found = (await http.get(f"{PATH}/history", params=query)).json()["revisions"]
        pages.append([one["revision"] for one in found])
        if not found:
            break
        before = pages[-1][-1]
    assert pages == [[3, 2], [1], []]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "before=x"])
async def test_a_page_that_makes_no_sense_is_refused(http, query):
    for path in (f"{PATH}/history", "/revisions", "/audit"):
        reply = await http.get(f"{path}?{query}")
        assert (reply.status_code, reply.json()["code"]) == (400, "page_malformed")


async def test_the_audit_of_one_endpoint_leaves_out_the_others(http, plane):
    plane.shelf.publish("spam", "1")
    await plane.put(route("spam", champion=("models:/spam/1", 1)))
    rows = (await http.get("/audit", params={"endpoint": "spam"})).json()["rows"]
    assert [(row["action"], row["endpoint"]) for row in rows] == [("live", "spam"), ("put", "spam")]


async def test_who_waits_for_a_revision_that_is_overtaken_is_told_so(http, plane):
    plane.fleet.hear({"event": "workers", "live": ["w"]})
    plane.shelf.publish("phishing", "3")
    slow = route(champion=("models:/phishing/3", 1))
    waiting = asyncio.create_task(http.put(f"{PATH}?reason=slow&wait=10", json=slow, headers=ANY))
    while plane.store.current("phishing").number == 1:  # noqa: ASYNC110  # the store wakes nobody
        await asyncio.sleep(0)
    plane.changes.put("phishing", route(**PAIR), expected=2, author=ANN)
    reply = await waiting
    assert (reply.status_code, reply.json()["code"], reply.json()["revision"]) == (409, "revision_superseded", 2)
    shown = (await http.get("/revisions/2")).json()
    assert (shown["state"], shown["author"], shown["reason"]) == ("superseded", "local:ann", "slow")


BAD = route(champion=("models:/phishing/9", 1), challenger=("models:/phishing/1", 1)) | {"colour": "red"}


async def put(http, document):
    return await http.put(f"{PATH}?reason=why&wait=10", json=document, headers=ANY)


async def test_a_refused_document_is_told_of_models_that_the_registry_does_not_have_too(http):
    reply = await put(http, BAD)
    assert reply.status_code == 422
    told = [(problem["path"], problem["code"]) for problem in reply.json()["problems"]]
    assert told == [("colour", "unknown_key"), ("variants[0].model", "model_unknown")]
    planned = (await http.post(f"{PATH}:plan", json=BAD)).json()["problems"]
    assert [(problem["path"], problem["code"]) for problem in planned] == told


async def test_while_the_registry_is_away_a_document_is_refused_for_itself_alone_and_a_good_one_fails_later(
    http, plane
):
    plane.shelf.is_down = True
    reply = await put(http, BAD)
    assert reply.status_code == 422
    assert [problem["code"] for problem in reply.json()["problems"]] == ["unknown_key"]
    good = {name: value for name, value in BAD.items() if name != "colour"}
    reply = await put(http, good)
    assert (reply.status_code, reply.json()["problems"][0]["code"]) == (409, "registry_unavailable")


async def test_a_registry_that_does_not_answer_holds_no_refusal_up(http, plane, monkeypatch):
    monkeypatch.setattr(plane.planner, "_refusal_s", 0.05)
    answer = asyncio.Event()

    async def silent(ref):
        await answer.wait()

    monkeypatch.setattr(plane.preparation, "resolve", silent)
    reply = await put(http, BAD)
    assert [problem["code"] for problem in reply.json()["problems"]] == ["unknown_key"]


async def test_a_good_document_with_an_unknown_model_is_taken_and_fails(http):
    good = {name: value for name, value in BAD.items() if name != "colour"}
    reply = await put(http, good)
    assert (reply.status_code, reply.json()["problems"][0]["code"]) == (409, "model_unknown")
