import logging

import httpx
import pytest

from gateway.rest.app import build


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/nope", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nope", 404, "not_found"),
        ("GET", "/v2/models/phishing/infer", 405, "method_not_allowed"),
        ("DELETE", "/v1/labels", 405, "method_not_allowed"),
        ("GET", "/v2/logging", 404, "not_offered"),
        ("POST", "/v2/models/phishing/trace/setting", 404, "not_offered"),
        ("GET", "/v2/systemsharedmemory/region/a/status", 404, "not_offered"),
        ("POST", "/v2/models/phishing/generate", 404, "not_offered"),
        ("GET", "/v2/models/a%2Fb", 404, "not_found"),
        ("GET", "/v2/models/" + "a" * 500, 404, "endpoint_unknown"),
    ],
)
async def test_every_refusal_has_a_json_body(client, method, path, status, code):
    sent = await client.request(method, path)
    assert (sent.status_code, sent.json()["code"]) == (status, code)
    assert sent.headers["content-type"] == "application/json"
    assert int(sent.headers["content-length"]) == len(sent.content)


async def test_a_wrong_method_is_told_the_right_one(client):
    assert (await client.get("/v1/labels")).headers["allow"] == "POST"


async def test_no_path_is_redirected(client):
    assert (await client.get("/v2/")).status_code == 404


async def test_what_nobody_expected_is_a_bare_500_and_a_log_line(sink, settings, caplog):
    class Broken:
        is_ready = True

        def refused(self, endpoint, error):
            raise NotImplementedError

        def view(self, endpoint, version=None):
            raise LookupError("a secret of the machine")

    transport = httpx.ASGITransport(build(Broken(), sink, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        with caplog.at_level(logging.ERROR):
            v2 = await client.get("/v2/models/x")
            scoring = await client.post("/endpoints/x/invocations", json={})
    assert v2.json() == {"error": "internal error", "code": "internal"}
    assert scoring.json() == {"error_code": "INTERNAL_ERROR", "message": "internal error"}
    assert (v2.status_code, scoring.status_code) == (500, 500)
    assert "a secret of the machine" in caplog.text


async def test_metadata_are_never_compressed(client):
    """tritonclient.http.aio asks for gzip by way of aiohttp's default headers and unpacks only predictions."""
    sent = await client.get("/v2/models/stats", headers={"accept-encoding": "gzip"})
    assert len(sent.content) > 1000
    assert "content-encoding" not in sent.headers
