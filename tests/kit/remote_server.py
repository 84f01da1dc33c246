"""Other people's model servers: small real HTTP servers on port 0 that answer V2 inference well, slowly, wrongly or not at all."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

Behave = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """`calls` keeps the headers and body of each inference call; `behave` answers them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, behave: Behave, extensions: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave = behave
        self.extensions = extensions
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests do."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"name": "fake", "extensions": self.server.extensions}).encode())

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append(({name.lower(): value for name, value in self.headers.items()}, self.body))
        self.server.behave(self)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving(behave: Behave, *, extensions: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server that lives as long as the block."""
    server = Server(behave, list(extensions))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def linear(slope: float) -> Behave:
    """Answers as `tests.kit.staged.stage_linear` with this slope would, in JSON."""

    def behave(handler: Handler) -> None:
        (entry,) = json.loads(handler.body)["inputs"]
        x = np.array(entry["data"], np.float32).reshape(entry["shape"])
        p = 1 / (1 + np.exp(-(x * slope).sum(axis=1)))
        outputs = [
            {"name": "label", "datatype": "INT64", "shape": [len(x)], "data": (p > 0.5).astype(int).tolist()},
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [len(x), 2],
                "data": np.stack([1 - p, p], 1).ravel().tolist(),
            },
        ]
        handler.reply(200, json.dumps({"model_name": "m", "model_version": "9", "outputs": outputs}).encode())

    return behave


def slow(behave: Behave, seconds: float) -> Behave:
    """Answers after a while."""

    def later(handler: Handler) -> None:
        time.sleep(seconds)
        behave(handler)

    return later


def failing(status: int, **headers: str) -> Behave:
    """Answers every call with this status."""
    return lambda handler: handler.reply(status, b'{"error": "no"}', **headers)


def saying(body: bytes, **headers: str) -> Behave:
    """Answers every call with these bytes and status 200."""
    return lambda handler: handler.reply(200, body, **headers)


def hanging(handler: Handler) -> None:
    """Never answers while the test lasts."""
    handler.server.released.wait()
