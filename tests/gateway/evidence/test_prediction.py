import uuid

import numpy as np
import pytest

from gateway.evidence.prediction import prediction
from gateway.evidence.query import Queries
from gateway.streams.table_view import TableView
from routing.records import Column
from tests.kit.spooled import Place, label, labels, pid, pid_text, predictions, request, shadows

DAY_MS = 86_400_000


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def told(place):
    return lambda key: prediction(Queries(place.uri), key, {"phishing": 3600.0})


def test_rows_stand_in_their_order_and_what_they_share_is_said_once(place, told):
    place.store(predictions([request(0, rows=3, request_id="r-9")], [0.9, 0.2, 0.6]))
    record = told(pid_text(0))["record"]
    assert [(row["row"], row["answer_label"], row["inputs"]["x"]) for row in record["rows"]] == [
        (0, "1", 0.0),
        (1, "0", 1.0),
        (2, "1", 2.0),
    ]
    assert record["request_id"] == "r-9"
    assert set(record["rows"][0]) == {"row", "answer_label", "answer_score", "inputs", "outputs"}


def test_a_failure_has_inputs_and_no_outputs(place, told):
    place.store(predictions([request(0, answered=-1, status=503, code="not_warm")]))
    record = told(pid_text(0))["record"]
    assert (record["status"], record["code"], record["variant"]) == (503, "not_warm", None)
    assert [(row["inputs"], row["outputs"]) for row in record["rows"]] == [({"x": 0.0}, {})]


def test_columns_of_other_predictions_are_left_out(place, told):
    other = [Column("y", "BYTES", (), ["spam"])]
    place.store(predictions([request(0)], [0.5]), predictions([request(1)], [0.5], inputs=other))
    assert told(pid_text(0))["record"]["rows"][0]["inputs"] == {"x": 0.0}
    assert told(pid_text(1))["record"]["rows"][0]["inputs"] == {"y": "spam"}


def test_the_widest_integers_stay_integers(place, told):
    wide = [Column("n", "UINT64", (), np.array([2**64 - 1], "<u8").tobytes())]
    place.store(predictions([request(0)], [0.5], inputs=wide))
    assert told(pid_text(0))["record"]["rows"][0]["inputs"] == {"n": 2**64 - 1}


@pytest.mark.parametrize("late_ms", [-DAY_MS, 0, DAY_MS])
def test_a_record_is_found_though_its_day_is_the_one_beside_its_ids(place, told, late_ms):
    row = request(0)
    place.store(predictions([request(0, received_unix_us=row.received_unix_us + late_ms * 1000)], [0.5]))
    assert told(pid_text(0))["record"] is not None


def test_an_id_that_tells_no_time_is_looked_for_everywhere(place, told):
    key = uuid.UUID(int=5, version=4)
    place.store(predictions([request(0, prediction_id=key.bytes)], [0.5]))
    assert told(str(key))["endpoint"] == "phishing"
    assert told(key.hex)["prediction_id"] == str(key)


def test_shadows_alone_are_an_answer_without_a_record(place, told):
    place.store(shadows([3], ["1"], [None], outcome="timeout"))
    found = told(pid_text(3))
    assert (found["endpoint"], found["record"]) == ("phishing", None)
    assert [(row["mirror"], row["outcome"], row["answer_label"]) for row in found["shadows"]] == [
        ("candidate", "timeout", None)
    ]


def test_of_the_labels_of_a_row_one_holds_and_none_after_a_retraction(place, told):
    place.store(predictions([request(n) for n in (0, 1)], [0.5, 0.5]))
    place.store(
        labels(label(0, 1), label(0, 0, received=9), label(1, 1), label(1, None, received=9)), writer="worker-2"
    )
    assert [(one["label_text"], one["holds"]) for one in told(pid_text(0))["labels"]] == [("1", False), ("0", True)]
    assert [one["holds"] for one in told(pid_text(1))["labels"]] == [False, False]


def test_a_label_that_came_too_late_to_count_is_there_and_holds_nothing(place, told):
    place.store(predictions([request(0)], [0.5]))
    place.store(labels(label(0, 1), label(0, 0, received=4000)), writer="worker-2")
    assert [(one["label_text"], one["holds"]) for one in told(pid_text(0))["labels"]] == [("1", True), ("0", False)]


def test_what_nobody_has_heard_of_is_none(place, told):
    assert told(str(uuid.UUID(bytes=pid(7)))) is None


def test_one_of_many_files_is_read_and_nothing_about_the_prediction_is_missed(tmp_path):
    """Each store is a commit of its own, days apart by their ids; labels come by id and by request id, early and late."""
    place, days = Place(tmp_path), [day * 86_400_000 for day in range(4)]
    reference = {"endpoint": "phishing", "request_id": "r1"}
    place.store(labels(label(None, 1, **reference)), writer="early")
    for at, number in enumerate(days):
        place.store(
            predictions([request(number, request_id=f"r{at}")], [0.9]),
            shadows([number], ["1"], ["0"]),
            labels(label(number, at)),
            writer=f"worker-{at}",
        )
    place.store(labels(label(days[1], 0, received=9 * 86_400)), writer="late")
    view = TableView(f"{place.uri}/predictions")
    view.newest()
    assert len(view.files_of(pid_text(days[1]), pid_text(days[1]))) == 1
    asked = lambda: prediction(Queries(place.uri), pid_text(days[1]), {})
    told = asked()
    assert told["record"]["request_id"] == "r1"
    assert [row["mirror"] for row in told["shadows"]] == ["candidate"]
    assert sorted(row["label_text"] for row in told["labels"]) == ["0", "1", "1"]
    place.lake().compact(0)
    assert asked() == told
    assert prediction(Queries(place.uri), pid_text(days[1] + 1), {}) is None
