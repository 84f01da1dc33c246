import shutil

import httpx
import pytest

from gateway.admin.calls import calls
from gateway.settings import Settings
from tests.kit.control import ANN, ControlPlane, route

PAIR = {"champion": ("models:/phishing@champion", 1), "challenger": ("models:/phishing@challenger", 1)}


@pytest.fixture
async def plane(tmp_path):
    settings = Settings(state_dir=str(tmp_path / "var"), host="::", rest_port=8000, grpc_port=8001)
    async with ControlPlane(tmp_path / "var", settings=settings) as made:
        yield made


@pytest.fixture
async def http(plane):
    transport = httpx.ASGITransport(plane.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8090/admin/v1") as client:
        yield client


async def models(http):
    return {model["version"]: model for model in (await http.get("/models")).json()["models"]}


async def test_a_model_says_who_serves_it_and_a_version_that_nobody_serves_is_staged(plane, http):
    first = await plane.put(route(**PAIR))
    await plane.put(route(), expected=first.number)
    found = await models(http)
    assert (found["1"]["state"], found["1"]["used_by"]) == ("live", ["phishing/champion"])
    assert (found["2"]["state"], found["2"]["used_by"]) == ("staged", [])
    assert "signature" not in found["1"], "a list is short; the whole stands at the model's own path"


async def test_a_model_whose_artifact_is_gone_is_missing_and_still_named(plane, http):
    revision = await plane.put(route())
    shutil.rmtree(plane.settings.artifacts_path / revision.resolutions["champion"].digest)
    assert (await models(http))["1"]["state"] == "missing"
    assert (await http.get("/models/phishing/1")).json()["used_by"] == ["phishing/champion"]


async def test_what_is_on_its_way_stands_in_the_runtime_until_it_is_live(plane, http):
    plane.fleet.hear({"event": "workers", "live": ["w"]})
    revision = plane.changes.put("phishing", route(), expected=None, author=ANN)
    await plane.reconciler.finished(revision.number, 0.05)
    shown = (await http.get("/runtime")).json()
    assert (shown["workers"], [one["revision"] for one in shown["revisions"]]) == (["w"], [revision.number])
    plane.fleet.hear({"event": "warm", "worker": "w", "revision": revision.number, "endpoint": "phishing"})
    await plane.ended(revision)
    shown = (await http.get("/runtime")).json()
    assert shown["revisions"] == []
    assert {"event": "warm", "worker": "w", "revision": 1, "endpoint": "phishing"} in shown["lines"]


async def test_listeners_are_addresses_that_can_be_copied(http):
    listeners = (await http.get("/runtime")).json()["listeners"]
    assert (listeners["rest"], listeners["grpc"]) == ("http://[::]:8000", "[::]:8001")


async def test_a_promised_alias_move_is_shown_until_the_registry_has_it(plane, http):
    first = await plane.put(route(**PAIR))
    plane.changes.promote("phishing", "challenger", is_mirror=False, expected=first.number, author=ANN)
    (move,) = (await http.get("/runtime")).json()["alias_moves"]
    assert (move["name"], move["alias"], move["version"]) == ("phishing", "champion", "2")
    await plane.aliases.step()
    assert (await http.get("/runtime")).json()["alias_moves"] == []


@pytest.mark.parametrize("question", ["ledger", "quality"])
async def test_a_deleted_endpoint_can_still_be_asked_about(plane, http, question):
    revision = await plane.put(route())
    plane.changes.delete("phishing", expected=revision.number, author=ANN)
    reply = await http.get(f"/endpoints/phishing/{question}", params={"since": "2026-01-01T00:00:00+02:00"})
    assert (reply.status_code, reply.json()["endpoint"]) == (200, "phishing")


async def test_a_moment_that_is_none_is_refused_by_name(plane, http):
    await plane.put(route())
    reply = await http.get("/endpoints/phishing/ledger", params={"until": "yesterday"})
    assert (reply.status_code, reply.json()["code"]) == (400, "query_invalid")
    assert "?until=<RFC 3339>" in reply.json()["error"]


async def test_quality_is_by_assignment_unless_who_answered_is_asked_for(plane, http):
    await plane.put(route())
    ask = lambda **query: http.get("/endpoints/phishing/quality", params=query)
    assert [(await ask(**query)).json()["by"] for query in ({}, {"by": "answered"})] == ["assigned", "answered"]
    assert (await ask(by="who")).json()["error"] == "by: wanted assigned or answered, got 'who'"


def test_what_quality_can_be_asked_stands_in_the_description():
    (call,) = [one for one in calls() if one.path.endswith("/quality")]
    assert set(call.query) == {"by", "segment_by", "since", "until"}
