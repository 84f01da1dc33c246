import queue
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.telemetry.counters import CounterPage
from gateway.telemetry.retained import read_pages
from gateway.telemetry.trace import Span, Tracer, parse_traceparent

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = SAMPLED[:-2] + "00"


@pytest.fixture
def page(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    yield page
    page.close()


@pytest.fixture
def collector():
    """A real OTLP/HTTP receiver; answers its endpoint and the requests that it got."""
    got: queue.Queue[ExportTraceServiceRequest] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/traces"
            got.put(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def tracer(page, endpoint=None, **changes):
    options = {"sample_ratio": 0.0, "sampled_per_s_max": 100, "clock": lambda: 0.0} | changes
    return Tracer(endpoint=endpoint, page=page, **options)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        SAMPLED.upper(),
        SAMPLED + "-more",
        "ff" + SAMPLED[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        SAMPLED.replace("7", "g"),
        SAMPLED + "\n",
    ],
)
def test_an_invalid_traceparent_is_ignored(text):
    assert parse_traceparent(text) is None


def test_a_later_version_of_traceparent_may_be_longer():
    parent = parse_traceparent("01" + SAMPLED[2:] + "-more")
    assert parent is not None
    assert parent.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert parent.is_sampled


def test_without_an_endpoint_only_the_callers_trace_id_is_kept(page):
    idle = tracer(page, sample_ratio=1.0)
    assert not idle.is_on
    assert idle.sample(None) is None
    trace = idle.sample(SAMPLED)
    assert trace.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert not trace.is_sampled


def test_the_sdk_is_not_imported_without_an_endpoint():
    code = "import sys, gateway.telemetry.trace; assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_callers_flag_is_honoured_up_to_the_bound(page, collector):
    second = [0.0]
    busy = tracer(page, collector[0], sampled_per_s_max=2, clock=lambda: second[0])
    assert [busy.sample(SAMPLED).is_sampled for _ in range(3)] == [True, True, False]
    assert not busy.sample(NOT_SAMPLED).is_sampled
    second[0] = 1.0
    assert busy.sample(SAMPLED).is_sampled
    busy.close()


def test_our_own_ratio_decides_where_the_caller_says_nothing(page, collector):
    draws = iter([0.05, 0.2, 0.05])
    own = tracer(page, collector[0], sample_ratio=0.1, sampled_per_s_max=1, chance=lambda: next(draws))
    assert own.sample(None).is_sampled
    assert own.sample("garbage") is None
    assert own.sample(None) is None  # above the bound
    own.close()


def test_a_requests_spans_arrive_with_parents_times_and_attributes(page, collector):
    endpoint, got = collector
    live = tracer(page, endpoint)
    trace = live.sample(SAMPLED)
    attributes = {"runoff.prediction_id": "p", "runoff.endpoint": "e", "runoff.variant": "v", "runoff.version": "3"}
    live.record(trace, [Span("request", 10, 90), Span("decode", 10, 20), Span("batch", 30, 80)], attributes)
    live.close()
    resource = got.get(timeout=30).resource_spans[0]
    assert {item.key: item.value.string_value for item in resource.resource.attributes}["service.name"] == "runoff"
    request, decode, batch = resource.scope_spans[0].spans
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert {item.key: item.value.string_value for item in request.attributes} == attributes
    assert decode.parent_span_id == batch.parent_span_id == request.span_id
    assert len({request.span_id, decode.span_id, batch.span_id}) == 3
    assert [(span.name, span.start_time_unix_nano, span.end_time_unix_nano) for span in (request, decode, batch)] == [
        ("request", 10, 90),
        ("decode", 10, 20),
        ("batch", 30, 80),
    ]


def test_a_failed_request_is_marked_and_a_fresh_trace_has_no_parent(page, collector):
    endpoint, got = collector
    live = tracer(page, endpoint, sample_ratio=1.0, chance=lambda: 0.0)
    live.record(live.sample(None), [Span("request", 1, 2)], {}, error="model_failed")
    live.close()
    (span,) = got.get(timeout=30).resource_spans[0].scope_spans[0].spans
    assert not span.parent_span_id
    assert (span.status.code, span.status.message) == (2, "model_failed")


def test_exports_are_counted_by_outcome(tmp_path, page, collector):
    live = tracer(page, collector[0])
    live.record(live.sample(SAMPLED), [Span("request", 1, 2), Span("decode", 1, 2)], {})
    live.close()
    totals = read_pages(tmp_path)
    assert totals.value("runoff_spans_total", outcome="queued") == 2
    assert totals.value("runoff_spans_total", outcome="exported") == 2


def test_a_collector_that_is_down_fails_the_spans_and_nothing_else(tmp_path, page):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        live = tracer(page, f"http://127.0.0.1:{unused.getsockname()[1]}")
        live.record(live.sample(SAMPLED), [Span("request", 1, 2)], {})
        live.close()
    assert read_pages(tmp_path).value("runoff_spans_total", outcome="failed") == 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("vendor=a:b,other@x=1", "vendor=a:b,other@x=1"),
        ("no pair", ""),
        ("a=1,a=2", ""),
        (",".join(f"k{place}=v" for place in range(40)), ""),
        ("a=" + "v" * 9000, ""),
    ],
)
def test_the_callers_tracestate_goes_with_every_span_and_what_is_none_is_left_out(page, collector, said, told):
    endpoint, got = collector
    live = tracer(page, endpoint)
    live.record(live.sample(SAMPLED, said), [Span("request", 1, 2), Span("decode", 1, 2)], {})
    live.close()
    spans = got.get(timeout=30).resource_spans[0].scope_spans[0].spans
    assert [span.trace_state for span in spans] == [told, told]


def test_a_tracestate_without_a_valid_traceparent_belongs_to_nothing(page, collector):
    live = tracer(page, collector[0], sample_ratio=1.0, chance=lambda: 0.0)
    assert live.sample("garbage", "vendor=1").parent is None
    live.close()
