import httpx
import pytest

from models.staged import Ask
from tests.kit.control import ControlPlane, route

PATH = "/admin/v1/models/phishing/1:tune"


@pytest.fixture
async def plane(tmp_path):
    async with ControlPlane(tmp_path / "var") as made:
        await made.put(route())
        yield made


@pytest.fixture
async def http(plane):
    transport = httpx.ASGITransport(plane.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8090") as client:
        yield client


async def test_a_version_is_measured_shown_and_told_in_the_audit(http):
    reply = await http.post(f"{PATH}?reason=slow", json={"target_ms": 5})
    assert reply.status_code == 200, reply.text
    profile = reply.json()["profile"]
    assert profile["ask"] == {"target_s": 0.005, "int8": False, "score_tolerance": 0.01, "share_weights": False}
    model = (await http.get("/admin/v1/models/phishing/1")).json()
    assert model["profile"] == profile
    assert model["memory_bytes"] == profile["memory_bytes"]
    listed = (await http.get("/admin/v1/models")).json()["models"][0]
    assert listed["tuned"]["rows_max"] == profile["rows_max"]
    assert "profile" not in listed
    row = (await http.get("/admin/v1/audit?limit=1")).json()["rows"][0]
    assert (row["action"], row["reason"], row["detail"]["model"]) == ("tune", "slow", "phishing/1")


async def test_what_is_left_out_stays_as_it_was_asked_for(http, plane):
    await http.post(f"{PATH}?reason=x", json={"target_ms": 5})
    await http.post(f"{PATH}?reason=x", json={"score_tolerance": 0.5})
    digest = plane.store.live("phishing").resolutions["champion"].digest
    assert plane.tuning.asked(digest) == Ask(target_s=0.005, score_tolerance=0.5)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (PATH, {}, 400, "reason_missing"),
        (PATH, {"reason": "x", "target_ms": 0}, 422, "tuning_invalid"),
        (PATH, {"reason": "x", "colour": "red"}, 422, "tuning_invalid"),
        (PATH, {"reason": "x", "from_traffic": "phishing"}, 409, "nothing_recorded"),
        ("/admin/v1/models/phishing/9:tune", {"reason": "x"}, 404, "model_unknown"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(http, path, body, status, code):
    reply = await http.post(path, json=body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)


async def test_a_model_whose_file_is_gone_cannot_be_measured_and_says_so(http, plane):
    digest = plane.store.live("phishing").resolutions["champion"].digest
    (plane.settings.artifacts_path / digest / "model.onnx").unlink()
    reply = await http.post(f"{PATH}?reason=x")
    assert (reply.status_code, reply.json()["code"]) == (500, "tuning_failed")
