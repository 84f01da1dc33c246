"""A data plane (`tests.kit.plane`) whose one endpoint has features, and a features process over a small store (`tests.kit.features`)."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateway.corridor import PlaneCorridor
from gateway.live import LiveTable, ServedEndpoint, table_of
from gateway.request import InferReply, InferRequest
from gateway.state.compiled import CompiledFeatures, CompiledModel, CompiledRoute, FeatureAttribute, FeatureInput
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey, StagedModel
from models.tensors import Array
from routing.records import Block
from routing.split import compile_split
from routing.traffic import to_document
from routing.validate import validate
from tests.kit.features import FeatureWorld
from tests.kit.plane import Plane
from tests.kit.staged import write

KEY = TensorSpec(name="customer_id", datatype="INT64", shape=(-1, 1), optional=True)


def _column(name: str, datatype: str) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, 1))


class FeaturePlane:
    """`serve` makes the route `credit` live: amount + income of each row, `segment` read by nobody."""

    signature = Signature(
        inputs=(_column("amount", "FP32"), _column("income", "FP64"), _column("segment", "BYTES")),
        outputs=(_column("score", "FP64"),),
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = FeatureWorld(folder / "socket")
        self.store = self.world.store

    async def __aenter__(self) -> Self:
        self.plane = Plane(self.folder / "plane")
        await self.world.__aenter__()
        self.plane.corridor = PlaneCorridor(self.plane.data, asyncio.get_running_loop(), self.world.client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.world.__aexit__()
        self.plane.close()

    def serve(self, **document: Any) -> ServedEndpoint:
        features = {name: document.pop(name) for name in ("timeout_ms", "max_age_s", "defaults") if name in document}
        compiled = CompiledFeatures(
            service="credit",
            keys=(KEY,),
            inputs=(FeatureInput("income", "stats__income"), FeatureInput("segment", "stats__segment")),
            attributes=tuple(
                FeatureAttribute(name, "stats__segment", "BYTES") for name in document.pop("attributes", ())
            ),
        )
        return self._serve(_sum(self.plane.artifacts, self.signature), compiled, features, document)

    def serve_vectors(self, **features: Any) -> ServedEndpoint:
        """`x` FP64 [-1, 2] out of vectors: their sum."""
        signature = Signature(
            inputs=(TensorSpec(name="x", datatype="FP64", shape=(-1, 2)),),
            outputs=(TensorSpec(name="score", datatype="FP64", shape=(-1, 1)),),
        )
        compiled = CompiledFeatures(
            service="credit", keys=(KEY,), inputs=(FeatureInput("x", "stats__x", is_list=True),)
        )
        read = self.store.read

        def vectors(service: str, keys: dict[str, list[Any]]) -> Any:
            found = read(service, keys)["stats__income"]
            known = {2: [1.0, 2.0], 4: [1.0, 2.0, 3.0]}
            return {"stats__x": type(found)([known.get(one) for one in keys["customer_id"]], found.times_unix_s)}

        self.store.read = vectors  # type: ignore[method-assign]
        return self._serve(_vectors(self.plane.artifacts, signature), compiled, features, {})

    def request(self, inputs: Mapping[str, Array], **fields: Any) -> InferRequest:
        return self.plane.request(inputs, endpoint="credit", **fields)

    async def infer(self, inputs: Mapping[str, Array], **fields: Any) -> InferReply:
        return await self.plane.corridor.infer(self.request(inputs, **fields))

    def blocks(self) -> list[Block]:
        return list(self.plane.blocks())

    def counted(self, name: str, **labels: str) -> float:
        return self.plane.totals().value(name, **labels)

    def _serve(
        self, staged: StagedModel, features: CompiledFeatures, asked: Mapping[str, Any], document: Mapping[str, Any]
    ) -> ServedEndpoint:
        route = validate(
            {
                "endpoint": "credit",
                "variants": [{"name": "champion", "model": staged.uri, "weight": 1}],
                "features": {"service": "credit", "timeout_ms": 500, **asked},
                **document,
            }
        )
        self.plane.catalog.load(staged.digest)
        split = compile_split(route.salt, route.weights)
        compiled = CompiledRoute(
            endpoint="credit",
            revision=1,
            document=to_document(route),
            models={"champion": CompiledModel(key=staged.key, digest=staged.digest, uri=staged.uri)},
            split=split.arms,
            split_sha256=split.sha256,
            signature=staged.signature,
            features=features,
        )
        served = ServedEndpoint(compiled, self.plane.catalog, table_of(compiled))
        self.plane.data.table = LiveTable({"credit": served}, "credit")
        self.plane.paths.rebuild(self.plane.data.table)
        return served


def _sum(artifacts: Path, signature: Signature) -> StagedModel:
    nodes = [
        helper.make_node("Cast", ["amount"], ["amount_"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["income", "amount_"], ["score"]),
    ]
    return _staged(artifacts, signature, nodes, [])


def _vectors(artifacts: Path, signature: Signature) -> StagedModel:
    ones = numpy_helper.from_array(np.ones((2, 1)), "ones")
    return _staged(artifacts, signature, [helper.make_node("MatMul", ["x", "ones"], ["score"])], [ones])


def _staged(
    artifacts: Path, signature: Signature, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]
) -> StagedModel:
    kinds = {"FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING}

    def infos(specs: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(spec.name, kinds[spec.datatype], [None, *spec.shape[1:]]) for spec in specs
        ]

    graph = helper.make_graph(nodes, "credit", infos(signature.inputs), infos(signature.outputs), weights)
    answer = Answer(kind="regression", score_output="score", scoring_outputs=("score",), scoring_form="list")
    return write(artifacts, graph, signature, answer, ModelKey("credit", "1"))
