import asyncio
import gzip
import json
import zlib

import httpx
import numpy as np
import pytest

from gateway.errors import Overloaded
from gateway.rest.raw_tensors import write_raw

INFER = "/v2/models/phishing/infer"


def body(data=(1, 1, 1, 1), **fields):
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": list(data)}
    return {"inputs": [tensor], **fields}


async def test_a_prediction_says_what_happened_in_headers_and_body(client):
    sent = await client.post(INFER, json=body(id="q-1"))
    document = sent.json()
    assert sent.status_code == 200
    assert document["id"] == "q-1"
    assert document["model_name"] == "phishing"
    assert document["model_version"] == "3"
    assert document["parameters"] == {
        "prediction_id": sent.headers["x-prediction-id"],
        "variant": sent.headers["x-runoff-variant"],
        "revision": int(sent.headers["x-runoff-revision"]),
    }
    assert sent.headers["x-runoff-model"] == "phishing/3"


async def test_headers_and_parameters_reach_the_corridor(client, corridor):
    headers = {
        "x-request-id": "r-9",
        "x-runoff-variant": "challenger",
        "x-runoff-timeout-ms": "900",
        "x-runoff-explain": "1",
        "x-cohort": "beta",
        "authorization": "Bearer secret",
        "traceparent": "00-aa-bb-01",
    }
    sent = await client.post(
        "/v2/models/phishing/versions/2/infer",
        json=body(id="q", parameters={"priority": 2, "timeout": 500_000, "user": "u1"}),
        headers=headers,
    )
    request = corridor.seen[-1]
    assert (request.request_id, request.variant, request.version, request.priority) == ("r-9", "challenger", "2", 2)
    assert request.timeout_s == 0.5
    assert request.parameters["user"] == "u1"
    assert request.headers["x-cohort"] == "beta"
    assert "authorization" not in request.headers
    assert request.traceparent == "00-aa-bb-01"
    assert json.loads(sent.headers["x-runoff-explain"])["bucket"] == 11
    assert sent.json()["parameters"]["explain_bucket"] == 11


async def test_the_id_stands_in_for_a_request_id_where_it_fits(client, corridor):
    await client.post(INFER, json=body(id="a"))
    await client.post(INFER, json=body(id="a b"))
    assert [one.request_id for one in corridor.seen] == ["a", None]


async def test_a_fallback_names_both_variants(client, corridor):
    corridor.fallback_from = "challenger"
    sent = await client.post(INFER, json=body())
    assert sent.headers["x-runoff-variant"] == "champion"
    assert sent.headers["x-runoff-assigned"] == "challenger"


async def test_binary_in_and_out(client):
    head = json.dumps(
        {
            "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    ).encode()
    sent = await client.post(
        INFER,
        content=head + write_raw(np.ones((1, 4), dtype=np.float32)),
        headers={"Inference-Header-Content-Length": str(len(head)), "content-type": "text/anything"},
    )
    length = int(sent.headers["inference-header-content-length"])
    assert sent.headers["content-type"] == "application/octet-stream"
    assert (
        len(sent.content) - length == json.loads(sent.content[:length])["outputs"][0]["parameters"]["binary_data_size"]
    )


async def test_a_raw_body(client):
    sent = await client.post(
        INFER, content=write_raw(np.ones((1, 4), dtype=np.float32)), headers={"Inference-Header-Content-Length": "0"}
    )
    assert sent.status_code == 200
    assert int(sent.headers["inference-header-content-length"]) < len(sent.content)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_compressed_both_ways(client, encoding, pack):
    sent = await client.post(
        INFER,
        content=pack(json.dumps(body()).encode()),
        headers={"content-encoding": encoding, "accept-encoding": encoding},
    )
    assert sent.status_code == 200
    assert sent.headers["content-encoding"] == encoding
    assert sent.json()["outputs"]


async def test_replies_are_plain_unless_asked(client):
    sent = await client.post(INFER, json=body(), headers={"accept-encoding": "identity"})
    assert "content-encoding" not in sent.headers


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({}, b"x" * 100_001, 413, "body_too_large"),
        ({"content-encoding": "gzip"}, gzip.compress(b"\0" * 100_001, mtime=0), 413, "decoded_too_large"),
        ({"content-encoding": "br"}, b"", 400, "request_malformed"),
        ({"content-encoding": "gzip"}, b"plain", 400, "request_malformed"),
        ({"Inference-Header-Content-Length": "many"}, b"{}", 400, "request_malformed"),
        ({"Inference-Header-Content-Length": "3"}, b"x" * 200_001, 413, "body_too_large"),
        ({"x-runoff-timeout-ms": "-5"}, b"{}", 400, "request_malformed"),
        ({}, b"{", 400, "request_malformed"),
    ],
)
async def test_what_is_wrong_with_a_body_is_said(client, headers, content, status, code):
    sent = await client.post(INFER, content=content, headers=headers)
    assert (sent.status_code, sent.json()["code"]) == (status, code)
    assert sent.json()["error"]


@pytest.mark.parametrize(
    ("parameter", "value"), [("timeout", -1), ("timeout", "soon"), ("priority", True), ("priority", 1 << 64)]
)
async def test_a_parameter_that_does_not_fit_is_refused(client, parameter, value):
    sent = await client.post(INFER, json=body(parameters={parameter: value}))
    assert (sent.status_code, sent.json()["code"]) == (400, "input_invalid")


async def test_a_chunked_body_is_bounded_while_it_arrives(app):
    taken = []

    async def chunks():
        for _ in range(1000):
            taken.append(1)
            yield b"x" * 10_000

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        sent = await client.post(INFER, content=chunks())
    assert sent.status_code == 413
    assert len(taken) < 20


async def test_a_body_that_comes_too_slowly_is_408(app):
    never = asyncio.Event()

    async def chunks():
        yield b"{"
        await never.wait()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        sent = await client.post(INFER, content=chunks())
    assert (sent.status_code, sent.json()["code"]) == (408, "request_too_slow")


async def test_an_unknown_model_is_refused_before_its_body_is_read(app):
    taken = []

    async def chunks():
        taken.append(1)
        yield b"x"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        sent = await client.post("/v2/models/nope/infer", content=chunks())
    assert sent.status_code == 404
    assert not taken


async def test_overload_says_when_to_come_back(client, corridor):
    corridor.overloaded = Overloaded("the endpoint is full", "concurrency", 3)
    sent = await client.post(INFER, json=body())
    assert (sent.status_code, sent.headers["retry-after"], sent.headers["x-runoff-reason"]) == (429, "3", "concurrency")


async def test_a_passed_deadline_names_the_prediction(client):
    sent = await client.post(INFER, json=body(), headers={"x-runoff-timeout-ms": "0.0001"})
    assert (sent.status_code, sent.json()["code"]) == (504, "deadline_passed")
    assert sent.json()["prediction_id"] == sent.headers["x-prediction-id"]


async def test_a_failing_model_is_500_without_its_words(client):
    tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [9]}
    sent = await client.post("/v2/models/fragile/infer", json={"inputs": [tensor]})
    assert (sent.status_code, sent.json()["code"]) == (500, "model_failed")
    assert "Gather" not in sent.text


async def test_a_pin_that_is_not_allowed_is_403(client, corridor):
    corridor.allow_pin = False
    assert (await client.post("/v2/models/phishing/versions/2/infer", json=body())).status_code == 403


async def test_health_and_readiness(client, corridor):
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    assert (await client.get("/v2/models/phishing/versions/2/ready")).json() == {"name": "phishing", "ready": True}
    corridor.is_ready = False
    assert (await client.get("/v2/health/live")).status_code == 200
    for path in ("/v2/health/ready", "/v2/models/phishing/ready"):
        sent = await client.get(path)
        assert sent.status_code == 503
        assert sent.json()["error"]


async def test_an_endpoint_that_is_not_warm_here_is_503_everywhere_but_in_health(client, corridor):
    corridor.cold.add("phishing")
    ready = await client.get("/v2/models/phishing/ready")
    assert (ready.status_code, ready.json()["code"], ready.json()["ready"]) == (503, "not_warm", False)
    refused = [
        ready,
        await client.post(INFER, json=body()),
        await client.get("/v2/models/phishing"),
        await client.post("/v1/models/phishing:predict", json={"instances": [[1, 1, 1, 1]]}),
        await client.post("/endpoints/phishing/invocations", json={"inputs": [[1, 1, 1, 1]]}),
    ]
    assert [sent.status_code for sent in refused] == [503] * 5
    assert {sent.headers["x-runoff-reason"] for sent in refused} == {"not_warm"}
    assert all(sent.headers["retry-after"] for sent in refused)
    assert (await client.get("/v2/health/ready")).status_code == 200
    assert (await client.get("/v2/models/churn/ready")).status_code == 200
    assert (await client.get("/v2/models/nope/ready")).status_code == 404


async def test_metadata_configuration_and_statistics(client):
    assert (await client.get("/v2")).json()["name"] == "runoff"
    assert (await client.get("/v2/models/phishing/versions/2")).json()["versions"] == ["3", "2"]
    assert (await client.get("/v2/models/phishing/config")).json()["max_batch_size"] == 64
    await client.post(INFER, json=body())
    stats = (await client.get("/v2/models/phishing/versions/3/stats")).json()["model_stats"]
    assert [(one["version"], one["inference_count"]) for one in stats] == [("3", 1)]
    assert len((await client.get("/v2/models/stats")).json()["model_stats"]) > 10


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ready": true}'])
async def test_the_index_lists_endpoint_by_version(client, content):
    rows = (await client.post("/v2/repository/index", content=content)).json()
    assert {"name": "phishing", "version": "2", "state": "READY", "reason": ""} in rows


async def test_an_index_that_nobody_can_read_is_refused(client):
    assert (await client.post("/v2/repository/index", content=b"[")).status_code == 400


@pytest.mark.parametrize("verb", ["load", "unload"])
async def test_loading_needs_a_key(client, verb):
    sent = await client.post(f"/v2/repository/models/phishing/{verb}", json={})
    assert (sent.status_code, sent.json()["code"]) == (403, "not_allowed")


WIDE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [100, 4], "data": [0.125] * 400}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/phishing/infer", WIDE),
        ("/v1/models/phishing:predict", {"instances": [[0.125] * 4] * 100}),
        ("/endpoints/phishing/invocations", {"inputs": [[0.125] * 4] * 100}),
    ],
)
async def test_a_routes_own_bound_of_bodies_holds_at_every_door(client, corridor, path, body):
    assert (await client.post(path, json=body)).status_code == 200
    corridor.body_bytes_max = 1000
    refused = await client.post(path, json=body)
    assert refused.status_code == 413
    assert "1000 bytes" in refused.text
    assert corridor.refusals == [("phishing", "body_too_large")]


async def test_a_routes_own_bound_may_be_wider_than_that_of_json_and_never_than_that_of_all_bodies(client, corridor):
    corridor.body_bytes_max = 150_000
    body = b" " * 120_000 + json.dumps(WIDE).encode()
    assert (await client.post("/v2/models/phishing/infer", content=body)).status_code == 200
    corridor.body_bytes_max = 1 << 30
    assert (await client.post("/v2/models/phishing/infer", content=b" " * 200_001)).status_code == 413


@pytest.mark.parametrize(
    ("path", "content", "counted"),
    [
        ("/v2/models/phishing/infer", b"{", ("phishing", "request_malformed")),
        ("/v2/models/nobody/infer", b"{}", ("", "endpoint_unknown")),
        ("/v1/models/phishing:predict", b"[]", ("phishing", "request_malformed")),
        ("/invocations", b"a,b\n", ("phishing", None)),
        ("/endpoints/nobody/invocations", b"{}", ("", "endpoint_unknown")),
        ("/v1/labels", b"{]", ("", "request_malformed")),
    ],
)
async def test_what_a_door_cannot_read_is_counted_once_by_endpoint_and_code(client, corridor, path, content, counted):
    reply = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500
    ((endpoint, code),) = corridor.refusals
    assert endpoint == counted[0]
    assert counted[1] in (None, code)


async def test_a_version_that_may_not_be_named_is_refused_before_it_is_looked_for(client, corridor):
    path = "/v2/models/phishing/versions/99/infer"
    assert (await client.post(path, json=WIDE)).status_code == 404
    corridor.allow_pin = False
    refused = await client.post(path, json=WIDE)
    assert refused.status_code == 403
