import random
import uuid

import numpy as np
import orjson
import pytest

from gateway.evidence import ledger, quality
from gateway.evidence.evidence import Evidence
from routing.records import Column
from tests.kit.spooled import BINARY, START_UNIX_US, Place, label, labels, pid_text, predictions, request, shadows


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def evidence(place):
    return Evidence(place.uri, lambda _: BINARY)


def test_an_empty_lake_has_answers_without_data(evidence):
    assert evidence.ledger(ledger.Question(endpoint="phishing"))["mirrors"] == []
    assert evidence.quality(quality.Question(endpoint="phishing"))["subjects"] == []
    assert evidence.prediction(str(uuid.uuid4())) is None


def test_an_answer_is_remembered_until_the_tables_change(place, evidence):
    question = quality.Question(endpoint="phishing")
    place.store(predictions([request(0)], [0.9]), writer="worker-1")
    first = evidence.quality(question)
    assert evidence.quality(question) is first
    place.store(labels(label(0, 1)), writer="worker-2")
    assert evidence.quality(question)["subjects"][0]["labelled"] == 1


def test_a_prediction_is_shown_with_its_shadows_and_labels(place, evidence):
    place.store(
        predictions([request(0, rows=2, request_id="r-9"), request(1)], [0.9, 0.2, 0.4]),
        shadows([0], ["1"], ["0"], live_scores=[0.9], scores=[0.3]),
        labels(
            label(0, 0, received=1, row=0), label(None, 1, received=2, endpoint="phishing", request_id="r-9", row=0)
        ),
        labels(label(0, 1), label(1, 1)),
    )
    told = evidence.prediction(pid_text(0).upper())
    assert told["endpoint"] == "phishing"
    assert told["record"]["variant"] == "champion"
    assert told["record"]["received_at"] == "2026-09-21T14:13:20+00:00"
    assert [row["inputs"] for row in told["record"]["rows"]] == [{"x": 0.0}, {"x": 1.0}]
    assert told["record"]["rows"][0]["outputs"]["label"] == 1
    assert [(row["mirror"], row["answer_label"]) for row in told["shadows"]] == [("candidate", "0")]
    assert [(row["row"], row["label_text"], row["holds"], row["fault"]) for row in told["labels"]] == [
        (0, "0", False, None),
        (0, "1", True, None),
        (None, "1", False, "row_missing"),
    ]


def test_labels_are_shown_before_their_prediction_has_come(place, evidence):
    place.store(labels(label(5, 1)))
    told = evidence.prediction(pid_text(5))
    assert told["record"] is None
    assert len(told["labels"]) == 1


def test_every_answer_can_be_written_as_json(place, evidence):
    huge = Column("huge", "UINT64", (2,), np.array([2**64 - 1, 1], "<u8").tobytes())
    place.store(
        predictions([request(0)], [0.9], inputs=[huge]),
        shadows([0], ["1"], ["0"], live_scores=[0.9], scores=[0.2]),
        labels(label(0, 1, at_unix_us=1)),
    )
    told = evidence.prediction(pid_text(0))
    assert told["record"]["rows"][0]["inputs"]["huge"] == [2**64 - 1, 1]
    for document in (
        told,
        evidence.ledger(ledger.Question(endpoint="phishing", exogenous=True, segment_by="status")),
        evidence.quality(quality.Question(endpoint="phishing")),
    ):
        assert orjson.loads(orjson.dumps(document)) == document


def test_what_is_no_uuid_is_refused(evidence):
    with pytest.raises(ValueError, match="badly formed"):
        evidence.prediction("nonsense")


def test_a_window_and_another_endpoint_see_only_their_own(place, evidence):
    place.store(
        predictions([request(0), request(5000)], [0.9, 0.9]),
        predictions([request(1)], [0.9], endpoint="spam"),
    )
    start = START_UNIX_US / 1e6
    count = lambda **window: evidence.quality(quality.Question(**window))["subjects"][0]["n"]
    assert count(endpoint="phishing") == 2
    assert count(endpoint="spam") == 1
    assert count(endpoint="phishing", since_unix_s=start + 1) == 1
    assert count(endpoint="phishing", until_unix_s=start + 1) == 1


def test_of_a_day_with_more_predictions_than_a_look_takes_so_many_are_drawn(place, evidence):
    assert evidence.recent("phishing", 10) is None
    for at, number in enumerate((0, 86_400_000)):
        place.store(predictions([request(number + n) for n in range(8)], [0.9] * 8), writer=f"worker-{at}")
    midnight = START_UNIX_US / 1e6 // 86_400 * 86_400
    found = {most: evidence.recent("phishing", most) for most in (16, 15, 8, 7, 4, 3)}
    since = {most: one.since_unix_s - midnight for most, one in found.items()}
    assert since == {16: 0} | dict.fromkeys((15, 8, 7, 4, 3), 86_400)
    assert {most: one.one_in for most, one in found.items()} == {16: 1, 15: 1, 8: 1, 7: 2, 4: 2, 3: 4}


def arrivals():
    """A small life of an endpoint as single records: answers, shadows, labels with corrections, retractions and request ids."""
    chance, records = random.Random(3), []
    for n in range(24):
        score, truth = chance.random(), chance.randrange(2)
        records.append(predictions([request(n, unit=f"u{n % 7}", request_id=f"r{n}")], [score]))
        records.append(shadows([n], [str(int(score >= 0.5))], [str(truth)], live_scores=[score], scores=[0.5]))
        reference = {"endpoint": "phishing", "request_id": f"r{n}"} if n % 3 == 0 else {}
        records.append(labels(label(None if reference else n, truth, received=n, **reference)))
        if n % 5 == 0:
            records.append(labels(label(n, 1 - truth, at_unix_us=START_UNIX_US + (100 + n) * 1_000_000)))
        if n % 8 == 0:
            records.append(labels(label(n, None, at_unix_us=START_UNIX_US + (200 + n) * 1_000_000)))
    return records


def figures(place):
    """All that is told but the sequential test, which is a function of the order by its nature."""
    evidence = Evidence(place.uri, lambda _: BINARY)
    (mirror,) = evidence.ledger(ledger.Question(endpoint="phishing", segment_by="unit"))["mirrors"]
    told = evidence.quality(quality.Question(endpoint="phishing", segment_by="unit"))
    return dict(_flat(mirror, "ledger")) | dict(_flat(told, "quality"))


def _flat(told, path):
    if isinstance(told, dict):
        for name, value in told.items():
            yield from _flat(value, f"{path}.{name}")
    elif isinstance(told, list):
        yield f"{path}.length", len(told)
        for at, value in enumerate(told):
            yield from _flat(value, f"{path}[{at}]")
    else:  # sums of floats know an order in their last bits
        yield path, float(f"{told:.9g}") if isinstance(told, float) else told


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("plain"))
    place.store(*arrivals())
    return figures(place)


@pytest.mark.parametrize("seed", range(8))
def test_replayed_reordered_and_repeated_records_give_the_same_figures(tmp_path, plain, seed):
    """Any order, by any number of writers, with any share delivered twice, tidied up or not."""
    chance, records = random.Random(seed), arrivals()
    records += [one for one in records if chance.random() < seed / 8]
    chance.shuffle(records)
    place, writers = Place(tmp_path), 1 + seed % 4
    for writer in range(writers):
        place.store(*records[writer::writers], writer=f"worker-{writer}")
    if seed % 2:
        place.lake().compact(0)
    assert figures(place) == plain
