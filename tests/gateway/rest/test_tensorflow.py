import json

import pytest

from gateway.errors import RequestMalformed
from gateway.rest.tensorflow import decode
from models.errors import InputInvalid
from tests.kit.onnx_models import classifier, columns, echo

CHURN, PHISHING = columns().signature, classifier().signature


@pytest.mark.parametrize(
    ("document", "by_row"),
    [
        ({"instances": [[1, 2, 3, 4]]}, True),
        ({"instances": [{"x": [1, 2, 3, 4]}], "signature_name": "serving_default"}, True),
        ({"inputs": [[1, 2, 3, 4]]}, False),
        ({"inputs": {"x": [[1, 2, 3, 4]]}}, False),
    ],
)
def test_rows_and_columns_are_the_same_tensor(document, by_row):
    inputs, got = decode(json.dumps(document).encode(), PHISHING)
    assert inputs["x"].tolist() == [[1, 2, 3, 4]]
    assert got is by_row


@pytest.mark.parametrize("text", [{"b64": "w6Q="}, "ä"])
def test_bytes_may_come_as_base64(text):
    signature = echo("BYTES", (-1,)).signature
    assert decode(json.dumps({"instances": [text]}).encode(), signature)[0]["x"].tolist() == ["ä"]
    assert decode(json.dumps({"inputs": [text]}).encode(), signature)[0]["x"].tolist() == ["ä"]


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ({}, RequestMalformed, "exactly one"),
        ({"instances": [], "inputs": []}, RequestMalformed, "exactly one"),
        ({"instances": [], "signature_name": "other"}, RequestMalformed, "serving_default"),
        ({"instances": []}, InputInvalid, "at least one"),
        ({"instances": 5}, RequestMalformed, "predict request"),
        ({"instances": [{"age": 1}, {"plan": "a"}]}, InputInvalid, "same inputs"),
        ({"instances": [{"nope": 1}]}, InputInvalid, "unknown input 'nope'"),
        ({"instances": [1]}, InputInvalid, "this model has 4 inputs"),
        ({"inputs": {"age": ["a"]}}, InputInvalid, "'age': wanted FP64 data"),
    ],
)
def test_what_is_wrong_is_said(document, error, message):
    with pytest.raises(error, match=message):
        decode(json.dumps(document).encode(), CHURN)


async def test_a_prediction_by_row_and_by_column(client):
    row = (
        await client.post("/v1/models/phishing:predict", json={"instances": [[1, 1, 1, 1], [-1, -1, -1, -1]]})
    ).json()
    assert [one["label"] for one in row["predictions"]] == [1, 0]
    assert len(row["predictions"][0]["probabilities"]) == 2
    column = (await client.post("/v1/models/phishing:predict", json={"inputs": [[1, 1, 1, 1]]})).json()
    assert column["outputs"]["label"] == [1]


async def test_a_single_output_stands_without_its_name(client):
    sent = await client.post("/v1/models/echo-fp32:predict", json={"instances": [[1, None]]})
    assert sent.json()["predictions"] == [[1.0, None]]
    assert (await client.post("/v1/models/echo-fp32:predict", json={"inputs": [[1]]})).json()["outputs"] == [[1.0]]


@pytest.mark.parametrize(("form", "key"), [("instances", "predictions"), ("inputs", "outputs")])
async def test_the_prediction_id_stands_beside_the_answer(client, form, key):
    sent = await client.post("/v1/models/echo-fp32:predict", json={form: [[1]]})
    assert sent.json().keys() == {key, "prediction_id"}
    assert sent.json()["prediction_id"] == sent.headers["x-prediction-id"]


async def test_a_version_is_a_pin_and_a_label_an_alias(client, corridor):
    body = {"instances": [[1, 1, 1, 1]]}
    sent = await client.post("/v1/models/phishing/versions/2:predict", json=body)
    assert sent.headers["x-runoff-model"] == "phishing/2"
    await client.post("/v1/models/phishing/labels/canary:predict", json=body)
    assert [(one.version, one.alias) for one in corridor.seen] == [("2", None), (None, "canary")]
    assert (await client.post("/v1/models/phishing/versions/9:predict", json=body)).status_code == 404


async def test_status_and_metadata(client):
    status = (await client.get("/v1/models/phishing/versions/2")).json()["model_version_status"]
    assert status == [{"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    metadata = (await client.get("/v1/models/phishing/metadata")).json()
    inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["x"]["dtype"] == "DT_FLOAT"
    label = (await client.get("/v1/models/phishing/labels/canary")).json()["model_version_status"]
    assert [one["version"] for one in label] == ["2"]
    for path in ("labels/nobody", "labels/nobody/metadata", "versions/9", "versions/9/metadata"):
        assert (await client.get(f"/v1/models/phishing/{path}")).status_code == 404, path
    assert [dim["size"] for dim in inputs["x"]["tensor_shape"]["dim"]] == ["-1", "4"]


async def test_what_is_not_warm_here_is_loading(client, corridor):
    corridor.is_ready = False
    status = (await client.get("/v1/models/phishing")).json()["model_version_status"]
    assert [(one["version"], one["state"]) for one in status] == [("3", "LOADING"), ("2", "LOADING")]


async def test_errors_are_json(client):
    for path in ("/v1/models/nope:predict", "/v1/models/phishing:classify"):
        sent = await client.post(path, json={"instances": [1]})
        assert sent.status_code == 404
        assert sent.json()["error"]
    assert (await client.post("/v1/models/fragile:predict", json={"instances": [[9]]})).status_code == 500
