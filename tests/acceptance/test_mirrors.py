"""Eight candidates see every row that was served, over both protocols: nothing is missing, nothing is there twice, and each pair is right."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, infer_call, route, rpc_request

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

CANDIDATES = 8
REQUESTS = 150


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """Name → path; each weighs the columns in its own way, so that they disagree with production on different rows."""
    folder = tmp_path_factory.mktemp("candidates")
    weights = {f"candidate-{n}": (1.0, 1.0 + n / 4, 1.0 - n / 8, 0.5 * n) for n in range(CANDIDATES)}
    return {name: files.binary(folder / f"{name}.onnx", *values) for name, values in weights.items()}


@pytest.fixture(scope="module")
def served(tmp_path_factory, candidates):
    """A gateway that has answered requests of one to three rows over REST and gRPC, and whose lake has everything."""
    folder = tmp_path_factory.mktemp("mirrors")
    random = np.random.default_rng(7)
    with Gateway(folder) as gateway:
        champion = files.binary(folder / "champion.onnx")
        gateway.apply(route("phishing", ("champion", champion, 1), mirrors=candidates))
        rows: dict[str, int] = {}
        with gateway.channel() as channel:
            call = infer_call(channel)
            for number in range(REQUESTS):
                values = random.normal(size=(number % 3 + 1, files.COLUMNS)).astype(np.float32)
                if number % 2:
                    prediction_id = (
                        call(rpc_request("phishing", values), timeout=20).parameters["prediction_id"].string_param
                    )
                else:
                    prediction_id = gateway.infer("phishing", values).headers["x-prediction-id"]
                rows[prediction_id] = len(values)
        gateway.stored("predictions", sum(rows.values()))
        gateway.stored("shadows", CANDIDATES * sum(rows.values()), 60)
        yield gateway, rows


def test_recorded_plus_dropped_is_sampled_for_every_mirror_in_lake_and_metrics(served, candidates):
    gateway, rows = served
    for name in candidates:
        counted = "SELECT outcome, count(DISTINCT prediction_id) FROM shadows WHERE mirror = ? GROUP BY 1"
        outcomes = dict(gateway.lake(counted, name))
        assert sum(outcomes.values()) == len(rows)
        seen = gateway.lake("SELECT prediction_id, row FROM shadows WHERE mirror = ?", name)
        assert sorted(seen) == sorted((one, row) for one, count in rows.items() for row in range(count))
        for outcome, count in outcomes.items():
            assert gateway.metric("runoff_mirrored_total", endpoint="phishing", variant=name, outcome=outcome) == count
        assert gateway.metric("runoff_mirrored_total", endpoint="phishing", variant=name) == len(rows)


def offline(path: str, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of a candidate's own file on these rows."""
    label, probabilities = onnxruntime.InferenceSession(path).run(["label", "probabilities"], {"x": inputs})
    return label, probabilities[:, 1]


def test_every_pair_is_what_an_offline_run_of_the_candidate_says(served, candidates):
    gateway, _ = served
    for name, path in candidates.items():
        pairs = gateway.lake(
            "SELECT p.input_x, s.answer_label, s.answer_score, s.live_label, p.answer_label FROM shadows s"
            " JOIN predictions p USING (prediction_id, row) WHERE s.mirror = ? AND s.outcome = 'recorded'",
            name,
        )
        inputs = np.array([pair[0] for pair in pairs], np.float32)
        labels, scores = offline(path, inputs)
        assert [pair[1] for pair in pairs] == [str(label) for label in labels]
        assert np.allclose([pair[2] for pair in pairs], scores, rtol=1e-5, atol=1e-7)
        assert [pair[3] for pair in pairs] == [pair[4] for pair in pairs]


def test_the_ledger_is_what_offline_runs_say(served, candidates):
    gateway, _ = served
    ledger = {mirror["mirror"]: mirror for mirror in gateway.client.ledger("phishing")["mirrors"]}
    assert ledger.keys() == candidates.keys()
    rows = gateway.lake("SELECT input_x, prediction_id FROM predictions ORDER BY prediction_id, row")
    inputs = np.array([row[0] for row in rows], np.float32)
    live_labels, live_scores = offline(str(gateway.folder / "champion.onnx"), inputs)
    for name, path in candidates.items():
        found = ledger[name]
        recorded = {
            pair[0]
            for pair in gateway.lake(
                "SELECT prediction_id FROM shadows WHERE mirror = ? AND outcome = 'recorded'", name
            )
        }
        taken = np.array([row[1] in recorded for row in rows])
        labels, scores = offline(path, inputs)
        agrees = (labels == live_labels)[taken]
        flips = Counter(zip(live_labels[taken][~agrees].tolist(), labels[taken][~agrees].tolist(), strict=True))
        assert found["rows"] == taken.sum()
        assert found["agreement"] == pytest.approx(agrees.mean())
        assert {(int(flip["live"]), int(flip["mirror"])): flip["rows"] for flip in found["flips"]} == flips
        assert found["score_difference"]["mean"] == pytest.approx(float((scores - live_scores)[taken].mean()), abs=1e-6)
        assert found["evidence"]["verdict"] == "agreement_only"
    assert {mirror["agreement"] < 1 for mirror in list(ledger.values())[1:]} == {True}


def test_a_mirror_that_was_taken_away_gets_no_more_rows_and_what_was_drawn_for_it_is_accounted_for(served, candidates):
    gateway, _ = served
    gateway.client.mirror("phishing", "candidate-7", None, reason="enough of it")
    before = gateway.metric("runoff_mirrored_total", variant="candidate-7")
    others = gateway.metric("runoff_mirrored_total", variant="candidate-0")
    assert gateway.infer("phishing", [[1, 2, 3, 4]]).status_code == 200
    eventually(lambda: gateway.metric("runoff_mirrored_total", variant="candidate-0") == others + 1)
    assert gateway.metric("runoff_mirrored_total", variant="candidate-7") == before
