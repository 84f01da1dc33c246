"""Rules on headers, parameters and input columns, asked over REST (binary and JSON), MLflow and gRPC: one answer for one request."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from gateway.rest.app import build
from gateway.rpc import open_inference_pb2 as pb
from gateway.rpc.server import serve
from gateway.settings import Settings
from models.staged import ModelKey, StagedModel
from tests.kit.onnx_models import columns
from tests.kit.plane import Plane

RULES = [
    {"name": "cohort", "when": {"header": {"x-cohort": ["beta", "gamma"]}}, "variant": "b"},
    {"name": "agents", "when": {"header": {"x-agent": {"prefix": "robot/"}}}, "variant": "c"},
    {"name": "scored", "when": {"parameter": {"score": {"min": 0.5}}}, "variant": "c"},
    {"name": "old", "when": {"input": {"age": {"min": 64.5}}}, "variant": "b"},
    {"name": "plans", "when": {"input": {"plan": ["gold", "café"], "visits": {"min": 2, "max": 9}}}, "variant": "c"},
    {"name": "trial", "when": {"input": {"plan": {"prefix": "trial-"}}}, "variant": "b"},
]
"""First match wins; what nothing matches is the champion's, `a`."""

PERSON = {"age": [30.5], "visits": [5], "plan": ["basic"]}
CASES: list[tuple[dict[str, Any], dict[str, str], dict[str, Any], str]] = [
    ({}, {}, {}, "a"),
    ({}, {"x-cohort": "gamma"}, {}, "b"),
    ({}, {"x-cohort": "alpha"}, {}, "a"),
    ({}, {"x-agent": "robot/2"}, {}, "c"),
    ({}, {"x-cohort": "beta", "x-agent": "robot/2"}, {}, "b"),
    ({}, {}, {"score": 0.5}, "c"),
    ({}, {}, {"score": 0.25}, "a"),
    ({"age": [64.5]}, {}, {}, "b"),
    ({"age": [64.4]}, {}, {}, "a"),
    ({"plan": ["café"]}, {}, {}, "c"),
    ({"plan": ["gold"], "visits": [10]}, {}, {}, "a"),
    ({"plan": ["trial-7"]}, {}, {}, "b"),
    ({"age": [70.0], "plan": ["gold"]}, {}, {}, "b"),
    ({"age": [70.0, 71.0], "visits": [1, 1], "plan": ["x", "y"]}, {}, {}, "b"),
    ({"age": [70.0, 20.0], "visits": [1, 1], "plan": ["x", "y"]}, {}, {}, "a"),
]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    model = columns()
    digest = hashlib.sha256(model.model).hexdigest()
    folder = made.artifacts / digest
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.model)
    staged = StagedModel(
        key=ModelKey("churn", "1"),
        digest=digest,
        uri="models:/churn/1",
        flavor="onnx",
        file="model.onnx",
        file_sha256=digest,
        size_bytes=len(model.model),
        signature=model.signature,
        answer=model.answer,
    )
    staged.write(folder)
    served = made.serve(dict.fromkeys("abc", staged), endpoint="churn", rules=RULES)
    assert all(plain is None for _, plain, _ in made.paths.targets.values())  # rules on columns need the inputs by name
    assert not served.table.is_plain
    yield made
    made.close()


def inputs(case: dict[str, Any]) -> dict[str, np.ndarray]:
    person = PERSON | case
    kinds = {"age": np.float64, "visits": np.int64, "plan": object}
    return {name: np.array(person[name], kinds[name]).reshape(-1, 1) for name in person}


@pytest.mark.parametrize("binary", [False, True])
async def test_rest_and_mlflow_send_every_request_to_the_first_rule_that_holds(
    plane: Plane, tmp_path: Path, binary: bool
) -> None:
    app = build(plane.corridor, plane.labels, Settings(state_dir=str(tmp_path)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://runoff") as client:
        for case, headers, parameters, wanted in CASES:
            body, length = rest_body(inputs(case), parameters, binary=binary)
            more = {"inference-header-content-length": str(length)} if binary else {}
            reply = await client.post("/v2/models/churn/infer", content=body, headers=headers | more)
            assert reply.status_code == 200, reply.text
            assert reply.headers["x-runoff-variant"] == wanted, (case, headers, parameters)
            if parameters:  # MLflow's form has none
                continue
            frame = {name: array.ravel().tolist() for name, array in inputs(case).items()}
            rows = [dict(zip(frame, values, strict=True)) for values in zip(*frame.values(), strict=True)]
            scored = await client.post("/invocations", json={"dataframe_records": rows}, headers=headers)
            assert scored.status_code == 200, scored.text
            assert scored.headers["x-runoff-variant"] == wanted, (case, headers)


async def test_grpc_sends_every_request_to_the_first_rule_that_holds(plane: Plane, tmp_path: Path) -> None:
    server = await serve(plane.corridor, "127.0.0.1:0", Settings(state_dir=str(tmp_path)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        for case, headers, parameters, wanted in CASES:
            reply = await infer(rpc_body(inputs(case), parameters), metadata=list(headers.items()))
            assert reply.parameters["variant"].string_param == wanted, (case, headers, parameters)
    await server.stop(0)


def raw(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    texts = [text.encode() for text in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


KINDS = {"age": "FP64", "visits": "INT64", "plan": "BYTES"}


def rest_body(arrays: dict[str, np.ndarray], parameters: dict[str, Any], *, binary: bool) -> tuple[bytes, int]:
    tensors, tail = [], b""
    for name, array in arrays.items():
        tensor: dict[str, Any] = {"name": name, "datatype": KINDS[name], "shape": list(array.shape)}
        if binary:
            tensor["parameters"] = {"binary_data_size": len(raw(array))}
            tail += raw(array)
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    head = json.dumps({"inputs": tensors, "parameters": parameters}).encode()
    return head + tail, len(head)


def rpc_body(arrays: dict[str, np.ndarray], parameters: dict[str, Any]) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="churn", raw_input_contents=[raw(array) for array in arrays.values()])
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype=KINDS[name], shape=array.shape)
    for name, value in parameters.items():
        request.parameters[name].double_param = value
    return request
