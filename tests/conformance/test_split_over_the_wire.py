"""The golden vectors of the split, asked over REST and over gRPC: the same unit gets the same arm by every door, in every form."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from itertools import groupby
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
from tests.kit.plane import Plane
from tests.kit.staged import stage_linear

GOLDEN = Path(__file__).parents[1] / "routing" / "golden_split.jsonl.gz"
SALTS_TAKEN = 2
"""One salt in two: 4,000 vectors by each door. All 10,000 are held by `tests/routing/test_split.py` and in SQL."""


def vectors() -> list[list[dict[str, Any]]]:
    with gzip.open(GOLDEN, "rt", encoding="utf-8") as lines:
        groups = [list(group) for _, group in groupby(map(json.loads, lines), key=lambda vector: vector["salt"])]
    return groups[::SALTS_TAKEN]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    staged = stage_linear(made.artifacts)
    for number, group in enumerate(vectors()):
        arms = group[0]["arms"]
        made.serve(
            {arm["name"]: staged for arm in arms},
            endpoint=f"e{number}",
            salt=group[0]["salt"],
            unit={"parameter": "unit"},
            variants=[{"name": arm["name"], "model": staged.uri, "weight": arm["weight"]} for arm in arms],
        )
    yield made
    made.close()


def unit_of(vector: dict[str, Any]) -> str | int | float | bool | None:
    """The unit as a V2 parameter; None for what a caller cannot send (bytes, integers above 64 bit, prediction ids)."""
    unit = vector["unit"]
    if vector["form"] in ("bytes", "prediction_id") or (isinstance(unit, int) and not -(2**63) <= unit < 2**63):
        return None
    return unit


async def test_rest_deals_every_vector_to_its_arm(plane: Plane, tmp_path: Path) -> None:
    app = build(plane.corridor, plane.labels, Settings(state_dir=str(tmp_path)))
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    wrong, asked = [], 0
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://runoff") as client:
        for number, group in enumerate(vectors()):
            for vector in group:
                unit = unit_of(vector)
                if unit is None:
                    continue
                body = {"parameters": {"unit": unit}, "inputs": [tensor]}
                reply = await client.post(f"/v2/models/e{number}/infer", json=body)
                asked += 1
                if reply.headers["x-runoff-variant"] != vector["arm"]:
                    wrong.append((vector, reply.headers["x-runoff-variant"]))
    assert asked == 4_000
    assert not wrong


async def test_grpc_deals_every_vector_to_its_arm(plane: Plane, tmp_path: Path) -> None:
    server = await serve(plane.corridor, "127.0.0.1:0", Settings(state_dir=str(tmp_path)))
    raw = np.array([[1, 2]], np.float32).tobytes()
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
    wrong, asked = [], 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        for number, group in enumerate(vectors()):
            asked_of = [vector for vector in group if unit_of(vector) is not None]
            replies = await asyncio.gather(
                *(
                    infer(
                        pb.ModelInferRequest(
                            model_name=f"e{number}",
                            inputs=[tensor],
                            raw_input_contents=[raw],
                            parameters={"unit": parameter(unit_of(vector))},
                        )
                    )
                    for vector in asked_of
                )
            )
            asked += len(replies)
            for vector, reply in zip(asked_of, replies, strict=True):
                if reply.parameters["variant"].string_param != vector["arm"]:
                    wrong.append((vector, reply.parameters["variant"].string_param))
    await server.stop(0)
    assert asked == 4_000
    assert not wrong


def parameter(unit: str | float | bool | None) -> pb.InferParameter:
    match unit:
        case bool():
            return pb.InferParameter(bool_param=unit)
        case int():
            return pb.InferParameter(int64_param=unit)
        case float():
            return pb.InferParameter(double_param=unit)
        case _:
            return pb.InferParameter(string_param=unit)
