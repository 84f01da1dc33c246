"""A real gateway as a user runs it: `runoff serve` in a process of its own, ports from zero, reached over its listeners only."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import grpc
import httpx
import numpy as np
import yaml
from deltalake import DeltaTable
from prometheus_client.parser import text_string_to_metric_families

from gateway.rpc import open_inference_pb2 as pb
from runoff import Runoff
from tests.kit.plain import PLAIN

ROOT = Path(__file__).parents[2]
CLI = (sys.executable, "-P", "-m", "gateway.cli")
"""-P, as the installed command: the folder where somebody works is no place to import from."""
_LISTENERS = 4
_FOREIGN = ("RUNOFF_", "MLFLOW_", "OTEL_")
"""Variables of the developer's own shell that must not reach a gateway under test."""


class Gateway:
    """Runs on `folder`/var until `stop`; `start` again is what an operator does after it. `settings` as in runoff.toml."""

    def __init__(self, folder: Path, *, workers: int = 1, environ: Mapping[str, str] | None = None, **settings: Any):
        self.folder = folder
        self._environ = environ or {}
        self.state = folder / "var"
        self.events: list[dict[str, Any]] = []
        self._settings = {"workers": workers, "state_dir": str(self.state), **settings}
        self._settings |= dict.fromkeys(("rest_port", "grpc_port", "metrics_port", "admin_port"), 0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---------------------------------------------------------------- its life

    def start(self, *, ready: bool = True) -> Self:
        """Starts it; with `ready` waits until it is, and until control answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "runoff.toml"
        config.write_text("\n".join(_toml(self._settings)))
        self.process = subprocess.Popen(
            [*CLI, "serve", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environment(self._environ),
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        said = dict(self.process.stdout.readline().split() or ("", "") for _ in range(_LISTENERS))
        if "REST" not in said:
            self.process.wait(30)
            return self
        self.rest, self.rpc, self.metrics_url, self.admin = (
            said[name] for name in ("REST", "gRPC", "metrics", "admin")
        )
        self.http = httpx.Client(base_url=self.rest, timeout=30, verify=PLAIN)
        self.client = Runoff(self.admin, data_url=self.rest, timeout_s=100)
        if ready:
            try:
                eventually(lambda: self.is_ready and self.is_managed, 60)
            except AssertionError:
                self.stop(signal.SIGKILL)
                raise AssertionError(f"the gateway did not get ready: {self.events[-20:]}") from None
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; answers its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self._reading.join(30)
        self.process.stdout.close()
        self.process.stderr.close()
        if hasattr(self, "http"):
            self.http.close()
            self.client.close()
        return status

    def _read(self) -> None:
        for line in self.process.stderr:
            self.events.append(
                json.loads(line) if line.startswith("{") else {"event": "text", "message": line.rstrip()}
            )

    @property
    def is_ready(self) -> bool:
        try:
            return (
                httpx.get(self.metrics_url.replace("/metrics", "/readyz"), timeout=30, verify=PLAIN).status_code == 200
            )
        except httpx.TransportError:
            return False

    @property
    def is_managed(self) -> bool:
        """Whether the admin listener answers, if only that it wants a key."""
        try:
            return httpx.get(f"{self.admin}/admin/v1/runtime", timeout=10, verify=PLAIN).status_code in (200, 401)
        except httpx.TransportError:
            return False

    def pid(self, process: str) -> int:
        """The process (`worker-0`, `shadow`, `control`) that was started last under this name."""
        return next(line["pid"] for line in reversed(self.happened("process_started")) if line["child"] == process)

    def kill(self, process: str, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.pid(process)
        os.kill(pid, number)
        return pid

    def happened(self, event: str) -> list[dict[str, Any]]:
        """The logged events of this name, oldest first."""
        return [line for line in list(self.events) if line.get("event") == event]

    # ---------------------------------------------------------------- what users do

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the command line, against this gateway."""
        return run(*arguments, environ={"RUNOFF_URL": self.admin})

    def apply(self, document: Mapping[str, Any], reason: str = "test") -> Any:
        """Makes `document` the route and waits until it is live. Raises RequestRefused."""
        return self.client.apply(document, reason=reason)

    def admin_put(self, document: Mapping[str, Any], base: int | None, reason: str = "test") -> httpx.Response:
        """A PUT that does not wait for its end."""
        condition = {"If-None-Match": "*"} if base is None else {"If-Match": f'"{base}"'}
        path = f"{self.admin}/admin/v1/routes/{document['endpoint']}"
        return httpx.put(path, json=document, params={"reason": reason}, headers=condition, timeout=30, verify=PLAIN)

    def ended(self, revision: int) -> dict[str, Any]:
        """What became of a revision, once nothing more will."""
        path = f"{self.admin}/admin/v1/revisions/{revision}"
        eventually(
            lambda: httpx.get(path, timeout=30, verify=PLAIN).json()["state"] in {"live", "failed", "superseded"}, 60
        )
        return dict(httpx.get(path, timeout=30, verify=PLAIN).json())

    def infer(
        self, endpoint: str, rows: object, *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """One Open Inference request for a model with the one input `x` FP32."""
        return self.http.post(
            f"/v2/models/{endpoint}/infer", json=infer_body(rows, **body), headers=dict(headers or {})
        )

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.rpc)

    # ---------------------------------------------------------------- what can be seen

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that carry these labels."""
        text = httpx.get(self.metrics_url, timeout=30, verify=PLAIN).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    def lake(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Asks the stored tables, as any reader of the lake would: Delta tables in DuckDB, without the gateway."""
        return ask_lake(self.state / "lake", sql, *values)

    def stored(self, table: str, rows: int, within_s: float = 30.0, where: str = "true") -> None:
        """Waits until the table has at least so many rows."""
        eventually(lambda: self.lake(f"SELECT count(*) FROM {table} WHERE {where}")[0][0] >= rows, within_s, 0.2)


class RestCaller:
    """Asks over REST, on one kept connection a caller, with a unit of its own for each request."""

    def __init__(self, gateway: Gateway, endpoint: str) -> None:
        self._rest, self._path = gateway.rest, f"/v2/models/{endpoint}/infer"
        self._clients: dict[int, httpx.Client] = {}

    def __call__(self, caller: int, number: int) -> Mapping[str, Any]:
        if caller not in self._clients:
            self._clients[caller] = httpx.Client(base_url=self._rest, timeout=20, verify=PLAIN)
        headers = {"x-runoff-unit": f"unit-{caller}-{number}"}
        reply = self._clients[caller].post(self._path, json=infer_body(row(caller, number)), headers=headers)
        if reply.status_code != 200:
            return {"status": reply.status_code, "error": reply.text}
        version = reply.headers["x-runoff-model"].rpartition("/")[2]
        return {"status": 200, "version": version, **reply.json()["parameters"]}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


class RpcCaller:
    """Asks over gRPC, on one channel a caller."""

    def __init__(self, gateway: Gateway, endpoint: str) -> None:
        self._address, self._endpoint = gateway.rpc, endpoint
        self._channels: dict[int, grpc.Channel] = {}

    def __call__(self, caller: int, number: int) -> Mapping[str, Any]:
        if caller not in self._channels:
            self._channels[caller] = grpc.insecure_channel(self._address)
        call = infer_call(self._channels[caller])
        reply = call(rpc_request(self._endpoint, row(caller, number)), timeout=20)
        return {name: value.string_param or value.int64_param for name, value in reply.parameters.items()}

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


class Served:
    """Callers in threads that ask without pause and keep a log, by prediction id, of what they were told."""

    def __init__(self, ask: RestCaller | RpcCaller, callers: int = 2) -> None:
        """What `ask` raises is logged as an `error`."""
        self._ask = ask
        self._stopping = threading.Event()
        self._logs: list[list[dict[str, Any]]] = [[] for _ in range(callers)]
        self._threads = [threading.Thread(target=self._call, args=(caller,)) for caller in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
        self._ask.close()

    @property
    def log(self) -> list[dict[str, Any]]:
        return [entry for log in self._logs for entry in list(log)]

    @property
    def answered(self) -> list[dict[str, Any]]:
        return [entry for entry in self.log if "prediction_id" in entry]

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [entry for entry in self.log if "prediction_id" not in entry]

    def wait_for(self, answers: int, within_s: float = 30.0) -> None:
        """Until so many more requests were answered."""
        wanted = len(self.answered) + answers
        eventually(lambda: len(self.answered) >= wanted, within_s, 0.01)

    def _call(self, caller: int) -> None:
        number = 0
        while not self._stopping.is_set():
            sent_at = time.monotonic()
            try:
                found = dict(self._ask(caller, number))
            except Exception as error:  # noqa: BLE001  # the log is the point: what went wrong is judged by the test
                found = {"error": repr(error)}
                time.sleep(0.01)
            self._logs[caller].append({"number": number, "sent_at": sent_at, "done_at": time.monotonic(), **found})
            number += 1


def row(caller: int, number: int, columns: int = 4) -> list[list[float]]:
    """One row that is a function of who asks and when, in thousandths, around 0."""
    return [[((caller * 7919 + number * 104729 + place * 1299709) % 4001 - 2000) / 1000 for place in range(columns)]]


def infer_body(rows: object, **more: Any) -> dict[str, Any]:
    """The JSON form of a request for an input `x` FP32."""
    array = np.asarray(rows, dtype=np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
    return {"inputs": [tensor], **more}


def rpc_request(endpoint: str, rows: object, **fields: Any) -> pb.ModelInferRequest:
    """The gRPC form of the same, with raw contents."""
    array = np.asarray(rows, dtype="<f4")
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=array.shape)
    return pb.ModelInferRequest(model_name=endpoint, inputs=[tensor], raw_input_contents=[array.tobytes()], **fields)


def infer_call(channel: grpc.Channel) -> Any:
    """ModelInfer of a channel, without generated stubs: the path and the two messages are all there is to one."""
    return channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )


def route(
    endpoint: str, *variants: tuple[str, str, float], mirrors: Mapping[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """A route document with (name, model, weight) variants and name → model mirrors."""
    return {
        "endpoint": endpoint,
        "variants": [{"name": name, "model": model, "weight": weight} for name, model, weight in variants],
        "mirrors": [{"name": name, "model": model} for name, model in (mirrors or {}).items()],
        **more,
    }


def write_yaml(path: Path, document: Mapping[str, Any]) -> str:
    path.write_text(yaml.safe_dump(dict(document)))
    return str(path)


def run(
    *arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`runoff` with these arguments."""
    return subprocess.run(
        [*CLI, *arguments], capture_output=True, text=True, timeout=100, check=False, env=environment(environ), cwd=cwd
    )


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    more = dict(more or {})
    path = os.pathsep.join(filter(None, [more.pop("PYTHONPATH", ""), str(ROOT)]))
    return {**own, "PYTHONPATH": path, "COLUMNS": "200", **more}


def ask_lake(lake: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for table in sorted(folder.parent for folder in lake.glob("*/_delta_log")):
            if table.name in sql:
                connection.register(table.name, DeltaTable(str(table)).to_pyarrow_dataset())
        return connection.execute(sql, list(values)).fetchall()


def eventually(claim: Callable[[], object], within_s: float = 30.0, every_s: float = 0.02) -> None:
    """Waits until the claim holds."""
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "did not become true in time"
        time.sleep(every_s)


def _toml(settings: Mapping[str, Any]) -> Iterator[str]:
    """Plain keys first, tables after them, as TOML wants."""
    for name, value in settings.items():
        if not isinstance(value, Mapping):
            yield f"{name} = {_value(value)}"
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield f"[{name}]"
            yield from (f"{key} = {_value(one)}" for key, one in value.items())


def _value(value: object) -> str:
    return json.dumps(list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value)
