"""Who is compared in `loadtests.bench`: a whole gateway or a floor, each with the load that it gets and the answer that it must give."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime

from loadtests.machine import free_port, pin, until
from loadtests.whole_gateway import ROOT, gateway
from loadtests.windows import UNITS, post_script

_REPEATED_BYTES = 10_000
"""Larger requests are kept once, without different units: the generator holds all of them in memory."""


@dataclass
class Contender:
    """A server under one load. `pids` are those whose processor time counts as the server's own, `others` what works beside them."""

    name: str
    url: str
    pids: list[int]
    others: list[int]
    script: Path
    rates: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    beside_us: list[float] = field(default_factory=list)


@contextlib.contextmanager
def ours(
    name: str,
    state: Path,
    model: Path,
    script: Path,
    route: dict[str, object],
    *,
    is_pinned: bool = True,
    **settings: str,
) -> Iterator[Contender]:
    """A whole gateway with one worker."""
    with gateway(state, {"model": model}, route, is_pinned=is_pinned, **settings) as running:
        url = f"{running.rest}/v2/models/model/infer"
        check(name, url, script)
        yield Contender(name, url, running.workers, running.others, script)


@contextlib.contextmanager
def floor(name: str, model: Path, script: Path) -> Iterator[Contender]:
    """One of `loadtests.floors`, on core 0."""
    titles = {
        "handler": "plain raw-ASGI handler",
        "transport": "transport-only protocol, POST",
        "hello": "raw-ASGI hello",
    }
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "loadtests.floors", name, str(port), str(model)], cwd=ROOT)
    try:
        pin(process.pid, 0)
        until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
        url = f"http://127.0.0.1:{port}/v2/models/model/infer"
        if name == "handler":
            check(titles[name], url, script)
        yield Contender(titles[name], url, [process.pid], [], script)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Takes traces, and forgets them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def forms_of(plain: Contender, work: Path, model: Path, row: np.ndarray) -> list[Contender]:
    """The gateway behind `plain` again, for other forms of the same row."""
    base = plain.url.removesuffix("/v2/models/model/infer")
    values = [float(str(value)) for value in row.ravel()]
    split = {"columns": [f"c{place}" for place in range(len(values))], "data": [values]}
    documents = {
        "V2, JSON, one output asked for": ("/v2/models/model/infer", None),
        "V2, binary tensor": ("/v2/models/model/infer", None),
        "MLflow, `inputs`": ("/invocations", {"inputs": [values]}),
        "MLflow, `dataframe_split`": ("/endpoints/model/invocations", {"dataframe_split": split}),
        "TensorFlow, `instances`": ("/v1/models/model:predict", {"instances": [values]}),
    }
    made = []
    for place, (name, (path, document)) in enumerate(documents.items()):
        if document is not None:
            script = _written(
                work / f"form{place}", {"content-type": "application/json"}, json.dumps(document).encode()
            )
            np.save(script.with_suffix(".npy"), np.load(plain.script.with_suffix(".npy")))
        else:
            script = asked(
                work, model, row, binary="binary" in name, wanted="probabilities" if "asked" in name else None
            )
        check(name, base + path, script)
        made.append(Contender(name, base + path, plain.pids, plain.others, script))
    return made


def asked(work: Path, model: Path, row: np.ndarray, *, binary: bool = False, wanted: str | None = None) -> Path:
    """Wrk's script for one row; beside it lie the request and what ONNX Runtime answers to it, for `check`. `wanted`: only this output."""
    session = onnxruntime.InferenceSession(str(model))
    name = session.get_inputs()[0].name
    answers = session.run(None, {name: row[None]})
    answer = next(one for one in answers if one.dtype == np.float32).ravel()
    tensor: dict[str, object] = {"name": name, "shape": [1, *row.shape], "datatype": "FP32"}
    headers = {"content-type": "application/json"}
    request: dict[str, object] = {"inputs": [tensor]} | ({"outputs": [{"name": wanted}]} if wanted else {})
    if binary:
        tensor["parameters"] = {"binary_data_size": row.nbytes}
        head = json.dumps(request).encode()
        body = head + row.tobytes()
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    else:
        tensor["data"] = [float(str(value)) for value in row.ravel()]
        body = json.dumps(request).encode()
    place = work / ("binary" if binary else f"json{wanted or ''}")
    np.save(place.with_suffix(".npy"), answer)
    return _written(place, headers, body)


def _written(place: Path, headers: dict[str, str], body: bytes) -> Path:
    place.with_suffix(".headers").write_text(json.dumps(headers))
    units = UNITS if len(body) < _REPEATED_BYTES else 1
    return post_script(place.with_suffix(".lua"), body, headers=headers, units=units)


def check(name: str, url: str, script: Path) -> None:
    """Whatever claims to run the model must answer as ONNX Runtime does."""
    headers = json.loads(script.with_suffix(".headers").read_text())
    content = script.with_suffix(".body").read_bytes()
    reply = httpx.post(url, content=content, headers={"x-user-id": "user-1", **headers})
    assert reply.status_code == 200, f"{name}: {reply.status_code} {reply.text[:200]}"
    np.testing.assert_allclose(_floats(reply.json()), np.load(script.with_suffix(".npy")), rtol=1e-5)


def _floats(reply: Mapping[str, Any]) -> np.ndarray:
    """The one floating output of a reply of any form."""
    if "outputs" in reply:
        return np.ravel(next(out["data"] for out in reply["outputs"] if out["datatype"] == "FP32"))
    found = reply["predictions"]
    return np.ravel(
        next(values for name, values in (found[0] if isinstance(found, list) else found).items() if name != "label")
    )
