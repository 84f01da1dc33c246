import math
import re
from functools import partial
from itertools import takewhile

import pytest

from gateway.commands.evidence import show_ledger, show_prediction, show_quality
from gateway.evidence import ledger, quality
from gateway.evidence.evidence import Evidence
from tests.kit.spooled import BINARY, START_UNIX_US, Place, label, labels, pid_text, predictions, request, shadows

SUBJECT = {"role": "variant", "name": "champion", "model": "m", "version": "1", "n": 4, "labelled": 1, "coverage": 0.25}


@pytest.fixture
def shown(capsys):
    def text(show, reply):
        show(reply)
        return capsys.readouterr().out

    return text


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """Four predictions with shadows that differ at one; one label that came two hours later."""
    place = Place(tmp_path_factory.mktemp("lake"))
    place.store(
        predictions([request(n) for n in range(4)], [0.9, 0.2, 0.8, 0.1]),
        shadows([0, 1, 2, 3], ["1", "0", "1", "0"], ["1", "0", "0", "0"], live_scores=[0.5] * 4, scores=[0.25] * 4),
        labels(label(0, 1, received=7200)),
    )
    return Evidence(place.uri, lambda _: BINARY)


def table(text, title):
    """The rows below a title, by the names above them; cells are told apart by the places of their columns."""
    lines = text.splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith(title))
    starts = [found.start() for found in re.finditer(r"(?:(?<=  )|^)\S", lines[at + 1])]
    names, *rows = [
        [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        for line in takewhile(lambda line: re.match(r" ?\S", line), lines[at + 1 :])
    ]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_ledger_has_a_line_a_mirror_and_names_what_flipped(shown, evidence):
    text = shown(show_ledger, evidence.ledger(ledger.Question(endpoint="phishing", champion="champion")))
    (line,) = table(text, "phishing: mirrors against champion")
    told = {"mirror": "candidate", "model": "phishing/2", "against": "phishing/1", "rows": "4", "agreement": "75.00%"}
    assert told.items() <= line.items()
    assert line["from"] == line["until"] == "2026-09-21 14:13:20"
    flip = {"mirror": "candidate", "production": "1", "mirror answered": "0", "rows": "1"}
    assert table(text, "flips") == [flip]


def test_what_was_dropped_is_told_by_reason_with_its_share(shown):
    dropped = {"drawn": 200, "dropped": {"late": 3, "error": 1}, "dropped_share": 0.02}
    mirror = {"mirror": "m", "rows": 196, "agreement": 0.5, "evidence": {"because": "why not"}, **dropped}
    text = shown(show_ledger, {"endpoint": "e", "champion": "c", "mirrors": [mirror]})
    (line,) = table(text, "e: mirrors against c")
    assert (line["drawn"], line["dropped"], line["dropped share"]) == ("200", "late 3, error 1", "2.00%")
    assert "  m: why not" in text


def test_a_segment_is_a_line_of_its_own(shown, evidence):
    question = ledger.Question(endpoint="phishing", segment_by="answer_label")
    text = shown(show_ledger, evidence.ledger(question))
    assert "candidate by segment" in text


def test_without_a_mirror_the_ledger_says_how_to_get_one(shown):
    text = shown(show_ledger, {"endpoint": "spam", "champion": "champion", "mirrors": []})
    assert "runoff mirror spam candidate" in text


def test_quality_has_coverage_and_delay_in_units_that_people_read(shown, evidence):
    text = shown(show_quality, evidence.quality(quality.Question(endpoint="phishing")))
    assert "phishing: classification, positive class 1" in text
    (line,) = [line for line in text.splitlines() if line.startswith("live")]
    assert line.split()[:7] == ["live", "champion", "phishing", "1", "4", "1", "25.00%"]
    assert "2.0 h" in line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0 s"), (59.9, "59.9 s"), (60, "1.0 min"), (-7200, "-2.0 h"), (129_600, "1.5 d")]
)
def test_a_delay_is_told_in_the_largest_unit_that_it_fills(shown, seconds, text):
    subject = SUBJECT | {"label_delay_s": {"p50": seconds, "p99": seconds}, "accuracy": 1.0}
    assert text in shown(show_quality, {"endpoint": "e", "kind": "classification", "subjects": [subject]})


def test_a_measure_that_nobody_has_is_no_column(shown):
    subjects = [SUBJECT | {"label_delay_s": None, "auc": None, "accuracy": accuracy} for accuracy in (None, 0.5)]
    text = shown(show_quality, {"endpoint": "e", "kind": "classification", "subjects": subjects})
    assert "accuracy" in text
    assert "auc" not in text


def test_without_predictions_quality_says_so(shown):
    assert "no predictions are stored" in shown(show_quality, {"endpoint": "e", "kind": "regression", "subjects": []})


def test_a_prediction_is_shown_with_rows_shadows_and_labels(shown, evidence):
    text = shown(show_prediction, evidence.prediction(pid_text(0)))
    assert text.startswith(f"prediction {pid_text(0)}")
    assert "  variant  champion" in text
    assert [word for word in ("rows", "shadows", "labels") if f"\n{word}" not in text] == []
    assert "candidate" in text
    assert "trace_id" not in text, "what is not known is left out"


def test_a_prediction_without_a_record_says_so_and_shows_what_there_is(shown, tmp_path):
    place = Place(tmp_path)
    place.store(labels(label(5, "spam", at_unix_us=START_UNIX_US)))
    text = shown(show_prediction, Evidence(place.uri, lambda _: None).prediction(pid_text(5)))
    assert "no record" in text
    assert "spam" in text


def test_a_measure_is_shown_with_its_interval_and_segments_below(shown, tmp_path):
    count, place = 200, Place(tmp_path)
    scores = [0.9 if n % 4 else 0.1 for n in range(count)]
    place.store(predictions([request(n) for n in range(count)], scores), labels(*[label(n, 1) for n in range(count)]))
    told = Evidence(place.uri, lambda _: BINARY).quality(quality.Question(endpoint="phishing", segment_by="input_x"))
    text = shown(show_quality, told)
    low, high = told["subjects"][0]["intervals"]["accuracy"]
    assert table(text, "95% intervals")[0]["accuracy"] == f"{low:.4g} to {high:.4g}"
    assert table(text, "champion 1 by input_x")[0]["segment"] == "0.0 to 49.0"
    ((measure, (low, high)), *_) = told["subjects"][0]["segments"][0]["intervals"].items()
    details = table(shown(partial(show_quality, details=True), told), "champion 1 by input_x, 95% intervals")
    assert details[0]["segment"] == "0.0 to 49.0"
    assert details[0][measure.replace("_", " ")] == f"{low:.4g} to {high:.4g}"


def test_the_ledger_says_how_sure_it_is_where_scores_differ_and_when(shown, tmp_path):
    place, count = Place(tmp_path), 60
    place.store(
        predictions([request(n) for n in range(count)], [0.9] * count),
        shadows(list(range(count)), ["1"] * count, ["0"] * count, live_scores=[0.9] * count, scores=[0.25] * count),
        labels(*[label(n, 0) for n in range(count)]),
    )
    question = ledger.Question(endpoint="phishing", champion="champion", exogenous=True)
    (mirror,) = Evidence(place.uri, lambda _: BINARY).ledger(question)["mirrors"]
    text = shown(show_ledger, {"endpoint": "phishing", "champion": "champion", "mirrors": [mirror]})
    (scores,) = table(text, "scores: the mirror's less production's")
    assert {scores[name] for name in ("mean", "least", "1%", "50%", "99%", "most")} == {"-0.65"}
    assert scores["mean absolute"] == "0.65"
    (sure,) = table(text, "evidence on labelled pairs")
    e_value = f"{math.exp(mirror['evidence']['log_e']):.4g}"
    told = {"test": "sequential_mcnemar", "units": "60", "difference": "1", "e-value": e_value, "wins": "60"}
    assert told.items() <= sure.items()
    worst = table(text, "rows furthest off (7 more with --details)")
    assert len(worst) == 3
    assert (worst[0]["prediction id"], worst[0]["production"], worst[0]["mirror answered"]) == (
        pid_text(0),
        "1 (0.9)",
        "0 (0.25)",
    )
    details = shown(partial(show_ledger, details=True), {"endpoint": "e", "champion": "c", "mirrors": [mirror]})
    assert len(table(details, "rows furthest off")) == 10
    assert table(details, "over time")[0]["mean absolute difference"] == "0.65"


def test_an_e_value_beyond_any_number_is_told_as_such(shown):
    mirror = {
        "mirror": "m",
        "rows": 1,
        "agreement": 0.5,
        "dropped": {},
        "evidence": {"log_e": 1e4, "units": 9, "test": "t"},
    }
    text = shown(show_ledger, {"endpoint": "e", "champion": "c", "mirrors": [mirror]})
    assert table(text, "evidence")[0]["e-value"] == "over 1e300"


def test_quality_says_how_calibrated_it_is_where_it_was_wrong_and_how_it_went(shown, tmp_path):
    place = Place(tmp_path)
    place.store(
        predictions([request(n) for n in range(40)], [0.9] * 40), labels(*[label(n, int(n > 9)) for n in range(40)])
    )
    told = Evidence(place.uri, lambda _: BINARY).quality(quality.Question(endpoint="phishing", label_window_s=86_400))
    text = shown(show_quality, told)
    assert "phishing: classification, positive class 1, by assignment, labels within 1.0 d" in text
    assert table(text, "calibration") == [{"score": "0.8 to 0.9", "champion 1": "0.9 → 0.75 (40)"}]
    worst = table(text, "most wrong (7 more with --details)")
    assert [row["prediction id"] for row in worst] == [pid_text(n) for n in range(3)]
    assert (worst[0]["label"], worst[0]["answered"], worst[0]["distance"]) == ("0", "1 (0.9)", "0.9")
    details = shown(partial(show_quality, details=True), told)
    assert len(table(details, "most wrong")) == 10
    (span,) = table(details, "over time")
    assert (span["from"], span["n"], span["labelled"], span["accuracy"]) == ("2026-09-21 14:13:20", "40", "40", "0.75")


def test_a_measure_over_time_is_one_line_and_with_details_one_a_span(shown):
    spans = [{"unix_s": at * 3600.0, "n": 9, "labelled": 3, "accuracy": value} for at, value in ((1, 0.5), (2, None))]
    reply = {"endpoint": "e", "kind": "classification", "subjects": [SUBJECT | {"over_time": spans}]}
    assert "  champion 1: accuracy from 1970-01-01 01:00:00 in 2 spans: 0.5 –" in shown(show_quality, reply)
    details = table(shown(partial(show_quality, details=True), reply), "over time")
    assert [row["from"] for row in details] == ["1970-01-01 01:00:00", "1970-01-01 02:00:00"]


def test_calibration_of_several_is_side_by_side_by_tenths(shown):
    tenths = [{"from": 0.1 * at, "rows": at, "mean_score": 0.1 * at, "share": 0.5} for at in (1, 9)]
    subjects = [SUBJECT | {"calibration": tenths}, SUBJECT | {"name": "other", "calibration": tenths[1:]}]
    rows = table(shown(show_quality, {"endpoint": "e", "kind": "classification", "subjects": subjects}), "calibration")
    assert rows == [
        {"score": "0.1 to 0.2", "champion 1": "0.1 → 0.5 (1)", "other 1": ""},
        {"score": "0.9 to 1.0", "champion 1": "0.9 → 0.5 (9)", "other 1": "0.9 → 0.5 (9)"},
    ]


def test_a_regressions_quantile_losses_are_told(shown):
    subject = SUBJECT | {"quantile_loss": {"0.1": 0.25, "0.5": 0.5}}
    text = shown(show_quality, {"endpoint": "e", "kind": "regression", "subjects": [subject]})
    (row,) = table(text, "quantile loss")
    assert (row["name"], row["0.1"], row["0.5"]) == ("champion", "0.25", "0.5")


def test_quality_says_what_is_in_no_figure(shown):
    reply = {
        "endpoint": "e", "kind": "classification", "subjects": [SUBJECT], "by": "assigned", "failed": {"challenger": 3},
        "left_out": {"pin": 2}, "labels_unused": {"row_missing": 4},
    }  # fmt: skip
    text = shown(show_quality, reply)
    assert "by assignment" in text
    assert "  left out, for nobody drew them: 2 by pin; --by answered has them" in text
    assert "  failed, or answered by another: challenger 3" in text
    assert "  labels that are of no row, and not used: 4 row_missing" in text
