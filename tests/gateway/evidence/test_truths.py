import msgspec
import pytest

from gateway.evidence.query import Queries
from gateway.evidence.truths import hold_first, hold_latest, resolve
from tests.kit.spooled import START_UNIX_US, Place, label, labels, pid_text, predictions, request, shadows

HOUR = 3600


def at(seconds):
    return {"at_unix_us": START_UNIX_US + seconds * 1_000_000}


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    made.store(predictions([request(n, request_id=f"r{n}") for n in range(3)], [0.5] * 3), writer="first")
    return made


@pytest.fixture
def resolved(place):
    """The labels that are about the endpoint, as (prediction, label)."""

    def ask(endpoint="phishing", **options):
        with Queries(place.uri).snapshot("predictions", "labels") as snapshot:
            resolve(snapshot, endpoint, **options)
            rows = snapshot.rows("SELECT id::VARCHAR AS id, label_text FROM resolved ORDER BY sequence")
        return [(row["id"], row["label_text"]) for row in rows]

    return ask


@pytest.fixture
def latest(place):
    """The label text that holds, by prediction."""

    def ask():
        with Queries(place.uri).snapshot("predictions", "labels") as snapshot:
            resolve(snapshot, "phishing")
            hold_latest(snapshot)
            rows = snapshot.rows(
                "SELECT id::VARCHAR AS id, CASE WHEN NOT retracted THEN label_text END AS text FROM latest_labels"
            )
        return {row["id"]: row["text"] for row in rows}

    return ask


@pytest.fixture
def first(place):
    def ask(*, keys_in_use):
        with Queries(place.uri).snapshot("predictions", "labels") as snapshot:
            resolve(snapshot, "phishing")
            hold_first(snapshot, keys_in_use=keys_in_use)
            return [row["label_text"] for row in snapshot.rows("SELECT label_text FROM first_labels ORDER BY sequence")]

    return ask


def test_a_label_by_request_id_is_about_every_prediction_that_has_it_and_of_that_endpoint_only(place, resolved):
    place.store(predictions([request(9, request_id="r0")], [0.5]), writer="second")
    place.store(
        labels(
            label(None, "a", endpoint="phishing", request_id="r0"),
            label(None, "b", endpoint="spam", request_id="r0"),
            label(None, "c", endpoint="phishing", request_id="unheard-of"),
        )
    )
    assert sorted(resolved()) == [(pid_text(0), "a"), (pid_text(9), "a")]
    assert resolved("spam") == []


def test_one_predictions_labels_are_found_by_either_name(place, resolved):
    place.store(labels(label(0, "a"), label(1, "b"), label(None, "c", endpoint="phishing", request_id="r0")))
    assert sorted(text for _, text in resolved(prediction_id=pid_text(0))) == ["a", "c"]


def test_what_became_known_after_the_window_does_not_count(place, resolved):
    place.store(
        labels(
            label(0, "in time", received=HOUR),
            label(1, "late", received=HOUR + 1),
            label(2, "told late", received=9 * HOUR, **at(HOUR)),
        )
    )
    assert [text for _, text in resolved(window_s=HOUR)] == ["in time", "told late"]
    assert len(resolved()) == 3


def test_since_leaves_out_what_was_asked_before(place, resolved):
    place.store(predictions([request(5000, request_id="r5000")], [0.5]), writer="second")
    place.store(
        labels(label(0, "old"), label(5000, "new"), label(None, "new too", endpoint="phishing", request_id="r5000"))
    )
    assert [text for _, text in resolved(since_unix_s=START_UNIX_US / 1e6 + 5)] == ["new", "new too"]


def test_the_newest_truth_holds_whenever_it_arrived(place, latest):
    place.store(labels(label(0, "newer", received=1, **at(60)), label(0, "older", received=2, **at(30))))
    assert latest() == {pid_text(0): "newer"}


def test_an_old_label_delivered_again_does_not_undo_a_correction(place, latest):
    place.store(labels(label(0, "wrong", received=1), label(0, "right", received=2), label(0, "wrong", received=3)))
    assert latest() == {pid_text(0): "right"}


def test_a_retraction_leaves_no_label_until_a_newer_one_comes(place, latest):
    place.store(labels(label(0, "a", received=1), label(0, None, received=2), label(1, None, received=1)))
    assert latest() == {pid_text(0): None, pid_text(1): None}
    place.store(labels(label(0, "b", received=3)), writer="second")
    assert latest() == {pid_text(0): "b", pid_text(1): None}


def test_a_tie_is_decided_by_content_not_by_arrival(place, latest):
    place.store(labels(label(0, "a", **at(1)), label(0, "b", **at(1)), label(1, "b", **at(1)), label(1, "a", **at(1))))
    assert latest() == {pid_text(0): "b", pid_text(1): "b"}


def test_a_test_meets_the_label_that_was_committed_first_and_keeps_it(place, first):
    place.store(labels(label(0, "a", received=5), label(0, "b", received=1), label(1, None), label(1, "c")))
    assert first(keys_in_use=False) == ["a", "c"]
    place.store(labels(label(0, None, received=9)), writer="second")
    assert first(keys_in_use=False) == ["a", "c"], "what a test has met it cannot unmeet"


def test_where_keys_are_in_use_a_test_meets_only_labels_that_came_with_one(place, first):
    place.store(labels(label(0, "anybody's"), label(0, "the owner's", keyed=True), label(1, "anybody's")))
    assert first(keys_in_use=True) == ["the owner's"]


@pytest.fixture
def usable(place):
    """The rows that have a label, as (prediction, row, text); and the labels that are about none, by their fault."""

    def ask(endpoint="phishing"):
        with Queries(place.uri).snapshot("predictions", "shadows", "labels") as snapshot:
            resolve(snapshot, endpoint)
            hold_latest(snapshot)
            hold_first(snapshot, keys_in_use=False)
            latest, first = (
                {
                    (row["id"], row["row"], row["label_text"])
                    for row in snapshot.rows(f"SELECT id::VARCHAR AS id, row, label_text FROM {name}")
                }
                for name in ("latest_labels", "first_labels")
            )
            assert latest == first
            faults = snapshot.rows("SELECT fault, count(*) AS labels FROM resolved WHERE fault IS NOT NULL GROUP BY 1")
        return latest, {row["fault"]: row["labels"] for row in faults}

    return ask


def test_a_label_without_a_row_is_of_no_row_where_the_request_had_several(place, usable):
    place.store(
        predictions([request(10, rows=3, request_id="many"), request(11, request_id="one")], [0.5] * 4),
        labels(
            label(10, "lost"),
            label(None, "lost too", endpoint="phishing", request_id="many"),
            label(10, "second", row=1),
            label(11, "only"),
            label(None, "only", endpoint="phishing", request_id="one", row=0),
        ),
        writer="second",
    )
    assert usable() == ({(pid_text(10), 1, "second"), (pid_text(11), 0, "only")}, {"row_missing": 2})


def test_a_label_of_a_row_that_the_request_did_not_have_is_of_none(place, usable):
    place.store(
        predictions([request(10, rows=3, request_id="many")], [0.5] * 3),
        labels(
            label(10, "beyond", row=3),
            label(0, "beyond", row=1),
            label(None, "beyond", endpoint="phishing", request_id="many", row=9),
            label(10, "last", row=2),
        ),
        writer="second",
    )
    assert usable() == ({(pid_text(10), 2, "last")}, {"row_unknown": 3})


def test_the_rows_of_a_request_that_only_a_mirror_recorded_are_those_of_the_mirror(place, usable):
    pairs = shadows([20], ["1"] * 2, ["0"] * 2, scores=[0.5] * 2, live_scores=[0.5] * 2)
    pairs = msgspec.structs.replace(pairs, requests=[msgspec.structs.replace(pairs.requests[0], rows=2)])
    place.store(
        pairs, labels(label(20, "lost"), label(20, "first", row=0), label(20, "beyond", row=2)), writer="second"
    )
    assert usable() == ({(pid_text(20), 0, "first")}, {"row_missing": 1, "row_unknown": 1})
