"""Features by entity key as a user has them: a Feast repository, a route, callers over every protocol, and a store that goes away."""

import json
import os
import signal
import sqlite3
import time

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

pytest.importorskip("feast")

from runoff import RequestRefused
from tests.acceptance.test_privacy import CANARY, kept
from tests.acceptance.test_worker_is_light import WITNESS, modules_of
from tests.kit.feature_repo import FeatureRepo, credit_model
from tests.kit.gateway import Gateway, eventually, infer_call, route
from tests.kit.processes import children

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(300)]

FEATURES = {
    "service": "credit",
    "timeout_ms": 1000,
    "max_age_s": 600,
    "defaults": {"income": -1.0, "segment": "none", "orders": 0},
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    made = FeatureRepo(tmp_path_factory.mktemp("features") / "repo")
    for number in (1, 2, 3):
        made.push_customer(
            number,
            income=100.0 * number,
            orders=number,
            segment="abc"[number - 1],
            group=f"{CANARY}-group-{number}",
            age_s=10,
        )
    made.push_customer(9, income=900.0, orders=9, age_s=5000)
    made.push_shop("x", rating=0.5)
    return made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, repo):
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "sitecustomize.py").write_text(WITNESS)
    environ = {"PYTHONPATH": str(folder), "WITNESS": str(folder)}
    settings = {"features": {"repo": str(repo.folder)}, "telemetry": {"log_level": "debug"}}
    with Gateway(folder, environ=environ, **settings) as running:
        model = credit_model(folder / "credit.onnx")
        running.apply(
            route(
                "credit",
                ("champion", model, 1),
                mirrors={"candidate": credit_model(folder / "other.onnx", scale=2.0)},
                features=FEATURES,
                unit={"input": "customer_id"},
                unit_mixed="champion",
                record={"mask": {"shop_id": "hmac"}},
            )
        )
        running.repo = repo
        yield running


def tensors(**columns):
    datatypes = {"customer_id": "INT64", "orders": "INT64", "income": "FP64", "amount": "FP32", "rating": "FP32"}
    return [
        {"name": name, "datatype": datatypes.get(name, "BYTES"), "shape": [len(values), 1], "data": values}
        for name, values in columns.items()
    ]


def ask(gateway, **columns):
    return gateway.http.post("/v2/models/credit/infer", json={"inputs": tensors(**columns)})


def score(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"][0]["data"]


def stored(gateway, prediction_id, columns):
    gateway.stored("predictions", 1, where=f"prediction_id = '{prediction_id}'")
    return gateway.lake(f"SELECT {columns} FROM predictions WHERE prediction_id = ? ORDER BY row", prediction_id)


def test_a_key_stands_for_the_features_over_every_protocol(gateway):
    assert score(ask(gateway, customer_id=[1, 2], shop_id=["x", "x"], amount=[0.5, 1.5])) == [102.0, 204.0]
    frame = {"columns": ["customer_id", "shop_id", "amount"], "data": [[1, "x", 0.5], [2, "x", 1.5]]}
    scored = gateway.http.post("/invocations", json={"dataframe_split": frame})
    assert scored.json()["predictions"] == {"score": [[102.0], [204.0]]}
    instances = [{"customer_id": 1, "shop_id": "x", "amount": 0.5}]
    assert gateway.http.post("/v1/models/credit:predict", json={"instances": instances}).json()["predictions"] == [
        [102.0]
    ]


def test_tritonclient_sends_keys_as_it_sends_any_input(gateway):
    columns = {
        "customer_id": np.array([[3]], np.int64),
        "shop_id": np.array([["x"]], object),
        "amount": np.array([[0.5]], np.float32),
    }
    for module, address in ((triton_http, gateway.rest.removeprefix("http://")), (triton_grpc, gateway.rpc)):
        client = module.InferenceServerClient(address)
        inputs = []
        for name, array in columns.items():
            one = module.InferInput(name, array.shape, {"customer_id": "INT64", "amount": "FP32"}.get(name, "BYTES"))
            one.set_data_from_numpy(array)
            inputs.append(one)
        assert client.infer("credit", inputs).as_numpy("score").tolist() == [[304.0]]
        client.close()


def test_metadata_tells_what_may_be_sent(gateway):
    config = gateway.http.get("/v2/models/credit/config").json()
    optional = {one["name"]: one["optional"] for one in config["input"]}
    assert optional == {
        "customer_id": True,
        "shop_id": True,
        "amount": False,
        "income": True,
        "orders": True,
        "segment": True,
        "rating": True,
    }


def test_the_record_tells_of_each_feature_what_came_of_it(gateway):
    reply = ask(gateway, customer_id=[1, 9, 77], shop_id=["x"] * 3, amount=[0.0] * 3)
    assert score(reply) == [101.5, -0.5, -0.5]
    rows = stored(
        gateway,
        reply.headers["x-prediction-id"],
        "key_customer_id, lookup_income, lookup_age_s_income, lookup_rating, input_income, length(key_shop_id)",
    )
    assert [(row[0], row[1], row[3], row[4], row[5]) for row in rows] == [
        (1, "found", "found", 100.0, 32),
        (9, "stale", "found", -1.0, 32),
        (77, "absent", "found", -1.0, 32),
    ]
    assert 10 <= rows[0][2] < 200
    assert 5000 <= rows[1][2] < 5200
    assert rows[2][2] is None
    told = gateway.client.prediction(reply.headers["x-prediction-id"])["record"]["rows"]
    assert [row["lookups"]["income"] for row in told] == ["found", "stale", "absent"]
    assert gateway.metric("runoff_feature_values_total", endpoint="credit", outcome="stale") >= 3


def test_the_candidate_sees_the_rows_that_were_served(gateway):
    reply = ask(gateway, customer_id=[2], shop_id=["x"], amount=[1.0])
    key = reply.headers["x-prediction-id"]
    gateway.stored("shadows", 1, where=f"prediction_id = '{key}'")
    (found,) = gateway.lake("SELECT outcome, live_score, answer_score FROM shadows WHERE prediction_id = ?", key)
    assert found == ("recorded", 203.5, 407.0)


def test_what_has_no_default_is_refused_in_words(gateway):
    absent = ask(gateway, customer_id=[1], shop_id=["nowhere"], amount=[1.0])
    assert (absent.status_code, absent.json()["code"]) == (400, "features_missing")
    assert absent.json()["error"] == "feature 'rating': not in the feature store (row 0), and without a default"
    keyless = ask(gateway, amount=[1.0], shop_id=["x"])
    assert keyless.status_code == 400
    assert "or key 'customer_id' to look them up by" in keyless.json()["error"]
    with grpc.insecure_channel(gateway.rpc) as channel:
        from gateway.rpc import open_inference_pb2 as pb

        request = pb.ModelInferRequest(model_name="credit")
        for one in tensors(customer_id=[1], shop_id=["nowhere"], amount=[1.0]):
            tensor = request.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
            field = {"INT64": "int64_contents", "BYTES": "bytes_contents", "FP32": "fp32_contents"}[one["datatype"]]
            values = [value.encode() if isinstance(value, str) else value for value in one["data"]]
            getattr(tensor.contents, field).extend(values)
        with pytest.raises(grpc.RpcError) as refused:
            infer_call(channel)(request, timeout=20)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_route_that_cannot_be_looked_up_is_refused_with_all_that_is_wrong(gateway):
    model = credit_model(gateway.folder / "wrong.onnx")
    bad = {"service": "credit", "defaults": {"colour": 1, "orders": 1.5}}
    with pytest.raises(RequestRefused) as refused:
        gateway.apply(route("wrong", ("champion", model, 1), features=bad, record={"mask": {"colour": "drop"}}))
    found = {(one["path"], one["code"]) for one in refused.value.problems}
    assert found == {
        ("features.defaults.colour", "default_unknown"),
        ("features.defaults.orders", "default_impossible"),
        ("record.mask.colour", "input_unknown"),
    }
    for service, code in (("nothing", "service_unknown"), ("offline", "view_offline"), ("clash", "feature_ambiguous")):
        with pytest.raises(RequestRefused) as refused:
            gateway.apply(route("wrong", ("champion", model, 1), features={"service": service}))
        assert [one["code"] for one in refused.value.problems] == [code]


def test_an_attribute_that_no_model_sees_is_looked_up_for_the_evidence_alone(gateway):
    model = credit_model(gateway.folder / "grouped.onnx")
    features = {"service": "grouped", "timeout_ms": 1000}
    gateway.apply(route("grouped", ("champion", model, 1), features=features, record={"sensitive": ["group"]}))
    columns = tensors(customer_id=[1, 2], shop_id=["x", "x"], amount=[0.0, 0.0])
    reply = gateway.http.post("/v2/models/grouped/infer", json={"inputs": columns})
    assert score(reply) == [101.5, 202.5]
    gateway.stored("sensitive", 2)
    rows = gateway.lake("SELECT prediction_id, row, attribute_group FROM sensitive ORDER BY row")
    key = reply.headers["x-prediction-id"]
    assert rows == [(key, 0, f"{CANARY}-group-1"), (key, 1, f"{CANARY}-group-2")]
    gateway.stored("predictions", 1, where=f"prediction_id = '{key}'")
    assert not [
        place for place in kept(gateway, f"{CANARY}-group") if "sensitive" not in place and "/spool/" not in place
    ]


def spares(gateway):
    """The processes that stand by for the features process."""
    return children(gateway.pid("features"))


def test_a_store_that_hangs_or_dies_costs_defaults_and_comes_back_by_itself(gateway):
    whole = {"customer_id": [1], "shop_id": ["x"], "amount": [0.0]}
    rated = {**whole, "rating": [0.5]}  # the one without a default is sent
    os.kill(gateway.pid("features"), signal.SIGSTOP)
    started = time.monotonic()
    late = ask(gateway, **rated)
    assert 0.9 < time.monotonic() - started < 20
    os.kill(gateway.pid("features"), signal.SIGCONT)
    assert score(late) == [-0.5]
    for spare in spares(gateway):
        os.kill(spare, signal.SIGKILL)
    gateway.kill("features")
    eventually(lambda: gateway.metric("runoff_process_up", process="features") == 0)
    gone = ask(gateway, **rated)
    refused = ask(gateway, **whole)
    assert (refused.status_code, refused.headers["x-runoff-reason"]) == (503, "feature_store")
    eventually(lambda: ask(gateway, **whole).status_code == 200, 60, 0.2)
    assert score(ask(gateway, **whole)) == [101.5]
    assert stored(gateway, late.headers["x-prediction-id"], "lookup_income, lookup_rating") == [("timeout", "sent")]
    assert stored(gateway, gone.headers["x-prediction-id"], "lookup_income, lookup_rating") == [("failed", "sent")]


def test_a_killed_store_is_stood_in_for_until_the_next_is_there(gateway):
    """Feast's import alone takes seconds; the spare has it behind it."""
    whole = {"customer_id": [1], "shop_id": ["x"], "amount": [0.0]}
    eventually(lambda: gateway.metric("runoff_process_up", process="features") == 1, 60)
    eventually(lambda: spares(gateway), 60)
    gateway.kill("features")
    eventually(lambda: ask(gateway, **whole).status_code == 200, 30, 0.05)
    assert gateway.happened("features_stood_in")
    assert score(ask(gateway, **whole)) == [101.5]
    eventually(lambda: spares(gateway), 60)  # the next one is there, with a spare of its own
    assert score(ask(gateway, **whole)) == [101.5]


def test_keys_are_in_no_log_no_file_and_no_refusal(gateway):
    mark = f"{CANARY}-shop"
    refused = ask(gateway, customer_id=[1], shop_id=[mark], amount=[1.0])
    assert refused.status_code == 400
    assert mark not in refused.text
    answered = ask(gateway, customer_id=[1], shop_id=[mark], amount=[1.0], rating=[1.0])
    with sqlite3.connect(gateway.repo.folder / "data" / "online.db", isolation_level=None) as online:
        online.execute("BEGIN EXCLUSIVE")
        late = ask(gateway, customer_id=[1], shop_id=[mark], amount=[1.0], rating=[1.0])
        online.execute("ROLLBACK")
    for reply, outcome in ((answered, "found"), (late, "timeout")):
        columns = "lookup_income, length(key_shop_id)"
        assert stored(gateway, reply.headers["x-prediction-id"], columns) == [(outcome, 32)]
    assert mark not in httpx.get(gateway.metrics_url, timeout=30).text
    assert mark not in json.dumps(gateway.events)
    eventually(lambda: not [path for path in kept(gateway, mark) if "/mirror/" not in path])


def test_a_champion_is_changed_while_the_store_is_down(gateway):
    os.kill(gateway.pid("features"), signal.SIGSTOP)
    try:
        gateway.client.split("credit", champion=1, reason="the store is asked for nothing")
    finally:
        os.kill(gateway.pid("features"), signal.SIGCONT)
    assert httpx.get(gateway.metrics_url.replace("/metrics", "/readyz"), timeout=30).status_code == 200


def test_the_store_is_in_its_own_process_and_in_no_worker(gateway):
    assert score(ask(gateway, customer_id=[1], shop_id=["x"], amount=[0.5])) == [102.0]
    assert "feast" in modules_of(gateway, "features")
    for process in ("worker-0", "control"):
        assert "feast" not in modules_of(gateway, process), process
    assert not {"pandas", "pyarrow", "sqlalchemy"} & modules_of(gateway, "worker-0")
