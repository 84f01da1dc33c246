"""Somebody's own feature repository, asked for labels."""

import datetime as dt
import runpy

import pandas as pd
import pytest

feast = pytest.importorskip("feast")

from deltalake import write_deltalake  # noqa: E402
from feast import Entity, FeatureView, FileSource  # noqa: E402

from gateway.streams.truth_tables import TruthTable, TruthUnreadable, read  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
STORE = """
project: cases
provider: local
registry: data/registry.db
offline_store:
  type: gateway.streams.feast_store.DeltaOfflineStore
online_store:
  type: sqlite
  path: data/online.db
entity_key_serialization_version: 3
"""
VIEWS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Int64

case = Entity(name="case", join_keys=["case_id"], value_type=ValueType.STRING)
source = FileSource(name="outcomes", path={path!r}, file_format=DeltaFormat(), timestamp_field="closed_at")
view = FeatureView(name="case_outcomes", entities=[case], schema=[Field(name="fraud", dtype=Int64)], source=source)
"""


def test_a_view_gives_its_entities_labels_with_the_moment_of_their_event(tmp_path):
    closed = [NOW - dt.timedelta(days=days) for days in (30, 2, 1)]
    rows = pd.DataFrame({"case_id": ["a", "b", "c"], "fraud": [1, 0, 1], "closed_at": closed})
    write_deltalake(str(tmp_path / "outcomes"), rows)
    (tmp_path / "data").mkdir()
    (tmp_path / "feature_store.yaml").write_text(STORE)
    (tmp_path / "views.py").write_text(VIEWS.format(path=str(tmp_path / "outcomes")))
    made = runpy.run_path(str(tmp_path / "views.py")).values()
    feast.FeatureStore(str(tmp_path)).apply([one for one in made if isinstance(one, Entity | FeatureView | FileSource)])
    plain = {"endpoint": "e", "request_id": "case_id", "label": "fraud", "at": "closed_at"}
    truth = TruthTable(table=f"feast:{tmp_path}#case_outcomes", **plain)
    found = sorted((one["request_id"], one["label"], one["at"][:10]) for portion in read(truth, NOW) for one in portion)
    assert found == [("a", 1, "2026-10-24"), ("b", 0, "2026-11-21"), ("c", 1, "2026-11-22")]
    recent = TruthTable(table=truth.table, days=7, **plain)
    assert sorted(one["request_id"] for portion in read(recent, NOW) for one in portion) == ["b", "c"]
    with pytest.raises(TruthUnreadable, match="nothing"):
        list(read(TruthTable(table=f"feast:{tmp_path}#nothing", **plain), NOW))
