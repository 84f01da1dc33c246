import importlib.metadata

import pytest

ROW = {"inputs": [[1, 1, 1, 1]]}


@pytest.mark.parametrize(
    ("path", "headers", "endpoint"),
    [
        ("/invocations", {}, "phishing"),
        ("/invocations", {"x-runoff-endpoint": "echo-fp32"}, "echo-fp32"),
        ("/endpoints/echo-fp64/invocations", {}, "echo-fp64"),
        ("/serving-endpoints/echo-fp64/invocations", {"x-runoff-endpoint": "phishing"}, "echo-fp64"),
    ],
)
async def test_the_endpoint_stands_in_the_path_or_the_header_or_is_the_default(
    client, corridor, path, headers, endpoint
):
    sent = await client.post(path, json=ROW, headers=headers)
    assert sent.status_code == 200
    assert corridor.seen[-1].endpoint == endpoint
    assert sent.json()["prediction_id"] == sent.headers["x-prediction-id"]


async def test_the_client_request_id_is_stored_unless_a_header_says_otherwise(client, corridor):
    await client.post("/invocations", json={**ROW, "client_request_id": "c-1"})
    await client.post("/invocations", json={**ROW, "client_request_id": "c-1"}, headers={"x-request-id": "r-1"})
    assert [one.request_id for one in corridor.seen] == ["c-1", "r-1"]


async def test_an_explanation_stands_beside_the_predictions(client):
    sent = await client.post("/invocations", json=ROW, headers={"x-runoff-explain": "1"})
    assert sent.json()["explain"]["bucket"] == 11


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/endpoints/nope/invocations", ROW, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("/endpoints/fragile/invocations", {"inputs": [[9]]}, 400, "BAD_REQUEST"),
        ("/invocations", {}, 400, "BAD_REQUEST"),
        ("/invocations", {"inputs": [[1, 2]]}, 400, "INVALID_PARAMETER_VALUE"),
        ("/endpoints/churn/invocations", {"dataframe_records": [{"age": 1}]}, 400, "INVALID_PARAMETER_VALUE"),
    ],
)
async def test_errors_have_mlflows_form(client, path, body, status, code):
    sent = await client.post(path, json=body)
    assert (sent.status_code, sent.json()["error_code"]) == (status, code)


async def test_a_media_type_that_is_not_taken_is_text(client):
    sent = await client.post("/invocations", content=b"x", headers={"content-type": "application/vnd.apache.parquet"})
    assert sent.status_code == 415
    assert sent.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/ping", "/health"])
async def test_ping_is_a_newline_and_404_while_not_ready(client, corridor, path):
    assert (await client.get(path)).content == b"\n"
    corridor.is_ready = False
    assert (await client.get(path)).status_code == 404


async def test_the_version_is_that_of_the_protocol(client):
    assert (await client.get("/version")).text == importlib.metadata.version("mlflow")
