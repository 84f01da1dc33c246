"""Every form of a request is answered alike by the wire door and by the plain ASGI app: status, headers, body, and record."""

import asyncio
import gzip
import json
import random
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.rest.app import build
from gateway.rest.listener import RestListener
from gateway.rest.protocol import WireProtocol
from gateway.settings import Limits, Settings
from models.staged import ModelKey
from routing.records import PROTOCOLS, PredictionBlock
from tests.kit.onnx_models import classifier, columns, echo, failing, whole
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear, stage_made

Said = tuple[str, dict[str, str], bytes]
JSON = {"content-type": "application/json"}
ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class World:
    """One plane behind both doors. `cold` lists the paths that took the ordinary way on the wire door."""

    def __init__(self, folder: Path) -> None:
        self.cold: list[str] = []
        self.plane = Plane(folder)
        artifacts = self.plane.artifacts
        for name, made in (
            ("churn", columns()),
            ("fragile", failing()),
            ("text", echo("BYTES")),
            ("bits", echo("BOOL")),
            ("whole", whole()),
        ):
            self.plane.serve({"champion": stage_made(artifacts, made, ModelKey(name, "1"))}, endpoint=name)
        deep = stage_made(artifacts, echo("FP32", (-1, 2, 3)), ModelKey("deep", "1"))
        self.plane.serve({"champion": deep}, endpoint="deep", nonfinite="reject")
        rules = [{"name": "beta", "when": {"header": {"x-cohort": "beta"}}, "variant": "b"}]
        two = {name: stage_linear(artifacts, name="ruled", version=v) for name, v in (("a", "1"), ("b", "2"))}
        self.plane.serve(two, endpoint="ruled", rules=rules, unit={"parameter": "who"})
        self.plane.serve(
            {"champion": stage_made(artifacts, classifier(), ModelKey("phishing", "3"))}, endpoint="phishing"
        )
        self.plane.serve({"champion": stage_linear(artifacts)}, unit={"header": "x-user-id"})  # the default
        limits = Limits(body_bytes_json_max=500_000, body_bytes_binary_max=1_000_000)
        settings = Settings(state_dir=str(folder), workers=1, limits=limits)
        app = build(self.plane.corridor, self.plane.labels, settings)

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            self.cold.append(scope["path"])
            await app(scope, receive, send)

        protocol = WireProtocol.bind(self.plane.data, self.plane.paths, limits)
        self._listeners = []
        self.ports = []
        for served, how in ((noted, protocol), (app, None)):
            sock = socket.create_server(("127.0.0.1", 0))
            self.ports.append(sock.getsockname()[1])
            listener = RestListener(served, how, sock, settings)  # type: ignore[arg-type]  # an ASGI app is any such function
            listener.open()
            self._listeners.append(listener)

    async def ask(self, door: int, said: Said, pieces: int | None = None) -> tuple[int, dict[str, str], bytes]:
        """The answer of a door (0: wire, 1: plain ASGI), without what differs from one answer to the next."""
        path, headers, body = said
        lines = [f"POST {path} HTTP/1.1", "host: h", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        sent = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[door])
        for at in range(0, len(sent), pieces or len(sent)):
            writer.write(sent[at : at + (pieces or len(sent))])
            if pieces:
                await asyncio.sleep(0.001)
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            got = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:-2]]
            told = {name.lower(): value for name, _, value in got}
            whole = await reader.readexactly(int(told["content-length"]))
        writer.close()
        if told.get("content-encoding") == "gzip":
            whole = gzip.decompress(whole)
            told["content-length"] = "compressed"
        for name in ("date", "x-prediction-id", "connection"):
            told.pop(name, None)
        return int(head[9:12]), told, ID.sub(b"<id>", whole)

    def records(self) -> list[Any]:
        """What is recorded, without times and ids; the oldest first."""
        return [
            (
                block.endpoint,
                block.version,
                PROTOCOLS[row.protocol],
                row.status,
                row.code,
                row.rows,
                row.request_id,
                row.unit_missing,
                row.answered,
                row.assigned_by,
                row.rule,
                row.unit,
            )
            for block in self.plane.blocks()
            if isinstance(block, PredictionBlock)
            for row in block.requests
        ]

    async def close(self) -> None:
        for listener in self._listeners:
            await listener.close(1.0)
        self.plane.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


def v2(*tensors: Any, model: str = "line", headers: dict[str, str] | None = None, **fields: Any) -> Said:
    return f"/v2/models/{model}/infer", JSON | (headers or {}), orjson.dumps({"inputs": tensors, **fields})


def tensor(data: Any, *shape: int, name: str = "x", datatype: str = "FP32", **parameters: Any) -> dict[str, Any]:
    made = {"name": name, "shape": shape, "datatype": datatype}
    return made | ({"data": data} if data is not None else {}) | ({"parameters": parameters} if parameters else {})


def binary(
    array: Any, *, model: str = "line", length: str | None = None, headers: dict[str, str] | None = None, **fields: Any
) -> Said:
    """The array as a binary tensor `x`; `length` in place of the right one."""
    raw = array.tobytes() if not isinstance(array, bytes) else array
    shape = array.shape if not isinstance(array, bytes) else (1, 2)
    datatype = {"f": "FP32", "b": "BOOL"}[array.dtype.kind] if not isinstance(array, bytes) else "BYTES"
    head = orjson.dumps({"inputs": [tensor(None, *shape, datatype=datatype, binary_data_size=len(raw))], **fields})
    sent = {"inference-header-content-length": length or str(len(head)), **(headers or {})}
    return f"/v2/models/{model}/infer", sent, head + raw


def scored(document: Any, path: str = "/invocations", **headers: str) -> Said:
    return path, JSON | {name.replace("_", "-"): value for name, value in headers.items()}, orjson.dumps(document)


ROW = np.array([[1.0, 2.0]], np.float32)
ROWS = np.arange(600, dtype=np.float32).reshape(300, 2) / 300
CHURN = {"columns": ["age", "visits", "plan"], "data": [[41.5, 3, "gold"], [20, 1, "basic"]]}
HOT: dict[str, Said] = {
    "plain": v2(tensor([1.0, 2.0], 1, 2)),
    "plain with content-type of its own": v2(tensor([1.0, 2.0], 1, 2), headers={"content-type": "text/plain"}),
    "outputs without rows": v2(tensor([1.0, 2.0], 1, 2), model="whole"),
    "outputs without rows for several": v2(tensor([1.0, 2.0, 3.0, 4.0], 2, 2), model="whole"),
    "nested": v2(tensor([[1.0, 2.0]], 1, 2)),
    "wanted output": v2(tensor([1.0, 2.0], 1, 2), outputs=[{"name": "probabilities"}]),
    "outputs in the caller's order": v2(
        tensor([1.0, 2.0], 1, 2), outputs=[{"name": "probabilities"}, {"name": "label"}]
    ),
    "binary output": v2(tensor([1, 2], 1, 2), outputs=[{"name": "probabilities", "parameters": {"binary_data": True}}]),
    "classification": v2(
        tensor([1, 2], 1, 2), outputs=[{"name": "probabilities", "parameters": {"classification": 2}}]
    ),
    "id and parameters": v2(tensor([1.0, 2.0], 1, 2), id="one", parameters={"priority": 1, "timeout": 900_000}),
    "request id": v2(tensor([[1.0, 2.0]], 1, 2), headers={"x-request-id": "r-1", "x-user-id": "u-7"}),
    "request id that does not fit": v2(tensor([[1.0, 2.0]], 1, 2), headers={"x-request-id": "not an id!"}),
    "request id that does not fit, beside one that does": v2(
        tensor([1.0, 2.0], 1, 2), id="one", headers={"x-request-id": "not an id!"}
    ),
    "plain id that does not fit": v2(tensor([1.0, 2.0], 1, 2), id="not an id!"),
    "traced": v2(tensor([[1, 2]], 1, 2), headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"}),
    "FP64 for FP32 that is refused": v2(tensor([1.0, 2.0], 1, 2, datatype="FP64")),
    "strings": v2(tensor(["a", "ü", "", "d"], 2, 2, datatype="BYTES"), model="text"),
    "booleans": v2(tensor([True, False], 1, 2, datatype="BOOL"), model="bits"),
    "columns": v2(
        tensor([41.5], 1, 1, name="age", datatype="FP64"),
        tensor([3], 1, 1, name="visits", datatype="INT64"),
        tensor(["gold"], 1, 1, name="plan", datatype="BYTES"),
        model="churn",
    ),
    "three dimensions": v2(tensor(list(range(12)), 2, 2, 3), model="deep"),
    "rule by header": v2(tensor([1.0, 2.0], 1, 2), model="ruled", headers={"x-cohort": "beta"}),
    "unit by parameter": v2(tensor([1.0, 2.0], 1, 2), model="ruled", parameters={"who": "ann"}),
    "binary": binary(ROW),
    "binary with id": binary(ROW, id="one"),
    "binary for binary": binary(ROW, parameters={"binary_data_output": True}),
    "binary of many rows": binary(ROWS),
    "binary of many rows, compressed": binary(ROWS, headers={"accept-encoding": "gzip, deflate"}),
    "binary strings": binary(b"\x01\0\0\0a\x03\0\0\0bcd", model="text"),
    "binary booleans": binary(np.array([[True, False, True]]), model="bits"),
    "large binary": binary(np.ones((50_000, 2), np.float32)),
    "raw body": ("/v2/models/line/infer", {"inference-header-content-length": "0"}, ROW.tobytes()),
    "model that fails": v2(tensor([7], 1, 1, datatype="INT64"), model="fragile"),
    "mlflow inputs": scored({"inputs": [[1.0, 2.0]]}),
    "mlflow inputs by name": scored({"inputs": {"x": [[1.0, 2.0], [3.0, 4.0]]}}),
    "mlflow instances": scored({"instances": [[1.0, 2.0]]}, "/endpoints/line/invocations"),
    "mlflow split": scored({"dataframe_split": CHURN}, "/serving-endpoints/churn/invocations"),
    "mlflow records": scored(
        {"dataframe_records": [dict(zip(CHURN["columns"], row, strict=True)) for row in CHURN["data"]]},
        "/endpoints/churn/invocations",
    ),
    "mlflow list form": scored({"inputs": [[1, 2, 3, 4]]}, "/endpoints/phishing/invocations"),
    "mlflow csv": (
        "/endpoints/churn/invocations",
        {"content-type": "text/csv"},
        b"age,visits,plan\n41.5,3,gold\n20,1,basic\n",
    ),
    "mlflow without content type": ("/invocations", {}, b'{"inputs": [[1.0, 2.0]]}'),
    "mlflow with params": scored({"inputs": [[1.0, 2.0]], "params": {"k": 1}, "client_request_id": "c-1"}),
    "mlflow, compressed": scored({"inputs": ROWS.tolist()}, accept_encoding="gzip"),
    "mlflow charset": ("/invocations", {"content-type": "application/json; charset=utf-8"}, b'{"inputs": [[1, 2]]}'),
    "mlflow model that fails": scored({"inputs": [[9]]}, "/endpoints/fragile/invocations"),
    "mlflow unit": scored({"inputs": [[1.0, 2.0]]}, x_user_id="u-7", x_request_id="r-2"),
    "tf instances": scored({"instances": [[1.0, 2.0], [3, 4]]}, "/v1/models/line:predict"),
    "tf inputs": scored({"inputs": {"x": [[1.0, 2.0]]}}, "/v1/models/line:predict"),
    "tf objects": scored({"instances": [{"x": [1.0, 2.0]}]}, "/v1/models/line:predict"),
    "tf b64": scored({"instances": [[{"b64": "YQ=="}], [{"b64": "Yg=="}]]}, "/v1/models/text:predict"),
}
NAN = float("nan")
COLD: dict[str, Said] = {
    "garbage": ("/v2/models/line/infer", JSON, b"garbage"),
    "bare NaN": (
        "/v2/models/line/infer",
        JSON,
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[NaN,1]}]}',
    ),
    "a name that is no text": (
        "/v2/models/line/infer",
        JSON,
        b'{"inputs":[{"name":"\xff","shape":[1,2],"datatype":"FP32","data":[1,1]}]}',
    ),
    "wrong shape": v2(tensor([1.0, 2.0, 3.0], 1, 3)),
    "unknown output": v2(tensor([1.0, 2.0], 1, 2), outputs=[{"name": "nope"}]),
    "bad timeout": v2(tensor([1.0, 2.0], 1, 2), parameters={"timeout": -1}),
    "unknown model": v2(tensor([1.0, 2.0], 1, 2), model="nope"),
    "explained": v2(tensor([1.0, 2.0], 1, 2), headers={"x-runoff-explain": "1"}),
    "pin that is not allowed": v2(tensor([1.0, 2.0], 1, 2), headers={"x-runoff-variant": "champion"}),
    "NaN where that is rejected": binary(np.full((1, 2, 3), NAN, np.float32), model="deep"),
    "JSON length beyond the body": binary(ROW, length="9999"),
    "JSON length that is no number": binary(ROW, length="+3"),
    "bytes left over": ("/v2/models/line/infer", {"inference-header-content-length": "0"}, ROW.tobytes() + b"x"),
    "broken JSON before a tensor": binary(ROW, length="5"),
    "mlflow without a form": scored({"nope": 1}),
    "mlflow of two forms": scored({"inputs": [[1, 2]], "instances": [[1, 2]]}),
    "mlflow media type": ("/invocations", {"content-type": "application/xml"}, b"<x/>"),
    "mlflow endpoint by header": scored({"dataframe_split": CHURN}, x_runoff_endpoint="churn"),
    "mlflow wrong column": scored(
        {"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "/endpoints/churn/invocations"
    ),
    "mlflow without rows": scored({"dataframe_split": CHURN | {"data": []}}, "/endpoints/churn/invocations"),
    "mlflow body over the bound": ("/invocations", JSON, b" " * 600_000),
    "mlflow compressed body": ("/invocations", {"content-encoding": "gzip"}, gzip.compress(b'{"inputs": [[1, 2]]}')),
    "mlflow large": scored({"inputs": [[1.0, 2.0]] * 30_000}),
    "tf of both": scored({"instances": [[1, 2]], "inputs": [[1, 2]]}, "/v1/models/line:predict"),
    "tf by label": scored({"instances": [[1.0, 2.0]]}, "/v1/models/line/labels/nope:predict"),
    "tf unknown signature": scored({"signature_name": "x", "instances": [[1, 2]]}, "/v1/models/line:predict"),
}
FP64_IS_REFUSED = "FP64 for FP32 that is refused"
COLD[FP64_IS_REFUSED] = HOT.pop(FP64_IS_REFUSED)


async def both(world: World, said: Said, pieces: int | None = None) -> tuple[int, dict[str, str], bytes]:
    """Asks both doors; their answers and records must be the same. The answer."""
    before = len(world.records())
    wire = await world.ask(0, said, pieces)
    half = world.records()[before:]
    plain = await world.ask(1, said)
    assert wire == plain
    assert world.records()[before:] == half + half
    return wire


@pytest.mark.parametrize("case", HOT)
async def test_a_form_is_read_by_the_wire_door_and_answered_as_the_app_does(world: World, case: str) -> None:
    status, _, _ = await both(world, HOT[case])
    assert status == (400 if "fails" in case else 200)
    assert world.cold == []
    await both(world, HOT[case], pieces=max(40, len(HOT[case][2]) // 4))
    assert world.cold == []


async def test_outputs_without_rows_are_answered_whole(world: World) -> None:
    _, _, body = await both(world, HOT["outputs without rows for several"])
    outputs = {one["name"]: (one["shape"], one["data"]) for one in orjson.loads(body)["outputs"]}
    assert outputs == {"total": ([], [10.0]), "four": ([4], [10.0] * 4)}


@pytest.mark.parametrize("case", COLD)
async def test_what_is_refused_or_too_large_is_left_to_the_app(world: World, case: str) -> None:
    status, _, _ = await both(world, COLD[case])
    assert (status == 200) == (
        case in ("explained", "mlflow endpoint by header", "mlflow compressed body", "mlflow large")
    )
    assert world.cold == [COLD[case][0]]


async def test_a_body_over_the_bound_is_refused_before_it_is_read(world: World) -> None:
    for headers in ({}, {"inference-header-content-length": "10"}):
        status, _, body = await world.ask(0, ("/v2/models/line/infer", headers, b"x" * 1_000_001))
        assert (status, orjson.loads(body)["code"]) == (413, "body_too_large")
    assert world.cold == []


async def test_broken_requests_of_any_form_are_answered_alike(world: World) -> None:
    """600 bodies and heads with something changed."""
    chance = random.Random(20261123)
    said = [one for name, one in (HOT | COLD).items() if len(one[2]) < 5_000]
    odd = [b"[", b"]", b"{", b"}", b'"', b",", b"0", b"-", b"1e999", b"null", b"\xff", b"\0", b"true", b"[[1,2]]"]
    for _ in range(600):
        path, headers, body = chance.choice(said)
        at = chance.randrange(len(body) + 1)
        match chance.randrange(4):
            case 0:
                body = body[:at] + chance.choice(odd) + body[at:]
            case 1:
                body = body[:at] + body[at + chance.randrange(1, 9) :]
            case 2:
                path = chance.choice(said)[0]
            case _:
                headers = chance.choice(said)[1]
        if "content-encoding" in headers:
            continue
        wire, plain = await world.ask(0, (path, headers, body)), await world.ask(1, (path, headers, body))
        assert wire == plain, (path, headers, body)


def test_the_cases_are_json_where_they_say_so() -> None:
    """A case that is broken by mistake would test nothing."""
    for _, headers, body in HOT.values():
        if headers.get("content-type", "").startswith("application/json"):
            json.loads(body)
