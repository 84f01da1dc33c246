"""A Feast repository as an operator has one: customers' features and shops', an online store in SQLite, one service over both."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import DeltaFormat
from feast.data_source import PushMode
from feast.types import Array, Float32, Float64, Int64, String
from onnx import TensorProto, helper, numpy_helper

STORE = """\
project: shop
provider: local
registry: data/registry.db
offline_store: {type: gateway.streams.feast_store.DeltaOfflineStore}
online_store: {type: sqlite, path: data/online.db}
entity_key_serialization_version: 3
"""


class FeatureRepo:
    """The service `credit`: `income` FP64, `orders` INT64, `segment` text by `customer_id` (INT64); `rating` FP32 by `shop_id` (text).

    Others: `grouped` with `group` (text) beside all these, `vectors` with `embedding`, `offline` of a view that is not online, `clash` with `rating` of two views, `renamed` by `buyer_id`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        (folder / "feature_store.yaml").write_text(STORE)
        self.store = FeatureStore(str(folder))
        customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)
        shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
        customers, customers_push = self._source("customers")
        shops, shops_push = self._source("shops")
        stats = FeatureView(
            name="customer_stats",
            entities=[customer],
            ttl=timedelta(days=1),
            schema=[
                Field(name="income", dtype=Float64),
                Field(name="orders", dtype=Int64),
                Field(name="segment", dtype=String),
                Field(name="embedding", dtype=Array(Float32)),
                Field(name="group", dtype=String),
            ],
            source=customers_push,
        )
        shop_stats = FeatureView(
            name="shop_stats", entities=[shop], schema=[Field(name="rating", dtype=Float32)], source=shops_push
        )
        other = FeatureView(
            name="shop_other", entities=[shop], schema=[Field(name="rating", dtype=Float32)], source=shops
        )
        offline = FeatureView(
            name="shop_offline",
            entities=[shop],
            schema=[Field(name="rating", dtype=Float32)],
            source=shops,
            online=False,
        )
        wide = stats[["income", "orders", "segment"]]
        buyer = stats[["income"]].with_name("buyer").with_join_key_map({"customer_id": "buyer_id"})
        self.store.apply(
            [
                customer,
                shop,
                customers,
                shops,
                customers_push,
                shops_push,
                stats,
                shop_stats,
                other,
                offline,
                FeatureService(name="credit", features=[wide, shop_stats]),
                FeatureService(name="grouped", features=[stats[["income", "orders", "segment", "group"]], shop_stats]),
                FeatureService(name="vectors", features=[stats[["embedding"]]]),
                FeatureService(name="offline", features=[offline]),
                FeatureService(name="clash", features=[shop_stats, other]),
                FeatureService(name="renamed", features=[buyer]),
            ]
        )

    def _source(self, name: str) -> tuple[FileSource, PushSource]:
        path = str(self.folder / "data" / name)
        batch = FileSource(name=name, path=path, file_format=DeltaFormat(), timestamp_field="at")
        return batch, PushSource(name=f"{name}_push", batch_source=batch)

    def push_customer(self, customer_id: int, *, age_s: float = 0.0, **values: Any) -> None:
        """Values as of some seconds ago."""
        whole: Mapping[str, Any] = {
            "income": 1.0,
            "orders": 1,
            "segment": "new",
            "embedding": [0.0, 0.0],
            "group": "east",
            **values,
        }
        self._push("customers_push", {"customer_id": customer_id, **whole}, age_s)

    def push_shop(self, shop_id: str, *, age_s: float = 0.0, rating: float) -> None:
        self._push("shops_push", {"shop_id": shop_id, "rating": rating}, age_s)

    def _push(self, source: str, row: Mapping[str, Any], age_s: float) -> None:
        at = datetime.now(UTC) - timedelta(seconds=age_s)
        self.store.push(source, pd.DataFrame([{**row, "at": at}]), to=PushMode.ONLINE)


def credit_model(path: Path, scale: float = 1.0) -> str:
    """`amount` FP32, `income` FP64, `orders` INT64, `segment` text, `rating` FP32, each [-1, 1] → `score` FP64: their sum, scaled."""
    nodes = [
        helper.make_node("Cast", ["orders"], ["orders_"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["rating"], ["rating_"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["amount"], ["amount_"], to=TensorProto.DOUBLE),
        helper.make_node("Sum", ["income", "orders_", "rating_", "amount_"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "credit",
        [
            helper.make_tensor_value_info(name, kind, [None, 1])
            for name, kind in (
                ("amount", TensorProto.FLOAT),
                ("income", TensorProto.DOUBLE),
                ("orders", TensorProto.INT64),
                ("segment", TensorProto.STRING),
                ("rating", TensorProto.FLOAT),
            )
        ],
        [helper.make_tensor_value_info("score", TensorProto.DOUBLE, [None, 1])],
        [numpy_helper.from_array(np.array([[scale]]), "scale")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)
