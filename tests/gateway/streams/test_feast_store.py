"""The feature store for real: a repository as `runoff feast init` writes it, applied, asked, and pushed to."""

import runpy
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

feast = pytest.importorskip("feast")

from deltalake import DeltaTable  # noqa: E402
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType  # noqa: E402
from feast.data_format import DeltaFormat, ParquetFormat  # noqa: E402
from feast.data_source import PushMode  # noqa: E402
from feast.types import Float64  # noqa: E402

from gateway.streams.feast_push import FeastSink  # noqa: E402
from gateway.streams.feast_repo import repo  # noqa: E402
from gateway.streams.feast_store import NotOurs, _read  # noqa: E402
from gateway.streams.feed import Feed  # noqa: E402
from gateway.streams.relay import SinkFailed  # noqa: E402
from gateway.streams.table_view import TableView  # noqa: E402
from routing.records import MetricBlock, MinuteRow, QualityBlock, QualityRow  # noqa: E402
from tests.kit.spooled import (  # noqa: E402
    START_UNIX_US,
    Place,
    label,
    labels,
    pid_text,
    predictions,
    request,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 100_000
START = datetime.fromtimestamp(START_UNIX_US / 1e6, UTC)
HOUR_S = 3600


def applied(folder, place, endpoint="phishing"):
    """The repository as a user makes it."""
    _, dataset = TableView(f"{place.uri}/predictions").dataset()
    columns = [dataset.schema.field(name) for name in dataset.schema.names if name.startswith("input_")]
    for path, text in repo(folder, endpoint, place.uri, columns).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "data").mkdir(exist_ok=True)
    store = feast.FeatureStore(str(folder))
    made = runpy.run_path(str(folder / f"{endpoint}.py")).values()
    store.apply(
        [one for one in made if isinstance(one, Entity | FeatureView | FileSource | PushSource | FeatureService)]
    )
    return store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """20,000 predictions in many commits; each even one labelled an hour later, each tenth corrected the day after."""
    folder = tmp_path_factory.mktemp("feast")
    place = Place(folder)
    for part in range(8):
        numbers = range(part * ROWS // 8, (part + 1) * ROWS // 8)
        blocks = [
            predictions([request(n, unit=f"u{n % 100}") for n in numbers[at : at + 500]], [0.9] * 500)
            for at in range(0, len(numbers), 500)
        ]
        even = [n for n in numbers if n % 2 == 0]
        first = [label(n, 0, at_unix_us=START_UNIX_US + n * 1000 + HOUR_S * 1_000_000, received=HOUR_S) for n in even]
        fixed = [label(n, 1, received=30 * HOUR_S) for n in even if n % 10 == 0]
        place.store(*blocks, labels(*first), labels(*fixed), writer=f"worker-{part}")
    return place, applied(folder / "repo", place)


def entities(known_by, numbers=range(ROWS)):
    ids = [pid_text(n) for n in numbers]
    return pd.DataFrame({"prediction_id": ids, "row": np.int32(0), "event_timestamp": known_by})


def history(store, known_by, **more):
    service = store.get_feature_service("phishing_training")
    return store.get_historical_features(entities(known_by, **more), service, filter_by_created_timestamp=True).to_df()


def check(rows, labelled, ones):
    assert len(rows) == ROWS
    assert rows["prediction_id"].nunique() == ROWS
    assert rows["answer_label"].eq("1").all()
    assert rows["label_text"].notna().sum() == labelled
    assert rows["label_text"].eq("1").sum() == ones


def test_each_prediction_comes_once_with_the_label_that_was_known_at_its_time(world):
    _, store = world
    check(history(store, START + timedelta(minutes=30)), labelled=0, ones=0)
    check(history(store, START + timedelta(hours=3)), labelled=ROWS // 2, ones=0)
    check(history(store, START + timedelta(hours=31)), labelled=ROWS // 2, ones=ROWS // 10)


def test_compaction_and_vacuum_change_no_row(world):
    place, store = world
    before = history(store, START + timedelta(hours=31)).sort_values("prediction_id", ignore_index=True)
    for name in ("predictions", "labels"):
        DeltaTable(f"{place.uri}/{name}").optimize.compact()
    check(history(store, START + timedelta(hours=31)), labelled=ROWS // 2, ones=ROWS // 10)
    for name in ("predictions", "labels"):
        DeltaTable(f"{place.uri}/{name}").vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    after = history(store, START + timedelta(hours=31)).sort_values("prediction_id", ignore_index=True)
    pd.testing.assert_frame_equal(before, after)


def test_a_retracted_label_is_none_from_then_on(world, tmp_path):
    place = Place(tmp_path)
    place.store(predictions([request(0, request_id="r")], [0.9]))
    late = label(None, None, endpoint="phishing", request_id="r", received=2 * HOUR_S)
    place.store(labels(label(0, 1, received=HOUR_S), late), writer="worker-2")
    store = applied(tmp_path / "repo", place)
    known = lambda hours: history(store, START + timedelta(hours=hours), numbers=[0])["label_text"].isna().tolist()
    assert (known(0.5), known(1.5), known(2.5)) == ([True], [False], [True])


def test_what_was_pushed_is_what_is_got_and_the_newest_of_a_unit_wins(world):
    place, store = world
    sink = FeastSink(str(store.repo_path))
    feed, position = Feed(place.uri, "predictions"), 0
    while (portion := feed.after(position)) is not None:
        sink.send("predictions", portion.rows)
        sink.send("predictions", portion.rows)
        position = portion.last
    sink.send("labels", portion)
    found = store.get_online_features(
        store.get_feature_service("phishing_online"), entity_rows=[{"unit": "u7"}, {"unit": "nobody"}]
    ).to_dict()
    assert found["prediction_id"] == [pid_text(ROWS - 100 + 7), None]
    assert found["answer_label"] == ["1", None]
    assert found["answer_score"][0] == pytest.approx(0.9)


def test_minutes_and_measures_are_features_of_a_variant(tmp_path):
    place = Place(tmp_path)
    minute = START_UNIX_US // 60_000_000 * 60
    traffic = [MinuteRow("phishing", "champion", "m", "1", minute + 60 * n, 10, 1, 10, 0.5, [10]) for n in (0, 0, 2)]
    measured = QualityRow("phishing", "live", "champion", "m", "1", minute + 60, 7, {"accuracy": 0.9})
    corrected = QualityRow("phishing", "live", "champion", "m", "1", minute + 120, 9, {"accuracy": 0.8})
    place.store(
        predictions([request(0)], [0.9]),
        labels(label(0, 1)),
        MetricBlock(traffic),
        QualityBlock([measured]),
        QualityBlock([corrected]),
    )
    store = applied(tmp_path / "repo", place)
    moments = [datetime.fromtimestamp(minute + 60 * n + 1, UTC) for n in range(4)]
    asked = pd.DataFrame({"role": "live", "variant": "champion", "version": "1", "event_timestamp": moments})
    found = store.get_historical_features(asked, store.get_feature_service("phishing_monitoring")).to_df()
    found = found.sort_values("event_timestamp")
    assert found["requests"].fillna(0).tolist() == [20, 0, 10, 10]
    assert found["accuracy"].fillna(0).tolist() == [0, 0.9, 0.8, 0.8]
    sink = FeastSink(str(store.repo_path))
    sink.send("metrics", Feed(place.uri, "metrics").after(0).rows)
    online = store.get_online_features(
        ["phishing_quality:accuracy", "phishing_quality:labelled"],
        [{"role": "live", "variant": "champion", "version": "1"}],
    )
    assert (online.to_dict()["accuracy"], online.to_dict()["labelled"]) == ([0.8], [9])


def test_the_gateways_tables_are_not_written_by_others(world):
    _, store = world
    rows = pd.DataFrame(
        {
            "unit": ["u1"],
            "answer_label": ["1"],
            "answer_score": [0.5],
            "variant": ["champion"],
            "version": ["1"],
            "prediction_id": [pid_text(1)],
            "received_at": [START],
        }
    )
    with pytest.raises((NotOurs, ValueError)):
        store.push("phishing_push", rows, to=PushMode.OFFLINE)


def test_views_of_ones_own_on_delta_tables_are_written_and_read(world, tmp_path):
    _, store = world
    path = str(tmp_path / "spend")
    rows = pd.DataFrame({"unit": ["u1", "u1"], "spend": [1.0, 2.0], "at": [START, START + timedelta(hours=1)]})
    from deltalake import write_deltalake

    write_deltalake(path, rows.iloc[:1])
    source = FileSource(name="spend", path=path, file_format=DeltaFormat(), timestamp_field="at")
    push = PushSource(name="spend_push", batch_source=source)
    unit = Entity(name="unit", join_keys=["unit"], value_type=ValueType.STRING)
    view = FeatureView(name="spend", entities=[unit], schema=[Field(name="spend", dtype=Float64)], source=push)
    store.apply([push, view])
    store.push("spend_push", rows.iloc[1:], to=PushMode.ONLINE_AND_OFFLINE)
    asked = pd.DataFrame({"unit": ["u1"], "event_timestamp": [START + timedelta(hours=2)]})
    assert store.get_historical_features(asked, ["spend:spend"]).to_df()["spend"].tolist() == [2.0]
    assert store.get_online_features(["spend:spend"], [{"unit": "u1"}]).to_dict()["spend"] == [2.0]


def test_other_formats_are_refused_with_the_format_to_use(tmp_path):
    with pytest.raises(TypeError, match="DeltaFormat"):
        _read(FileSource(name="x", path=str(tmp_path), file_format=ParquetFormat()), str(tmp_path))


def test_a_folder_without_a_repository_is_a_failed_sink(tmp_path):
    with pytest.raises(SinkFailed, match="feature repository"):
        FeastSink(str(tmp_path))
