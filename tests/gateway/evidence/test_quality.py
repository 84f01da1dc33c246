import random

import numpy as np
import pytest
from deltalake import DeltaTable
from sklearn import metrics

from gateway.evidence.evidence import Evidence
from gateway.evidence.quality import Question, quality
from gateway.evidence.query import Queries
from models.signature import Answer
from routing.records import Column, PredictionBlock
from tests.kit.spooled import BINARY, START_UNIX_US, VARIANTS, Place, label, labels, predictions, request, shadows

MINUTE_US = 60_000_000


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def subjects(place, answer=BINARY):
    told = Evidence(place.uri, lambda _: answer).quality(Question(endpoint="phishing"))
    return {subject["name"]: subject for subject in told["subjects"]}, told


def test_a_binary_classifier_is_measured_as_scikit_learn_does(place):
    chance = np.random.default_rng(5)
    count = 500
    p = np.round(chance.random(count), 2).astype(np.float32)
    y = (chance.random(count) < p).astype(int)
    place.store(
        predictions([request(n) for n in range(count)], p),
        shadows(list(range(count)), ["0"] * count, [str(v) for v in y], scores=(1 - p.astype(float)).tolist()),
        labels(*[label(n, bool(y[n])) for n in range(400)]),
    )
    found, told = subjects(place)
    champion, mirror = found["champion"], found["candidate"]
    y, p = y[:400], p[:400].astype(np.float64)
    assert (told["kind"], told["positive"]) == ("classification", "1")
    assert (champion["role"], champion["n"], champion["labelled"], champion["coverage"]) == ("live", 500, 400, 0.8)
    assert champion["accuracy"] == pytest.approx(metrics.accuracy_score(y, p >= 0.5))
    assert champion["precision"] == pytest.approx(metrics.precision_score(y, p >= 0.5))
    assert champion["recall"] == pytest.approx(metrics.recall_score(y, p >= 0.5))
    assert champion["f1"] == pytest.approx(metrics.f1_score(y, p >= 0.5))
    assert champion["brier"] == pytest.approx(metrics.brier_score_loss(y, p))
    assert champion["auc"] == pytest.approx(metrics.roc_auc_score(y, p))
    assert champion["log_loss"] == pytest.approx(-np.mean(np.log(np.clip(np.where(y, p, 1 - p), 1e-15, 1))))
    assert (mirror["role"], mirror["accuracy"], mirror["version"]) == ("mirror", 1.0, "2")
    assert mirror["auc"] == pytest.approx(metrics.roc_auc_score(y, 1 - p))


def test_several_classes_have_macro_means_and_a_log_loss(place):
    answer = Answer(kind="classification", score_output="p", classes=("cat", "dog", "eel"))
    chance = np.random.default_rng(6)
    count = 200
    p = chance.dirichlet([1, 1, 1], count).astype("<f4")
    truth = np.array(answer.classes)[[chance.choice(3, p=row / row.sum()) for row in p.astype(float)]]
    block = PredictionBlock(
        "phishing",
        7,
        VARIANTS,
        "zoo",
        "1",
        "d1",
        [request(n) for n in range(count)],
        [],
        [Column("p", "FP32", (3,), p.tobytes())],
    )
    place.answer = answer
    place.store(block, labels(*[label(n, str(truth[n])) for n in range(count)]))
    champion = subjects(place, answer)[0]["champion"]
    answered = np.array(answer.classes)[p.argmax(axis=1)]
    assert champion["accuracy"] == pytest.approx(metrics.accuracy_score(truth, answered))
    assert champion["f1"] == pytest.approx(metrics.f1_score(truth, answered, average="macro"))
    assert champion["recall"] == pytest.approx(metrics.recall_score(truth, answered, average="macro"))
    given = [row[list(answer.classes).index(true)] for row, true in zip(p.astype(float), truth, strict=True)]
    assert champion["log_loss"] == pytest.approx(-np.mean(np.log(np.clip(given, 1e-15, 1))))
    assert champion["auc"] == pytest.approx(metrics.roc_auc_score(truth, p, multi_class="ovr"), abs=1e-6)
    low, high = champion["intervals"]["auc"]
    assert low < champion["auc"] < high
    assert sum(one["rows"] for one in champion["calibration"]) == count
    confident = [row for row in champion["worst"] if row["answer_score"] > 0.8]
    assert confident == champion["worst"][: len(confident)]


def test_a_regression_is_measured_by_its_distance(place):
    answer = Answer(kind="regression", score_output="v")
    values = np.array([1.0, 2.0, 4.0], "<f4")
    block = PredictionBlock(
        "phishing",
        7,
        VARIANTS,
        "flats",
        "1",
        "d1",
        [request(n) for n in range(3)],
        [],
        [Column("v", "FP32", (1,), values.tobytes())],
    )
    place.answer = answer
    place.store(block, labels(label(0, 1.5), label(1, 2), label(2, "3")))
    champion = subjects(place, answer)[0]["champion"]
    assert champion["mae"] == pytest.approx(0.5)
    assert champion["rmse"] == pytest.approx(np.sqrt((0.25 + 1) / 3))
    assert champion["labelled"] == 3
    assert champion["quantile_loss"]["0.9"] == pytest.approx(metrics.mean_pinball_loss([1.5, 2, 3], values, alpha=0.9))
    assert [(row["label"], row["distance"]) for row in champion["worst"]] == [("3", 1.0), ("1.5", 0.5)]


def test_measures_are_told_by_segment_and_over_time(place):
    count = 400
    truth = [n % 2 for n in range(count)]
    right = [n < 100 or n % 5 > 0 for n in range(count)]
    scores = [0.8 if is_right == (value == 1) else 0.2 for value, is_right in zip(truth, right, strict=True)]
    place.store(
        predictions([request(100 * n, rule="beta" if n < 100 else None) for n in range(count)], scores),
        shadows([100 * n for n in range(count)], ["0"] * count, ["1"] * count),
        labels(*[label(100 * n, truth[n]) for n in range(300)]),
    )
    asked = Question(endpoint="phishing", segment_by="input_x")
    told = Evidence(place.uri, lambda _: BINARY).quality(asked)
    champion, mirror = told["subjects"]
    assert [(row["n"], row["labelled"]) for row in champion["segments"]] == [(100, 100)] * 3 + [(100, 0)]
    assert [row["accuracy"] for row in champion["segments"]] == [1.0, 0.8, 0.8, None]
    assert [row["accuracy"] for row in mirror["segments"]] == [0.5, 0.5, 0.5, None]
    assert champion["segments"][0]["segment"] == "0.0 to 99.0"
    assert sum(row["n"] for row in champion["over_time"]) == count
    assert sum(row["labelled"] for row in champion["over_time"]) == 300
    in_time = champion["over_time"]
    assert (in_time[0]["accuracy"], in_time[-1]["accuracy"]) == (1.0, None)
    by_rule = Evidence(place.uri, lambda _: BINARY).quality(Question(endpoint="phishing", segment_by="rule"))
    assert {row["segment"]: row["accuracy"] for row in by_rule["subjects"][0]["segments"]} == {"beta": 1.0, None: 0.8}
    with pytest.raises(ValueError, match="no column"):
        Evidence(place.uri, lambda _: BINARY).quality(Question(endpoint="phishing", segment_by="nonsense"))


def test_a_unit_that_comes_often_makes_the_interval_no_narrower(place):
    count = 300
    scores = np.array([0.9 if n % 60 % 3 else 0.1 for n in range(count)])  # each unit is always right, or always wrong
    truth = np.ones(count, int)
    place.store(
        predictions([request(n, unit=f"u{n % 60}") for n in range(count)], scores),
        predictions([request(1000 + n) for n in range(count)], scores, version="2"),
        labels(*[label(n, int(truth[n % 1000])) for n in (*range(count), *range(1000, 1000 + count))]),
    )
    by_version = {subject["version"]: subject for subject in subjects(place)[1]["subjects"]}
    width = {version: np.ptp(subject["intervals"]["accuracy"]) for version, subject in by_version.items()}
    assert by_version["1"]["accuracy"] == by_version["2"]["accuracy"]
    assert width["1"] > 2 * width["2"]


def one(place, *rows):
    """Accuracy and labelled rows of one prediction (answered 1) under these labels, in this order."""
    place.store(predictions([request(0, request_id="r")], [0.9]), labels(*rows))
    champion = subjects(place)[0]["champion"]
    return champion["labelled"], champion["accuracy"]


def test_the_newest_label_holds_whatever_the_order_of_arrival(place):
    newest = label(0, 1, at_unix_us=9 * MINUTE_US, received=1)
    assert one(place, newest, label(0, 0, at_unix_us=5 * MINUTE_US, received=2)) == (1, 1.0)


def test_an_old_label_delivered_again_does_not_undo_a_correction(place):
    assert one(place, label(0, 0, received=1), label(0, 1, received=2), label(0, 0, received=3)) == (1, 1.0)


def test_a_retraction_takes_the_label_away_and_a_newer_one_brings_it_back(place):
    assert one(place, label(0, 1, received=1), label(0, None, received=2)) == (0, None)


def test_a_label_after_a_retraction_holds(place):
    late = label(0, 1, received=3, at_unix_us=2_000_000_000_000_000)
    assert one(place, label(0, 0, received=1), label(0, None, received=2), late) == (1, 1.0)


def test_a_label_by_request_id_applies_to_every_prediction_that_has_it(place):
    place.store(
        predictions(
            [request(0, request_id="r"), request(1, request_id="r"), request(2, request_id="s")], [0.9, 0.1, 0.9]
        ),
        labels(label(None, 1, endpoint="phishing", request_id="r"), label(None, 1, endpoint="other", request_id="s")),
    )
    champion = subjects(place)[0]["champion"]
    assert (champion["labelled"], champion["accuracy"]) == (2, 0.5)


def test_failures_count_for_the_assigned_variant(place):
    place.store(
        predictions([request(0, assigned=1, answered=-1)], None),
        predictions([request(1, assigned=1, answered=0), request(2)], [0.9, 0.9]),
    )
    found, told = subjects(place)
    assert told["failed"] == {"challenger": 2}
    assert (found["champion"]["n"], found["challenger"]["n"]) == (1, 1), "the first has no answer to measure"


def test_without_a_label_nothing_is_measured_and_nothing_is_zero(place):
    place.store(predictions([request(0)], [0.9]))
    champion = subjects(place)[0]["champion"]
    assert (champion["n"], champion["coverage"]) == (1, 0.0)
    assert {champion[name] for name in ("accuracy", "f1", "log_loss", "auc")} == {None}


def test_only_what_became_known_within_the_label_window_counts(place):
    place.store(
        predictions([request(n) for n in range(3)], [0.9, 0.9, 0.9]),
        labels(label(0, 1, received=60), label(1, 1, received=3600), label(2, 1, received=60)),
        labels(label(2, 0, received=3600)),  # a correction that comes too late corrects nothing
    )
    asked = Question(endpoint="phishing", label_window_s=600)
    (champion,) = Evidence(place.uri, lambda _: BINARY).quality(asked)["subjects"]
    assert (champion["labelled"], champion["accuracy"]) == (2, 1.0)
    (champion,) = Evidence(place.uri, lambda _: BINARY).quality(Question(endpoint="phishing"))["subjects"]
    assert (champion["labelled"], champion["accuracy"]) == (3, pytest.approx(2 / 3))


def test_how_long_labels_took_is_told_by_variant(place):
    rows = [request(n, assigned=n % 2) for n in range(20)]
    place.store(
        *[predictions([row], [0.9]) for row in rows],
        labels(*[label(n, 1, received=3600 if n % 2 else 60) for n in range(20)]),
    )
    found, _ = subjects(place)
    assert found["champion"]["label_delay_s"]["p50"] == pytest.approx(60, abs=0.1)
    assert found["challenger"]["label_delay_s"]["p99"] == pytest.approx(3600, abs=0.1)
    assert found["champion"]["last_unix_s"] < found["challenger"]["last_unix_s"]


def test_without_labels_there_is_no_delay(place):
    place.store(predictions([request(0)], [0.9]))
    found, _ = subjects(place)
    assert found["champion"]["label_delay_s"] is None


def test_a_window_of_arrival_does_not_change_what_its_labels_say(place):
    place.store(
        predictions([request(n * 1000) for n in range(10)], [0.9] * 10),
        labels(*[label(n * 1000, 1) for n in range(10)]),
    )
    since = START_UNIX_US / 1e6 + 5
    asked = Question(endpoint="phishing", since_unix_s=since, until_unix_s=since + 2)
    (champion,) = Evidence(place.uri, lambda _: BINARY).quality(asked)["subjects"]
    assert (champion["n"], champion["labelled"]) == (2, 2)


def by_name(place, **asked):
    told = Evidence(place.uri, lambda _: BINARY).quality(Question(endpoint="phishing", **asked))
    return {(subject["name"], subject["version"]): subject for subject in told["subjects"]}, told


def test_by_assignment_what_another_took_over_is_the_assigned_variants_and_by_who_answered_it_is_the_others(place):
    """The challenger fails at what is hard; the champion answers that, half of it wrong."""
    easy = predictions([request(n, assigned=1) for n in range(6)], [0.9] * 6, version="2")
    hard = predictions(
        [request(10 + n, assigned=1, answered=0) for n in range(4)], [0.9, 0.9, 0.1, 0.1], fallback_of="challenger"
    )
    own = predictions([request(20 + n) for n in range(5)], [0.9] * 5)
    place.store(easy, hard, own, labels(*[label(n, 1) for n in (*range(6), *range(10, 14), *range(20, 25))]))
    assigned, told = by_name(place)
    assert told["by"] == "assigned"
    assert {who: (one["n"], one["accuracy"]) for who, one in assigned.items()} == {
        ("challenger", "2"): (10, 0.8),
        ("champion", "1"): (5, 1.0),
    }
    answered, _ = by_name(place, by="answered")
    assert {who: (one["n"], one["accuracy"]) for who, one in answered.items()} == {
        ("challenger", "2"): (6, 1.0),
        ("champion", "1"): (9, pytest.approx(7 / 9)),
    }
    assert told["failed"] == {"challenger": 4}


def test_a_variant_that_never_answered_itself_is_of_no_version(place):
    place.store(predictions([request(0, assigned=1, answered=0)], [0.9], fallback_of="challenger"), labels(label(0, 1)))
    assert list(by_name(place)[0]) == [("challenger", "unknown")]


def test_pinned_and_ruled_requests_are_left_out_by_assignment_and_counted(place):
    ways = [
        (0, True),
        (0, False),
        (1, True),
        (1, False),
        (2, False),
    ]  # drawn, also without a unit; ruled, in experiments or not; pinned
    requests = [request(n, assigned_by=by, experiment=tested) for n, (by, tested) in enumerate(ways)]
    place.store(predictions(requests, [0.9] * 5), labels(*[label(n, 1) for n in range(5)]))
    assigned, told = by_name(place)
    assert (assigned["champion", "1"]["n"], told["left_out"]) == (3, {"pin": 1, "rule": 1})
    answered, told = by_name(place, by="answered")
    assert (answered["champion", "1"]["n"], told["left_out"]) == (5, {})


def test_there_is_no_third_way_to_part_the_rows(place):
    with pytest.raises(ValueError, match=r"by: wanted assigned or answered, got 'variant'"):
        by_name(place, by="variant")


def test_labels_that_are_of_no_row_are_counted(place):
    place.store(
        predictions([request(0, rows=2), request(1)], [0.9] * 3), labels(label(0, 1), label(1, 1), label(1, 1, row=4))
    )
    found, told = by_name(place)
    assert told["labels_unused"] == {"row_missing": 1, "row_unknown": 1}
    assert found["champion", "1"]["labelled"] == 1


@pytest.mark.parametrize("first", ["FP32", "scalar"])
def test_probabilities_of_another_type_than_the_columns_first_are_measured_too(place, first):
    """Columns are shared by all endpoints, and by the versions of one."""
    answer = Answer(kind="classification", score_output="p", classes=("cat", "dog", "eel"))
    p = np.full((3, 3), 0.2) + 0.4 * np.eye(3)
    place.answer = answer
    told = [request(n) for n in range(3)]
    if first == "FP32":
        old = Column("p", "FP32", (3,), p.astype("<f4").tobytes())
    else:
        old = Column("p", "FP32", (), p[:, 0].astype("<f4").tobytes())
    elder = PredictionBlock("phishing", 6, VARIANTS, "zoo", "1", "d0", [request(100)], [], [old_row(old)])
    newer = PredictionBlock(
        "phishing", 7, VARIANTS, "zoo", "2", "d1", told, [], [Column("p", "FP64", (3,), p.astype("<f8").tobytes())]
    )
    place.store(elder, writer="older")
    place.store(newer, labels(*[label(n, answer.classes[n]) for n in range(3)]))
    evidence = Evidence(place.uri, lambda _: answer)
    champion = {one["version"]: one for one in evidence.quality(Question(endpoint="phishing"))["subjects"]}["2"]
    assert champion["log_loss"] == pytest.approx(-np.log(0.6))
    assert champion["auc"] == 1.0
    assert champion["brier"] == pytest.approx(0.24)


def old_row(column):
    """The first row of a column."""
    size = len(column.data) // 3
    return Column(column.name, column.datatype, column.tail, column.data[:size])


DAY_MS = 86_400_000


def days(seed):
    """Four days of two endpoints: corrections, retractions, labels by request id and days late, a day delivered twice."""
    chance, told = random.Random(seed), []
    for day in range(4):
        numbers = [day * DAY_MS + chance.randrange(DAY_MS) for _ in range(40)]
        blocks = []
        for endpoint in ("phishing", "spam"):
            scores = [chance.random() for _ in numbers]
            asked = [request(n, unit=f"u{n % 9}", request_id=f"r{n % 50}") for n in numbers]
            blocks.append(predictions(asked, scores, endpoint=endpoint, version=str(day // 2)))
            answers = [str(int(score > 0.5)) for score in scores]
            blocks.append(shadows(numbers, answers, ["1"] * len(numbers), scores=scores, endpoint=endpoint))
        said = [label(n, chance.choice([0, 1, None]), received=chance.randrange(5 * 86_400)) for n in numbers * 2]
        said += [
            label(None, 1, received=day * 86_400, endpoint="phishing", request_id=f"r{n}") for n in range(0, 50, 7)
        ]
        told += [*blocks, labels(*said)]
    return told + told[:5]


@pytest.mark.parametrize("seed", range(2))
def test_the_files_that_a_window_needs_give_what_all_rows_in_memory_give(tmp_path, seed):
    """Files are passed over by endpoint, day and id: whole tables without any file are the control."""
    place = Place(tmp_path)
    for at, block in enumerate(days(seed)):
        place.store(block, writer=f"worker-{at}")
    names = ("predictions", "shadows", "labels")
    whole = Queries(place.uri, instead={name: DeltaTable(f"{place.uri}/{name}").to_pyarrow_table() for name in names})
    spilling = Queries(place.uri, spill=tmp_path / "spill")
    start = START_UNIX_US / 1e6
    for by in ("answered", "assigned"):
        for since in (None, start, start + 1.5 * 86_400, start + 3.2 * 86_400):
            for one_in in (1, 4):
                asked = Question(
                    endpoint="phishing", by=by, since_unix_s=since, until_unix_s=start + 3.9 * 86_400, one_in=one_in
                )
                of_files = quality(spilling, asked, lambda _: BINARY)
                assert rounded(of_files) == rounded(quality(whole, asked, lambda _: BINARY))
                assert of_files["subjects"]
                spilling.give_back()


def rounded(told):
    """Sums of floats know an order in their last bits."""
    if isinstance(told, dict):
        return {name: rounded(value) for name, value in told.items()}
    if isinstance(told, list | tuple):
        return [rounded(value) for value in told]
    return float(f"{told:.9g}") if isinstance(told, float) else told


def test_one_prediction_in_so_many_is_looked_at_with_its_mirrors_and_labels(place):
    count = 2000
    chance = np.random.default_rng(8)
    p = chance.random(count)
    place.store(
        predictions([request(n) for n in range(count)], p),
        shadows(list(range(count)), ["0"] * count, ["1"] * count),
        labels(*[label(n, int(p[n] > 0.7)) for n in range(0, count, 2)]),
    )
    whole, half, quarter = (
        Evidence(place.uri, lambda _: BINARY).quality(Question(endpoint="phishing", one_in=one_in))["subjects"]
        for one_in in (1, 2, 4)
    )
    assert [one["n"] for one in whole] == [count] * 2
    assert [one["n"] for one in half] == pytest.approx([count / 2] * 2, rel=0.1)
    assert [one["n"] for one in quarter] == pytest.approx([count / 4] * 2, rel=0.2)
    for drawn in (half, quarter):
        live, mirror = drawn
        assert live["n"] == mirror["n"]
        assert live["labelled"] == mirror["labelled"]
        assert live["coverage"] == pytest.approx(0.5, abs=0.07)
        assert live["accuracy"] == pytest.approx(whole[0]["accuracy"], abs=0.07)
