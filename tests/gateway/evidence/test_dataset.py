import numpy as np
import pyarrow as pa
import pytest

from gateway.evidence.dataset import Question, dataset
from gateway.evidence.query import Queries
from routing.records import Column
from tests.kit.spooled import START_UNIX_US, Place, apart, label, labels, pid_text, predictions, request


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def made(place, **more):
    return dataset(Queries(place.uri), Question(endpoint="phishing", **more))


def test_labelled_rows_come_with_inputs_answers_and_truth_in_the_order_of_arrival(place):
    place.store(predictions([request(n) for n in range(4)], [0.1, 0.9, 0.8, 0.2]))
    place.store(labels(label(2, 1), label(0, 0), label(3, 1), label(3, None, received=5)), writer="worker-2")
    found = made(place)
    assert found.rows["prediction_id"].to_pylist() == [pid_text(0), pid_text(2)]
    assert found.rows["x"].to_pylist() == [0.0, 2.0]
    assert found.rows["label"].to_pylist() == [0, 1]
    assert found.rows["answer_label"].to_pylist() == ["0", "1"]
    assert found.features == ("x",)
    assert found.rows.column_names[-1] == "label"


def test_the_lineage_names_revisions_versions_tables_and_what_was_left_out(place):
    full = predictions([request(n) for n in range(2)], [0.1, 0.9])
    hashed = predictions(
        [request(2, assigned=1)], [0.5], version="2", inputs=[Column("x", "FP32", (1,), None)], inputs_digest=["aa"]
    )
    place.store(full, hashed, labels(*[label(n, 1) for n in range(3)]))
    lineage = made(place).lineage
    assert (lineage["predictions"], lineage["labelled"], lineage["rows"], lineage["without_inputs"]) == (3, 3, 2, 1)
    assert lineage["revisions"] == [7]
    assert lineage["models"] == [
        {"variant": "champion", "model": "phishing", "version": "1", "digest": "d1", "rows": 2}
    ]
    assert lineage["tables"]["predictions"] > 0
    assert lineage["digest"].startswith("sha256:")


def test_the_same_rows_have_the_same_digest_until_one_is_corrected(place):
    place.store(predictions([request(n) for n in range(3)], [0.1, 0.9, 0.5]), labels(*[label(n, 1) for n in range(3)]))
    first, again = made(place), made(place)
    assert first.lineage["digest"] == again.lineage["digest"]
    place.store(labels(label(1, 0, received=5)), writer="worker-2")
    assert made(place).lineage["digest"] != first.lineage["digest"]


@pytest.mark.parametrize(
    ("truths", "type_"),
    [
        ([True, False], pa.bool_()),
        ([1, 0], pa.int64()),
        ([0.5, 1], pa.float64()),
        (["cat", "1"], pa.string()),
    ],
)
def test_labels_have_the_narrowest_type_that_holds_them(place, truths, type_):
    place.store(predictions([request(0), request(1)], [0.5, 0.5]), labels(label(0, truths[0]), label(1, truths[1])))
    found = made(place).rows["label"]
    assert found.type == type_
    assert found.to_pylist() == [str(one) if type_ == pa.string() else one for one in truths]


def test_the_window_is_of_arrival_and_labels_count_within_theirs(place):
    rows = [request(n * 60_000) for n in range(4)]
    place.store(predictions(rows, [0.5] * 4), labels(*[label(n * 60_000, 1, received=200) for n in range(4)]))
    start = START_UNIX_US / 1e6
    assert made(place, since_unix_s=start + 60, until_unix_s=start + 180).rows.num_rows == 2
    assert made(place, label_window_s=100).rows.num_rows == 2


def test_rows_of_one_request_have_their_own_labels_and_wide_inputs_stay_lists(place):
    wide = Column("v", "FP32", (2,), np.arange(4, dtype="<f4").tobytes())
    named = Column("version", "INT64", (1,), np.array([5, 6], "<i8").tobytes())
    place.store(predictions([request(0, rows=2)], [0.1, 0.9], inputs=[wide, named]), labels(label(0, 1, row=1)))
    found = made(place)
    assert found.rows["v"].to_pylist() == [[2.0, 3.0]]
    assert found.features == ("v", "input_version")
    assert (found.rows["input_version"].to_pylist(), found.rows["version"].to_pylist()) == ([6], ["1"])


def test_an_endpoint_without_labels_gives_no_rows_and_says_so(place):
    place.store(predictions([request(0)], [0.5]))
    found = made(place)
    assert (found.rows.num_rows, found.lineage["predictions"], found.lineage["labelled"]) == (0, 1, 0)
    assert found.lineage["models"] == []


def test_attributes_that_are_kept_apart_come_on_demand_alone(place):
    place.store(predictions([request(n) for n in range(4)], [0.5] * 4), labels(*[label(n, 1) for n in range(4)]))
    place.store(apart([0, 1, 2], "fmf"), writer="worker-2")
    assert "attribute_sex" not in made(place).rows.column_names
    found = made(place, with_sensitive=True)
    assert found.rows["attribute_sex"].to_pylist() == ["f", "m", "f", None]
    assert (found.features, found.lineage["sensitive"]) == (("x",), ["attribute_sex"])
    assert found.rows.column_names[-1] == "label"


def test_without_such_attributes_there_are_none_to_come(place):
    place.store(predictions([request(0)], [0.5]), labels(label(0, 1)))
    found = made(place, with_sensitive=True)
    assert "sensitive" not in found.lineage
    assert found.rows.num_rows == 1
