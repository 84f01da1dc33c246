"""The load generator of the traffic benchmarks keeps every answer, and counts who got none."""

import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from loadtests.arrivals import FIELDS, Arrivals, p99_ms


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert (self.path, body) == ("/v2/models/line/infer", b"{}")
        type(self).count += 1
        if self.count == 20:
            self.close_connection = True  # no answer at all
            return
        self.send_response(503 if self.count == 10 else 200)
        for name, value in (("X-Runoff-Revision", "7"), ("X-Runoff-Model", "Line/3"), ("Content-Length", "2")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_every_answer_is_kept_with_who_gave_it_and_a_broken_connection_is_one_without(url):
    with Arrivals(url, "line", 200, b"{}") as load:
        deadline = time.monotonic() + 20
        while Answering.count < 100 and time.monotonic() < deadline:
            time.sleep(0.02)
    answers = load.answers()
    assert len(answers) >= 100
    statuses = dict(zip(*np.unique(answers["status"], return_counts=True), strict=True))
    assert statuses[503] == 1
    assert statuses[0] >= 1
    good = answers[answers["status"] == 200]
    assert set(good["revision"]) == {7}
    assert set(good["model"]) == {"line/3"}
    assert (good["done"] >= good["due"]).all()


def test_the_quantile_is_that_of_the_requests_due_in_the_stretch():
    answers = np.zeros(200, FIELDS)
    answers["due"] = np.arange(200)
    answers["done"] = answers["due"] + np.where(np.arange(200) < 100, 0.001, 0.5)
    assert p99_ms(answers, 0, 100) == pytest.approx(1.0)
    assert p99_ms(answers, 100, 200) == pytest.approx(500.0)
    assert math.isnan(p99_ms(answers, 300, 400))
