import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import httpx
import msgspec
import pytest

from gateway.rpc import open_inference_pb2 as pb
from gateway.spool.reader import SegmentReader
from gateway.state.compiled import CompiledModel, CompiledRoute
from gateway.state.revision import Draft
from gateway.state.store import StateStore
from models.staged import StagedModel
from routing.records import Block, PredictionBlock
from routing.split import compile_split
from routing.traffic import to_document
from routing.validate import validate
from tests.kit.plain import PLAIN
from tests.kit.staged import stage_linear
from tests.kit.supervised import CHILD, ROOT, Gateway, eventually

pytestmark = pytest.mark.faults

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}


class State:
    """The state database as control writes it, and staged artifacts."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.store = StateStore(folder / "state.db")

    def stage(self, version: str) -> StagedModel:
        return stage_linear(self.folder / "artifacts", version=version, slope=float(version))

    def live(self, endpoint: str, staged: StagedModel) -> int:
        draft = Draft(endpoint=endpoint, action="put", author="test", reason="test", document={"endpoint": endpoint})
        number = self.store.write(draft, check=False).number
        variants = [{"name": "champion", "model": staged.uri, "weight": 1.0}]
        route = validate({"endpoint": endpoint, "champion": "champion", "variants": variants})
        split = compile_split(route.salt, route.weights)
        compiled = CompiledRoute(
            endpoint=endpoint,
            revision=number,
            document=to_document(route),
            models={"champion": CompiledModel(key=staged.key, digest=staged.digest, uri=staged.uri)},
            split=split.arms,
            split_sha256=split.sha256,
            signature=staged.signature,
        )
        assert self.store.activate(number, compiled)
        return number


@pytest.fixture
def state(tmp_path):
    (tmp_path / "var").mkdir(mode=0o700)
    state = State(tmp_path / "var")
    yield state
    state.store.close()


@pytest.fixture
def start(state):
    started: list[Gateway] = []

    def begin(**options) -> Gateway:
        gateway = Gateway(state.folder, worker="", other=CHILD, **options)
        started.append(gateway)
        eventually(gateway.ready)
        return gateway

    yield begin
    for gateway in started:
        gateway.stop()


def infer(gateway: Gateway, endpoint: str = "line", path: str = "infer") -> httpx.Response:
    return httpx.post(f"{gateway.addresses['REST']}/v2/models/{endpoint}/{path}", json=BODY, timeout=20, verify=PLAIN)


def predictions(folder: Path) -> list[PredictionBlock]:
    blocks = []
    for writer in (folder / "spool").iterdir():
        blocks += [msgspec.msgpack.decode(frame.payload, type=Block) for frame in SegmentReader(writer).read(1 << 26)]
    return [block for block in blocks if isinstance(block, PredictionBlock)]


def test_a_worker_serves_its_routes_over_rest_and_grpc_and_records_them(state, start):
    number = state.live("line", state.stage("1"))
    gateway = start()
    reply = infer(gateway)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-runoff-revision"] == str(number)
    assert reply.json()["parameters"]["prediction_id"] == reply.headers["x-prediction-id"]
    with grpc.insecure_channel(gateway.addresses["gRPC"]) as channel:
        ready = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelReady",
            request_serializer=pb.ModelReadyRequest.SerializeToString,
            response_deserializer=pb.ModelReadyResponse.FromString,
        )
        assert ready(pb.ModelReadyRequest(name="line"), timeout=20).ready
        eventually(lambda: gateway.metric("runoff_connections", protocol="grpc") == 1)
    labels = {"endpoint": "line", "variant": "champion", "model": "line", "version": "1", "code": "200"}
    assert gateway.metric("runoff_requests_total", **labels) == 1
    assert gateway.metric("runoff_endpoint_ready", endpoint="line") == 1
    assert gateway.stop() == 0
    (block,) = predictions(state.folder)
    assert [row.status for row in block.requests] == [200]


@pytest.mark.parametrize("door", ["wire", "asgi"])
def test_either_door_answers(state, start, door, monkeypatch):
    monkeypatch.setenv("RUNOFF_DOOR", door)
    state.live("line", state.stage("1"))
    gateway = start()
    assert infer(gateway).status_code == 200
    assert httpx.get(f"{gateway.addresses['REST']}/v2", timeout=30, verify=PLAIN).status_code == 200
    assert httpx.get(f"{gateway.addresses['REST']}/nothing", timeout=30, verify=PLAIN).status_code == 404


def test_a_new_revision_is_served_while_the_gateway_runs_and_no_request_fails(state, start):
    first = state.live("line", state.stage("1"))
    gateway = start(workers=2)
    seen: set[str] = set()
    failures: list[str] = []
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=gateway.addresses["REST"], timeout=20, verify=PLAIN) as client:
            while not done.is_set():
                reply = client.post("/v2/models/line/infer", json=BODY)
                if reply.status_code != 200:
                    failures.append(reply.text)
                seen.add(reply.headers["x-runoff-revision"])

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    eventually(lambda: seen)
    second = state.live("line", state.stage("2"))
    eventually(lambda: str(second) in seen and gateway.metric("runoff_revision", endpoint="line") == second)
    done.set()
    for thread in asking:
        thread.join()
    assert not failures
    assert seen == {str(first), str(second)}


def test_every_answer_before_a_kill_has_its_record(state, start):
    state.live("line", state.stage("1"))
    gateway = start()
    ids = {infer(gateway).headers["x-prediction-id"] for _ in range(20)}
    os.kill(gateway.events("process_started")[0]["pid"], signal.SIGKILL)
    eventually(lambda: gateway.metric("runoff_process_restarts_total", process="worker-0") == 1)
    eventually(gateway.ready)
    ids.add(infer(gateway).headers["x-prediction-id"])
    recorded = [row.prediction_id.hex() for block in predictions(state.folder) for row in block.requests]
    assert sorted(recorded) == sorted(prediction_id.replace("-", "") for prediction_id in ids)
    assert gateway.metric("runoff_records_total", outcome="assigned") == 21
    assert not gateway.metric("runoff_records_total", outcome="lost")


def test_open_connections_are_answered_and_closed_when_the_gateway_stops(state, start):
    state.live("line", state.stage("1"))
    gateway = start()
    with httpx.Client(base_url=gateway.addresses["REST"], timeout=30, verify=PLAIN) as client:
        assert client.post("/v2/models/line/infer", json=BODY).status_code == 200
        assert gateway.stop() == 0
    assert not gateway.events("process_killed")


def test_a_worker_holds_no_heavy_library(state, start):
    state.live("line", state.stage("1"))
    gateway = start()
    infer(gateway)
    maps = Path(f"/proc/{gateway.events('process_started')[0]['pid']}/maps").read_text()
    libraries = {
        line.split("site-packages/")[1].split("/")[0] for line in maps.splitlines() if "site-packages/" in line
    }
    assert "onnxruntime" in libraries
    assert not libraries & {"pandas", "pyarrow", "deltalake", "sklearn", "duckdb", "scipy", "onnx"}


def test_importing_the_worker_imports_no_heavy_library():
    code = "import sys, gateway.worker; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {
        "mlflow",
        "pandas",
        "pyarrow",
        "deltalake",
        "sklearn",
        "duckdb",
        "scipy",
        "onnx",
        "opentelemetry",
    }
    assert not heavy & set(done.stdout.split())
