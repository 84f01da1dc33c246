import random
from itertools import pairwise

import numpy as np
import pytest
from deltalake import DeltaTable

from gateway.evidence.evidence import Evidence
from gateway.evidence.ledger import Question
from routing.experiments.betting import LossTest
from routing.experiments.mcnemar import McNemar
from routing.experiments.pairing import Entry, PairedRow, Pairing, is_right
from tests.kit.spooled import BINARY, Place, label, labels, pid_text, predictions, request, shadows

MARK = {"endpoint": "phishing"}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def evidence(place):
    return Evidence(place.uri, lambda _: BINARY)


def only(evidence, **fields):
    (mirror,) = evidence.ledger(Question(**{**MARK, **fields}))["mirrors"]
    return mirror


def test_agreement_flips_differences_and_drops(place, evidence):
    place.store(
        shadows(
            [0, 1, 2, 3],
            ["0", "1", "1", "0"],
            ["0", "1", "0", "0"],
            live_scores=[0.1, 0.9, 0.8, 0.2],
            scores=[0.1, 0.8, 0.1, 0.4],
        ),
        shadows([4, 5], [None, None], [None, None], outcome="expired"),
    )
    told = only(evidence)
    assert (told["drawn"], told["rows"], told["agreement"]) == (6, 4, 0.75)
    assert told["dropped"] == {"expired": 2}
    assert told["dropped_share"] == pytest.approx(1 / 3)
    assert told["flips"] == [{"live": "1", "mirror": "0", "rows": 1}]
    assert told["score_difference"]["mean"] == pytest.approx((-0.1 - 0.7 + 0.2) / 4)
    assert told["score_difference"]["quantiles"]["0.5"] == pytest.approx(-0.05)
    assert [row["prediction_id"] for row in told["worst"]] == [pid_text(2), pid_text(3), pid_text(1)]
    assert told["against"] == {"model": "phishing", "version": "1"}
    assert told["lag_s"]["p50"] == pytest.approx(0.0009)


def test_without_exogenous_labels_only_agreement_is_told(place, evidence):
    place.store(shadows([0], ["0"], ["1"]), labels(label(0, 1)))
    assert only(evidence)["evidence"]["verdict"] == "agreement_only"
    assert "p_value" not in only(evidence)["evidence"]


def test_the_same_pair_delivered_twice_counts_once(place, evidence):
    place.store(shadows([0, 1], ["0", "1"], ["0", "0"]), writer="shadow-1")
    place.store(shadows([0, 1], ["0", "1"], ["0", "0"]), writer="shadow-2")
    assert only(evidence)["rows"] == 2


def test_a_champion_asked_for_leaves_out_what_others_answered(place, evidence):
    place.store(shadows([0, 1], ["0", "1"], ["0", "0"]))
    assert only(evidence, champion="champion")["rows"] == 2
    assert evidence.ledger(Question(endpoint="phishing", champion="challenger"))["mirrors"] == []


def test_segments_are_values_or_quartiles(place, evidence):
    count = 40
    place.store(
        predictions([request(n) for n in range(count)], [0.5] * count),
        shadows(list(range(count)), ["1"] * count, ["1" if n < 10 else "0" for n in range(count)]),
    )
    quarters = only(evidence, segment_by="input_x")["segments"]
    assert [(row["rows"], row["agreement"]) for row in quarters] == [(10, 1.0), (10, 0.0), (10, 0.0), (10, 0.0)]
    assert only(evidence, segment_by="variant")["segments"][0]["segment"] == "champion"
    with pytest.raises(ValueError, match="no column"):
        evidence.ledger(Question(endpoint="phishing", segment_by="x; DROP TABLE"))


def world(seed, units):
    """Pairs and labels of a candidate that is better, with repeated units, duplicates, corrections and retractions."""
    chance = random.Random(seed)
    numbers = list(range(400))
    truth = [str(chance.randrange(2)) for _ in numbers]
    wrong = lambda share, value: value if chance.random() > share else str(1 - int(value))
    live = [wrong(0.3, value) for value in truth]
    mirror = [wrong(0.08, value) for value in truth]
    unit = [f"{chance.randrange(units):032x}" if units else None for _ in numbers]
    rows = []
    for n in chance.sample(numbers, 350):
        rows.append(label(n, int(truth[n]), received=n))
        if chance.random() < 0.2:
            rows.append(label(n, int(truth[n]), received=n))
        if chance.random() < 0.1:
            rows.append(label(n, 1 - int(truth[n]), received=n + 1, at_unix_us=1_800_000_000_000_000))
        if chance.random() < 0.1:
            rows.insert(0, label(n, None, received=n))
    return shadows(numbers, live, mirror, units=unit), rows


def recomputed(place, keys_in_use=False):
    """The test from the lake by other means: plain Python over both tables, row by row in the order in which both were there."""
    table = lambda name: DeltaTable(f"{place.uri}/{name}").to_pyarrow_dataset().to_table().to_pylist()
    pairs = {row["prediction_id"]: row for row in table("shadows")}
    pairing, state, entered = Pairing(keys_in_use=keys_in_use), McNemar(), 0
    both = [(row, pairs[row["prediction_id"]]) for row in table("labels") if row["prediction_id"] in pairs]
    for row, pair in sorted(both, key=lambda both: (max(one["sequence"] for one in both), both[0]["sequence"])):
        paired = PairedRow(
            prediction_id=bytes.fromhex(row["prediction_id"].replace("-", "")),
            unit=pair["unit"],
            experiment=pair["experiment"],
            unit_missing=False,
            label=None if row["retracted"] else row["label_text"],
            champion_label=pair["live_label"],
            candidate_label=pair["answer_label"],
            keyed=row["keyed"],
        )
        if pairing.admit(paired) is Entry.ENTERED:
            entered += 1
            truth = row["label_text"]
            state = state.observe(
                champion_is_right=is_right(truth, pair["live_label"]),
                candidate_is_right=is_right(truth, pair["answer_label"]),
            )
    return state, entered


@pytest.mark.parametrize("units", [0, 40, 150])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_sequential_test_equals_its_recomputation_from_the_lake(place, evidence, seed, units):
    pairs, rows = world(seed, units)
    place.store(pairs, labels(*rows))
    told = only(evidence, exogenous=True)["evidence"]
    state, entered = recomputed(place)
    assert (told["wins"], told["losses"], told["ties"], told["units"]) == (
        state.wins,
        state.losses,
        state.ties,
        entered,
    )
    assert told["p_value"] == pytest.approx(state.p_value, rel=1e-12)
    assert told["p_better"] == pytest.approx(state.p_better, rel=1e-12)
    assert told["verdict"] == state.verdict.value
    if not units:
        assert told["verdict"] == "better"
        assert 400 < told["decided_at_sequence"] <= 400 + len(rows)


def test_a_pair_that_comes_after_its_label_never_enters_before_what_was_seen(place, evidence):
    """Labels of all rows come first, the pairs in two parts: the outcomes of the first part stay in front."""
    pairs, rows = world(5, 0)
    place.store(labels(*rows), writer="worker-1")
    numbers = list(range(400))
    live, mirror = pairs.live_labels, pairs.labels
    first = evidence_of_part = None
    for name, part in (("shadow-1", numbers[200:]), ("shadow-2", numbers[:200])):
        place.store(shadows(part, [live[n] for n in part], [mirror[n] for n in part]), writer=name)
        evidence_of_part = only(evidence, exogenous=True)["evidence"]
        first = first or evidence_of_part
    state, entered = recomputed(place)
    assert (evidence_of_part["units"], evidence_of_part["p_value"]) == (entered, pytest.approx(state.p_value))
    assert evidence_of_part["p_value"] <= first["p_value"]
    if first["decided_at_sequence"] is not None:
        assert evidence_of_part["decided_at_sequence"] == first["decided_at_sequence"]


def test_looking_after_every_commit_gives_what_one_look_at_the_end_gives(place, evidence):
    pairs, rows = world(3, 150)
    place.store(pairs, writer="shadow-1")
    looks = []
    for at, (start, stop) in enumerate(pairwise(np.linspace(0, len(rows), 6).astype(int).tolist())):
        place.store(labels(*rows[start:stop]), writer=f"worker-{at}")
        looks.append(only(evidence, exogenous=True)["evidence"])
    assert looks[-1] == only(Evidence(place.uri, lambda _: BINARY), exogenous=True)["evidence"]
    assert [look["units"] for look in looks] == sorted(look["units"] for look in looks)


def test_redelivered_labels_change_nothing(place, evidence):
    pairs, rows = world(4, 0)
    place.store(pairs, labels(*rows), writer="worker-1")
    before = only(evidence, exogenous=True)["evidence"]
    place.store(labels(*rows), labels(*reversed(rows)), writer="worker-2")
    assert only(evidence, exogenous=True)["evidence"] == before


def test_labels_without_a_key_do_not_count_where_keys_are_in_use(place, evidence):
    place.store(shadows([0, 1], ["0", "0"], ["1", "1"]), labels(label(0, 1), label(1, 1, keyed=True)))
    assert only(evidence, exogenous=True, keys_in_use=True)["evidence"]["units"] == 1
    assert only(evidence, exogenous=True)["evidence"]["units"] == 2


def test_what_stands_outside_the_experiment_does_not_enter(place, evidence):
    place.store(shadows([0], ["0"], ["1"], experiment=False), labels(label(0, 1)))
    told = only(evidence, exogenous=True)["evidence"]
    assert (told["units"], told["verdict"]) == (0, "inconclusive")


def test_a_label_by_request_id_reaches_the_pair(place, evidence):
    place.store(
        labels(label(None, True, endpoint="phishing", request_id="r-1")),
        predictions([request(0, request_id="r-1")], [0.1]),
        shadows([0], ["0"], ["1"]),
    )
    told = only(evidence, exogenous=True)["evidence"]
    assert (told["wins"], told["losses"]) == (1, 0)


def test_labels_beyond_the_window_do_not_enter_a_test(place, evidence):
    place.store(
        predictions([request(n) for n in range(4)], [0.9] * 4),
        shadows([0, 1, 2, 3], ["1"] * 4, ["0"] * 4),
        labels(*[label(n, 0, received=60 if n < 3 else 7200) for n in range(4)]),
    )
    assert only(evidence, exogenous=True)["evidence"]["units"] == 4
    assert only(evidence, exogenous=True, label_window_s=3600.0)["evidence"]["units"] == 3


def regressions(count, seed, widths, **fields):
    """Pairs of a regression whose errors have these widths, and the truth of each row."""
    chance = np.random.default_rng(seed)
    truth = chance.normal(10, 3, count)
    live, mirror = (truth + chance.normal(0, width, count) for width in widths)
    nothing = [None] * count
    pairs = shadows(list(range(count)), nothing, nothing, live_scores=live.tolist(), scores=mirror.tolist(), **fields)
    return pairs, truth, live, mirror


@pytest.mark.parametrize(
    ("widths", "verdict"), [((1.0, 0.5), "better"), ((0.5, 1.0), "worse"), ((1.0, 1.0), "inconclusive")]
)
def test_regressions_are_compared_by_their_losses(place, evidence, widths, verdict):
    pairs, truth, live, mirror = regressions(600, 3, widths)
    place.store(pairs, labels(*[label(n, float(truth[n])) for n in range(600)]))
    told = only(evidence, exogenous=True)["evidence"]
    assert (told["test"], told["units"], told["verdict"]) == ("betting_on_losses", 600, verdict)
    assert told["live_loss"] == pytest.approx(np.mean(np.abs(live - truth)))
    assert told["mirror_loss"] == pytest.approx(np.mean(np.abs(mirror - truth)))
    state = LossTest()
    for y, a, b in zip(truth, live, mirror, strict=True):
        state = state.observe(champion_loss=abs(y - a), candidate_loss=abs(y - b))
    assert told["p_value"] == pytest.approx(state.p_value, rel=1e-9)


def test_looks_in_between_and_repeated_units_leave_the_test_of_losses_as_it_is(place, evidence):
    units = [f"{n % 70:032x}" for n in range(300)]
    pairs, truth, _, _ = regressions(300, 4, (1.0, 0.4), units=units)
    place.store(pairs, writer="shadow-1")
    for at, (start, stop) in enumerate(pairwise((0, 40, 40, 130, 300))):
        rows = [label(n, float(truth[n])) for n in range(start, stop)]
        if rows:
            place.store(labels(*rows), labels(*rows), writer=f"worker-{at}")
        looked = only(evidence, exogenous=True)["evidence"]
    assert looked["units"] == 70
    assert looked == only(Evidence(place.uri, lambda _: BINARY), exogenous=True)["evidence"]


def test_a_first_label_that_is_no_number_is_no_truth_of_a_regression(place, evidence):
    pairs, _, _, _ = regressions(2, 5, (1.0, 1.0))
    place.store(pairs, labels(label(0, "unknown"), label(1, 3.0)), labels(label(0, 4.0, received=5)))
    assert only(evidence, exogenous=True)["evidence"]["units"] == 1


@pytest.mark.parametrize(("dropped", "verdict"), [(2, "better"), (3, "inconclusive")])
def test_a_verdict_is_none_where_more_than_one_in_a_hundred_drawn_rows_was_dropped(place, evidence, dropped, verdict):
    count = 200
    numbers = list(range(count))
    lost = list(range(1, dropped + 1))
    answered = [n for n in numbers if n not in lost]
    nothing = [None] * dropped
    place.store(
        shadows(answered, ["0"] * len(answered), ["1"] * len(answered)),
        shadows(lost, nothing, nothing, outcome="governor"),
        labels(*[label(n, 1) for n in answered]),
    )
    told = only(evidence, exogenous=True)["evidence"]
    assert (told["verdict"], told["p_better"] < 1e-6, told["decided_at_sequence"] > 0) == (verdict, True, True)
    if verdict == "inconclusive":
        assert (
            told["because"]
            == "better on what was answered, but 1.5% of what was drawn meanwhile was dropped (at most 1%)"
        )


def test_what_an_earlier_version_dropped_is_not_held_against_the_present_one(place, evidence):
    nothing = [None] * 50
    answered = list(range(50, 150))
    place.store(
        shadows(list(range(50)), nothing, nothing, outcome="model_failed"),
        shadows(answered, ["0"] * 100, ["1"] * 100),
        labels(*[label(n, 1) for n in answered]),
    )
    assert only(evidence, exogenous=True)["evidence"]["verdict"] == "better"
