"""A request seen from outside: its spans at a collector, its counts on every panel of the dashboard through a real Prometheus."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy.grafana import make
from tests.kit import files
from tests.kit.gateway import (
    Gateway,
    RestCaller,
    RpcCaller,
    Served,
    eventually,
    infer_body,
    infer_call,
    route,
    rpc_request,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"

SILENT = {
    "runoff_experiment_evalue": "no route here says that its labels are exogenous (tests/gateway/control/test_feedback.py)",
    "runoff_experiment_verdict": "no route here says that its labels are exogenous",
    "runoff_feature_lookup_duration_seconds": "no route here looks features up (tests/acceptance/test_feature_store.py)",
    "runoff_feature_values_total": "no route here looks features up",
    "runoff_drift": "drift is not built yet",
}
"""Metrics whose panels are legitimately empty under this load, and why."""

PERHAPS = {"runoff_mirror_dropped_total": "a mirror that keeps up drops nothing, and this one may on a busy machine"}
"""Metrics that may have data or not."""


class Collector:
    """An OTLP receiver over HTTP that keeps the spans it gets."""

    def __init__(self) -> None:
        self.spans: list = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()

    def of(self, trace_id: str) -> list:
        return [span for span in list(self.spans) if span.trace_id.hex() == trace_id]


@pytest.fixture(scope="module")
def collector():
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, collector):
    folder = tmp_path_factory.mktemp("telemetry")
    quick, other, slow, poisoned = (
        files.binary(folder / "quick.onnx"),
        files.binary(folder / "other.onnx", 1, 2, 1, 1),
        files.slow(folder / "slow.onnx", 500_000),
        files.poisoned(folder / "poisoned.onnx"),
    )
    with Gateway(folder, telemetry={"otlp_endpoint": collector.url, "sample_ratio": 0.0}) as running:
        split = {"unit": {"header": "x-runoff-unit"}, "record": {"inputs_bytes_max": 8}}
        fallback = {"name": "challenger", "model": poisoned, "weight": 1, "fallback": True}
        document = route("phishing", ("champion", quick, 1), mirrors={"candidate": other}, **split)
        running.apply(document | {"variants": [*document["variants"], fallback], "allow_pin": True})
        running.apply(route("slow", ("champion", slow, 1)))
        running.apply(route("poisoned", ("champion", poisoned, 1)))
        yield running


@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
def test_a_sampled_request_leaves_its_spans_with_the_ids(gateway, collector, protocol):
    trace_id = TRACE[:-1] + ("6" if protocol == "REST" else "7")
    context = {"traceparent": f"00-{trace_id}-{SPAN}-01", "tracestate": "vendor=a:b"}
    if protocol == "REST":
        prediction_id = gateway.infer("phishing", [[1, 2, 3, 4]], headers=context).headers["x-prediction-id"]
    else:
        with gateway.channel() as channel:
            metadata = tuple(context.items())
            reply = infer_call(channel)(rpc_request("phishing", [[1, 2, 3, 4]]), metadata=metadata, timeout=30)
        prediction_id = reply.parameters["prediction_id"].string_param
    eventually(lambda: len(collector.of(trace_id)) >= 6, 30)
    spans = {span.name: span for span in collector.of(trace_id)}
    assert set(spans) == {"request", "decode", "route", "queue", "batch", "record"}
    root = spans["request"]
    assert root.parent_span_id.hex() == SPAN
    assert {span.trace_state for span in spans.values()} == {"vendor=a:b"}
    assert {span.parent_span_id for name, span in spans.items() if name != "request"} == {root.span_id}
    told = {one.key: one.value.string_value or one.value.int_value for one in root.attributes}
    assert told["runoff.prediction_id"] == prediction_id
    assert told["runoff.endpoint"] == "phishing"
    assert told["runoff.revision"] == 1
    assert all(
        root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano for span in spans.values()
    )
    gateway.stored("predictions", 1, where=f"prediction_id = '{prediction_id}'")
    stored = gateway.lake("SELECT trace_id FROM predictions WHERE prediction_id = ?", prediction_id)
    assert stored == [(trace_id,)], "the record names the trace"


def test_a_request_without_the_flag_leaves_none_but_its_record_has_the_id(gateway, collector):
    trace_id = "a" * 32
    reply = gateway.infer("phishing", [[1, 2, 3, 4]], headers={"traceparent": f"00-{trace_id}-{SPAN}-00"})
    prediction_id = reply.headers["x-prediction-id"]
    gateway.stored("predictions", 1, where=f"prediction_id = '{prediction_id}'")
    assert gateway.lake("SELECT trace_id FROM predictions WHERE prediction_id = ?", prediction_id) == [(trace_id,)]
    assert not collector.of(trace_id)


def expressions() -> list[str]:
    panels = json.loads(make.DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [one.replace("$__rate_interval", "30s").replace("$endpoint", ".*") for one in found]


def everything_once(gateway: Gateway) -> None:
    """Each kind of request that some panel counts."""
    fields = {"headers": {"x-runoff-unit": "a"}}
    gateway.infer("phishing", [[1, 2, 3]], **fields)
    gateway.infer("phishing", [[1, 2, 3, 4]])
    gateway.infer("phishing", [[1, 2, 3, 4]], headers={"x-request-id": "x" * 200, "x-runoff-unit": "a"})
    gateway.infer("phishing", [[666, 2, 3, 4]], headers={"x-runoff-variant": "challenger", "x-runoff-unit": "a"})
    failed = gateway.infer("poisoned", [[666, 2, 3, 4]])
    assert failed.status_code == 500, failed.text
    gateway.infer("phishing", [[1, 2, 3, 4]], headers={"traceparent": f"00-{'b' * 32}-{SPAN}-01", "x-runoff-unit": "a"})
    labelled = {"prediction_id": failed.headers["x-prediction-id"], "label": 1}
    gateway.http.post("/v1/labels", json=[labelled])
    for _ in range(2):  # the second waits for the first, and leaves before its turn
        with httpx.Client(base_url=gateway.rest, timeout=0.05) as own, contextlib.suppress(httpx.TimeoutException):
            own.post("/v2/models/slow/infer", json=infer_body([[1, 2, 3, 4]]))


def test_every_expression_of_the_dashboard_returns_data_from_a_gateway_under_load(gateway, tmp_path):
    binary = shutil.which("prometheus", path=os.environ.get("RUNOFF_TEST_PROMETHEUS")) or shutil.which("prometheus")
    if binary is None:
        pytest.skip("no prometheus on the PATH or in the folder that RUNOFF_TEST_PROMETHEUS names")
    target = gateway.metrics_url.removeprefix("http://").removesuffix("/metrics")
    config = {
        "global": {"scrape_interval": "200ms"},
        "scrape_configs": [{"job_name": "runoff", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [binary, f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with (
            httpx.Client(base_url=f"http://{address}/api/v1", timeout=30) as prometheus,
            Served(RestCaller(gateway, "phishing"), 1),
            Served(RpcCaller(gateway, "phishing"), 1),
        ):
            empty = set(expressions())
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and any(not reason_of(one) for one in empty):
                everything_once(gateway)
                for expression in sorted(empty):
                    if answered(prometheus, expression):
                        empty.discard(expression)
    finally:
        process.terminate()
        process.wait(30)
    assert not {one for one in empty if not reason_of(one)}
    needless = {name for name in SILENT if not any(name in one for one in empty)}
    assert not needless, f"these have data by now, take them off the list: {needless}"


def reason_of(expression: str) -> str | None:
    return next((reason for name, reason in (SILENT | PERHAPS).items() if name in expression), None)


def answered(prometheus: httpx.Client, expression: str) -> bool:
    try:
        reply = prometheus.get("/query", params={"query": expression})
    except httpx.TransportError:
        return False
    if reply.status_code == 503:  # it is still starting
        return False
    assert reply.json()["status"] == "success", f"{expression}: {reply.text}"
    return bool(reply.json()["data"]["result"])
