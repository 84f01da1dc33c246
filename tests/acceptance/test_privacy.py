"""What must not be kept is kept nowhere: canaries in every part of a request, looked for in every file and every row; and forgetting."""

import json
from pathlib import Path

import grpc
import httpx
import onnx
import pytest
from deltalake import DeltaTable
from onnx import TensorProto, helper, numpy_helper

from gateway.rpc import open_inference_pb2 as pb
from tests.acceptance.test_telemetry import Collector
from tests.kit import files
from tests.kit.files import array
from tests.kit.gateway import Gateway, eventually, infer_body, infer_call, route

pytestmark = pytest.mark.acceptance

CANARY = "canary-7f3a9c"


def with_text(path: Path) -> str:
    """Inputs `x` FP32 and `name` BYTES, which it does not look at; outputs as a binary classifier."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "with_text",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("name", TensorProto.STRING, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
        [numpy_helper.from_array(array([[1.0]]), "one")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)


def ask(gateway, endpoint, mark, number=0.0):
    """A good request with the mark in its text, its unit and its caller's own header."""
    tensors = [
        {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [number]},
        {"name": "name", "datatype": "BYTES", "shape": [1, 1], "data": [mark]},
    ]
    headers = {"x-runoff-unit": f"unit-{mark}", "x-secret": mark}
    return gateway.http.post(f"/v2/models/{endpoint}/infer", json={"inputs": tensors}, headers=headers)


def call(gateway, endpoint, mark, **more):
    """The same over gRPC, in typed contents; the status."""
    request = pb.ModelInferRequest(model_name=endpoint, **more)
    x = request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    x.contents.fp32_contents.append(0.5)
    name = request.inputs.add(name="name", datatype="BYTES", shape=[1, 1])
    name.contents.bytes_contents.append(mark.encode())
    metadata = (("x-runoff-unit", f"unit-{mark}"), ("x-secret", mark), ("authorization", f"Bearer {mark}"))
    with grpc.insecure_channel(gateway.rpc) as channel:
        try:
            infer_call(channel)(request, timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def collector():
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module", params=[("wire", "grpcio"), ("asgi", "wire")], ids=["wire-rest", "wire-grpc"])
def gateway(tmp_path_factory, collector, request):
    """Each door once: REST by the wire protocol and plain ASGI, gRPC by grpcio and our own."""
    folder = tmp_path_factory.mktemp("privacy")
    telemetry = {"log_level": "debug", "otlp_endpoint": collector.url, "sample_ratio": 1.0}
    with Gateway(folder, telemetry=telemetry, door=request.param[0], grpc_door=request.param[1]) as running:
        model = with_text(folder / "with_text.onnx")
        unit = {"header": "x-runoff-unit"}
        for name, record in {
            "nothing": {"inputs": "none"},
            "hashed": {"inputs": "hash"},
            "dropped": {"mask": {"name": "drop"}},
            "keyed": {"mask": {"name": "hmac"}},
            "whole": {"unit": "raw"},
        }.items():
            mirrors = {"candidate": with_text(folder / "candidate.onnx")} if name == "keyed" else {}
            running.apply(route(name, ("champion", model, 1), unit=unit, record=record, mirrors=mirrors))
        running.apply(route("hot", ("champion", files.binary(folder / "hot.onnx"), 1), unit=unit))
        yield running


def kept(gateway, mark):
    """Where the mark is: files by their bytes, and rows of the lake by their values."""
    found = [str(path) for path in gateway.state.rglob("*") if path.is_file() and mark.encode() in path.read_bytes()]
    for log in (gateway.state / "lake").glob("*/_delta_log"):
        rows = DeltaTable(str(log.parent)).to_pyarrow_dataset().to_table().to_pylist()
        found += [f"{log.parent.name}: {name}" for row in rows for name, value in row.items() if mark in str(value)]
    return found


@pytest.mark.parametrize("endpoint", ["nothing", "hashed", "dropped", "keyed"])
def test_what_the_route_does_not_record_is_in_no_file_and_no_log(gateway, endpoint):
    mark = f"{CANARY}-{endpoint}"
    good = [ask(gateway, endpoint, mark) for _ in range(5)]
    assert [reply.status_code for reply in good] == [200] * 5
    wrong = [
        gateway.http.post(f"/v2/models/{endpoint}/infer", json={"inputs": [{"name": mark, "data": [mark]}]}),
        gateway.http.post(f"/v2/models/{endpoint}/infer", content=f'{{"inputs": "{mark}"'.encode()),
        gateway.http.post(
            f"/endpoints/{endpoint}/invocations", json={"dataframe_records": [{"x": mark, "name": mark}]}
        ),
        gateway.http.post("/v1/labels", json=[{"prediction_id": mark, "label": 1}, mark]),
    ]
    assert all(reply.status_code in (202, 400) for reply in wrong), [reply.text for reply in wrong]
    assert [call(gateway, endpoint, mark) for _ in range(3)] == [grpc.StatusCode.OK] * 3
    assert call(gateway, endpoint, mark, model_version=mark) != grpc.StatusCode.OK
    gateway.stored("predictions", 8, where=f"endpoint = '{endpoint}'")
    if endpoint == "keyed":
        gateway.stored("shadows", 8, where="endpoint = 'keyed'")
        eventually(lambda: unread_mirrors(gateway, mark) == [], 90, 0.5)
    assert kept(gateway, mark) == []
    assert mark not in json.dumps(gateway.events)


def unread_mirrors(gateway, mark):
    """Mirrored rows lie whole, apart from the records, until the shadow has read them and another segment follows."""
    if any(mark.encode() in path.read_bytes() for path in (gateway.state / "mirror").rglob("*.seg")):
        ask(gateway, "keyed", "filler")
    return [path for path in (gateway.state / "mirror").rglob("*.seg") if mark.encode() in path.read_bytes()]


def test_traces_metrics_audit_and_the_admin_api_tell_nothing_of_a_request_either(gateway, collector):
    mark = f"{CANARY}-told"
    assert ask(gateway, "dropped", mark).status_code == 200
    assert call(gateway, "dropped", mark) == grpc.StatusCode.OK
    hot = gateway.http.post(
        "/v2/models/hot/infer",
        json=infer_body([[1.0, 2.0, 3.0, 4.0]]),
        headers={"x-runoff-unit": f"unit-{mark}", "x-api-key": mark},
    )
    assert hot.status_code == 200
    gateway.stored("predictions", 1, where="endpoint = 'hot'")
    eventually(lambda: len(collector.spans) > 3, 30)
    found = [span.SerializeToString() for span in list(collector.spans)]
    assert not any(mark.encode() in one for one in found)
    assert mark not in httpx.get(gateway.metrics_url, timeout=30).text
    with httpx.Client(base_url=f"{gateway.admin}/admin/v1", headers={"x-api-key": mark}, timeout=30) as admin:
        for path in (
            "routes",
            "audit",
            "revisions",
            "models",
            "runtime",
            "keys",
            "endpoints/keyed/ledger?segment_by=input_name",
            "endpoints/keyed/quality?segment_by=unit",
            "endpoints/keyed/quality?segment_by=nothing",
            f"predictions/{hot.headers['x-prediction-id']}",
            "predictions/nonsense",
            "nowhere",
        ):
            reply = admin.get(f"/{path}")
            assert mark not in reply.text, path
            assert mark not in json.dumps(dict(reply.headers)), path
        sent = {"If-Match": "*", "Content-Type": "application/json"}
        wrong = admin.put("/routes/keyed?reason=test", content=f'{{"{mark}": broken'.encode(), headers=sent)
        assert wrong.status_code == 400
        assert mark not in wrong.text
    assert mark not in json.dumps(list(gateway.client.audit()))
    assert mark not in json.dumps(gateway.events)
    assert kept(gateway, mark) == []


def test_the_canary_would_be_found(gateway):
    """The control: a route that records everything."""
    mark = f"{CANARY}-whole"
    assert ask(gateway, "whole", mark).status_code == 200
    gateway.stored("predictions", 1, where="endpoint = 'whole'")
    assert {"predictions: input_name", "predictions: unit"} <= set(kept(gateway, mark))


def test_a_forgotten_unit_is_in_no_row_and_the_audit_says_so_without_naming_it(gateway):
    mark = f"{CANARY}-forget"
    ids = [ask(gateway, endpoint, mark).headers["x-prediction-id"] for endpoint in ("keyed", "whole") for _ in range(3)]
    stays = ask(gateway, "keyed", f"{CANARY}-stays").headers["x-prediction-id"]
    gateway.client.label([{"prediction_id": one, "label": 1} for one in (*ids, stays)])
    gateway.stored("labels", 7)
    gateway.stored("predictions", 7, where=f"prediction_id IN ({', '.join(map(repr, (*ids, stays)))})")
    done = gateway.run("forget", "--unit", f"unit-{mark}", "-m", "asked on 3 November")
    assert done.returncode == 0, done.stderr
    assert "6 predictions, 3 shadows, 6 labels" in done.stdout
    assert "deleted" in done.stdout
    rows = gateway.lake(f"SELECT prediction_id FROM predictions WHERE prediction_id IN ({', '.join(map(repr, ids))})")
    assert rows == []
    assert gateway.lake("SELECT count(*) FROM predictions WHERE prediction_id = ?", stays) == [(1,)]
    assert gateway.lake("SELECT count(*) FROM labels WHERE prediction_id = ?", stays) == [(1,)]
    audit = [row for row in gateway.client.audit() if row["action"] in ("forget", "forgotten")]
    assert [row["reason"] for row in audit] == ["asked on 3 November"] * 2
    assert mark not in json.dumps(list(audit))
    assert mark not in json.dumps(gateway.events)


@pytest.mark.parametrize(
    ("body", "code"), [({}, "unit_malformed"), ({"unit": ""}, "unit_malformed"), ({"unit": 5}, "unit_malformed")]
)
def test_who_is_to_be_forgotten_must_be_said(gateway, body, code):
    from httpx import post

    reply = post(f"{gateway.admin}/admin/v1/records:forget?reason=r", json=body)
    assert (reply.status_code, reply.json()["code"]) == (400, code)
    assert post(f"{gateway.admin}/admin/v1/records:forget", json={"unit": "u"}).json()["code"] == "reason_missing"


def test_records_go_on_after_forgetting(gateway):
    reply = ask(gateway, "keyed", f"{CANARY}-after")
    where = f"prediction_id = '{reply.headers['x-prediction-id']}'"
    gateway.stored("predictions", 1, where=where)
    eventually(lambda: gateway.metric("runoff_sink_lag_seconds", sink="lake") < 5)
