"""A version that cannot be served never is: the old revision answers, byte for byte as before, and the reason is shown."""

import re

import onnx
import pytest
from onnx import TensorProto, helper

from runoff import RequestRefused
from tests.kit import files
from tests.kit.gateway import Gateway, infer_body, route

pytestmark = [pytest.mark.faults, pytest.mark.slow]

STORED = 50


def broken(path):
    path.write_bytes(b"this is no model")
    return str(path)


def foreign(path):
    model = files.graph([helper.make_node("Identity", ["x"], ["y"], domain="com.example")], {}, 4)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    path.write_bytes(model.SerializeToString())
    return str(path)


def failing(path):
    """Loads, passes every static check, and fails whenever it is run: an index far beyond its table."""
    nodes = [
        helper.make_node("Gather", ["table", "far"], ["nothing"], axis=0),
        helper.make_node("Add", ["x", "nothing"], ["clean"]),
        helper.make_node("MatMul", ["clean", "w"], ["sum"]),
        *files.ANSWER,
    ]
    constants = files.constants(4) | {"table": files.array([1.0, 2.0]), "far": files.array(99, "int64")}
    path.write_bytes(files.graph(nodes, constants, 4).SerializeToString())
    return str(path)


def needs_more(path):
    """Wants five columns where the endpoint declares four."""
    return files.binary(path, 1, 1, 1, 1, 1)


def answers_otherwise(path):
    """The same inputs, and an output of another name and type."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "echo",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return str(path)


def other_labels(path):
    return files.binary(path, 1, 1, 1, 1, classes=(1, 0))


def missing(path):
    return str(path)


WORDS = {
    broken: "no ONNX model",
    foreign: "com.example",
    failing: "",
    needs_more: "5",
    answers_otherwise: "label",
    other_labels: "",
    missing: "found neither",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failing")
    with Gateway(folder) as running:
        running.apply(route("phishing", ("champion", files.binary(folder / "phishing.onnx"), 1)))
        yield running


def replies(gateway: Gateway) -> list[bytes]:
    """The answers to the stored requests, without what each prediction has of its own."""
    found = []
    for number in range(STORED):
        row = [[number / 7, 1 - number / 9, 0.5, -number / 11]]
        reply = gateway.http.post("/v2/models/phishing/infer", json=infer_body(row, id=f"stored-{number}"))
        headers = sorted((name, value) for name, value in reply.headers.items() if name.startswith("x-runoff"))
        own = reply.headers["x-prediction-id"].encode()
        found.append(re.sub(own, b"", reply.content) + repr(headers).encode() + str(reply.status_code).encode())
    return found


@pytest.mark.parametrize("make", WORDS, ids=lambda make: make.__name__)
def test_the_old_revision_goes_on_and_the_reason_is_shown(gateway, tmp_path, make):
    before = replies(gateway)
    document = route("phishing", ("champion", make(tmp_path / "next.onnx"), 1))
    base = gateway.client.route("phishing")["status"]["live"]
    pending = gateway.admin_put(document, base)
    during = replies(gateway)
    assert pending.status_code in {202, 422}, pending.text
    if pending.status_code == 202:
        number = pending.json()["revision"]
        ended = gateway.ended(number)
        assert ended["state"] == "failed"
        assert WORDS[make] in ended["problem"]
        history = gateway.run("history", "phishing")
        assert "failed" in history.stdout
        status = gateway.client.route("phishing")["status"]
        assert (status["failed"], status["problem"]) == (number, ended["problem"])
    assert before == during == replies(gateway)
    with pytest.raises(RequestRefused) as refused:
        gateway.apply(document)
    assert WORDS[make] in str(refused.value)
    assert before == replies(gateway)


def test_a_row_that_a_model_fails_on_fails_alone_and_the_worker_lives(gateway, tmp_path):
    gateway.apply(route("poisoned", ("champion", files.poisoned(tmp_path / "poisoned.onnx"), 1)))
    bad, good = gateway.infer("poisoned", [[666, 1, 1, 1]]), gateway.infer("poisoned", [[1, 1, 1, 1]])
    assert good.status_code == 200
    assert bad.status_code == 500
    assert bad.json()["code"] == "model_failed"
    assert bad.json()["prediction_id"] == bad.headers["x-prediction-id"], (
        "what was assigned has a record, also when it failed"
    )
    gateway.stored("predictions", 1, where=f"prediction_id = '{bad.headers['x-prediction-id']}'")
    assert gateway.metric("runoff_process_restarts_total") == 0
