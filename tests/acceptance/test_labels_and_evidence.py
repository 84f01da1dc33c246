"""The truth arrives late, twice, early and corrected; what the gateway makes of it is recomputed here from the lake, line by line."""

import csv
import json
import math
import uuid

import httpx
import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, infer_body, route

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

UNITS = 180
UNIT = {"header": "x-runoff-unit"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    with Gateway(folder) as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A champion that looks at noise beside the truth, and a candidate that knows it: truth is `x0 + x1 > 0`."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "champion": files.binary(folder / "champion.onnx", 1.0, 0.0, 0.0, 1.5),
        "candidate": files.binary(folder / "candidate.onnx", 1.0, 1.0, 0.0, 0.0),
    }


def truth(row: list[float]) -> int:
    return int(row[0] + row[1] > 0)


def document(name: str, models: dict[str, str], **label: object) -> dict:
    mirrors = {"candidate": models["candidate"]}
    return route(name, ("champion", models["champion"], 1), mirrors=mirrors, unit=UNIT, label=label)


def ask(client: httpx.Client, endpoint: str, unit: str, row: list[float], **headers: str) -> str:
    reply = client.post(
        f"/v2/models/{endpoint}/infer", json=infer_body([row]), headers={"x-runoff-unit": unit, **headers}
    )
    assert reply.status_code == 200, reply.text
    return reply.headers["x-prediction-id"]


def sent(gateway: Gateway, *labels: dict) -> dict:
    reply = gateway.http.post("/v1/labels", json=list(labels))
    assert reply.status_code == 202, reply.text
    return reply.json()


def held_label(gateway: Gateway, prediction_id: str) -> object:
    """The label that counts, as `runoff predictions` shows it."""
    labels = gateway.client.prediction(prediction_id)["labels"]
    return next((label["label_text"] for label in labels if label["holds"]), None)


def test_labels_come_before_after_twice_corrected_and_retracted(gateway, models):
    gateway.apply(document("orders", models))
    ids = [ask(gateway.http, "orders", f"u{n}", [1.0, 1.0, 0.0, 0.0]) for n in range(5)]
    by_request = ask(gateway.http, "orders", "u5", [1.0, 1.0, 0.0, 0.0], **{"x-request-id": "order-5"})
    sent(gateway, {"prediction_id": ids[0], "label": 1})
    sent(gateway, {"prediction_id": ids[1], "label": 1}, {"prediction_id": ids[1], "label": 1})
    sent(gateway, {"prediction_id": ids[2], "label": 1, "at": "2026-01-01T00:00:00Z"})
    sent(gateway, {"prediction_id": ids[2], "label": 0, "at": "2026-01-02T00:00:00Z"})
    sent(gateway, {"prediction_id": ids[2], "label": 1, "at": "2026-01-01T00:00:00Z"})
    sent(gateway, {"prediction_id": ids[3], "label": 1})
    sent(gateway, {"prediction_id": ids[3], "label": None})
    sent(gateway, {"endpoint": "orders", "request_id": "order-5", "label": 0})
    early = {"endpoint": "orders", "request_id": "order-6", "label": 1}
    sent(gateway, early)
    late = ask(gateway.http, "orders", "u6", [1.0, 1.0, 0.0, 0.0], **{"x-request-id": "order-6"})
    gateway.stored("labels", 10)
    gateway.stored("predictions", 1, where=f"prediction_id = '{late}'")
    assert held_label(gateway, ids[0]) == "1"
    assert held_label(gateway, ids[1]) == "1"
    assert held_label(gateway, ids[2]) == "0", "the newest `at` holds, and an old one delivered again changes nothing"
    assert held_label(gateway, ids[3]) is None, "retracted"
    assert held_label(gateway, by_request) == "0"
    assert held_label(gateway, late) == "1", "a label may come before its prediction"
    champion = next(one for one in gateway.client.quality("orders")["subjects"] if one["role"] == "live")
    assert (champion["n"], champion["labelled"]) == (7, 5)
    assert champion["accuracy"] == pytest.approx(3 / 5)


def test_labels_from_a_file_are_sent_by_the_command_line_and_bad_ones_are_named(gateway, models, tmp_path):
    gateway.apply(document("letters", models))
    ids = [ask(gateway.http, "letters", f"u{n}", [1.0, 1.0, 0.0, 0.0]) for n in range(3)]
    good = tmp_path / "labels.csv"
    with good.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prediction_id", "label"])
        writer.writerows((one, 1) for one in ids)
    done = gateway.run("label", str(good))
    assert done.returncode == 0, done.stderr
    assert "3 of 3 labels accepted" in done.stdout
    bad = tmp_path / "labels.json"
    bad.write_text(json.dumps([{"prediction_id": ids[0], "label": 0}, {"prediction_id": "nonsense", "label": 1}]))
    done = gateway.run("label", str(bad), "--json")
    assert done.returncode == 1
    assert [row["index"] for row in json.loads(done.stdout)["rejected"]] == [1]
    gateway.stored("labels", 4, where=f"prediction_id IN ({', '.join(repr(one) for one in ids)})")
    subjects = {one["role"]: one for one in gateway.client.quality("letters")["subjects"]}
    assert subjects["live"]["labelled"] == 3
    assert subjects["mirror"]["labelled"] == 3, "one label scores the variant and every shadow that saw the row"


@pytest.fixture(scope="module")
def told(gateway, models):
    """Two endpoints with the same traffic, some units asking more than once, all of it labelled; one says exogenous, one does not."""
    gateway.apply(document("mail", models, exogenous=True))
    gateway.apply(document("post", models))
    random = np.random.default_rng(11)
    labels = []
    for number in range(UNITS):
        for _ in range(1 + number % 3 // 2):
            row = [float(np.float32(value)) for value in random.normal(size=4)]
            for endpoint in ("mail", "post"):
                prediction_id = ask(gateway.http, endpoint, f"customer-{number}", row)
                labels.append({"prediction_id": prediction_id, "label": truth(row)})
    for start in range(0, len(labels), 50):
        sent(gateway, *labels[start : start + 50])
    sent(gateway, *labels[:40])  # delivered twice: nobody enters a test again
    ids = [label["prediction_id"] for label in labels]
    eventually(
        lambda: (
            gateway.lake("SELECT count(*) FROM labels WHERE prediction_id IN (SELECT unnest(?))", ids)[0][0]
            == len(labels) + 40
        ),
        30,
        0.2,
    )
    gateway.stored("shadows", len(labels), 60, "endpoint IN ('mail', 'post') AND outcome = 'recorded'")
    return ids


def paired_by_hand(gateway: Gateway, endpoint: str) -> list[tuple[bool, bool]]:
    """(champion right, candidate right), each unit once, with its first labelled row, in the order of the labels' sequence."""
    labels = gateway.lake(
        "SELECT sequence, prediction_id, label_text FROM labels WHERE NOT retracted ORDER BY sequence"
    )
    pairs = {
        prediction_id: (unit, live, mirror)
        for prediction_id, unit, live, mirror in gateway.lake(
            "SELECT prediction_id, unit, live_label, answer_label FROM shadows WHERE endpoint = ? AND outcome = 'recorded'",
            endpoint,
        )
    }
    seen, outcomes = set(), []
    for _, prediction_id, label in labels:
        if prediction_id not in pairs:
            continue
        unit, live, mirror = pairs[prediction_id]
        if unit not in seen:
            seen.add(unit)
            outcomes.append((float(label) == float(live), float(label) == float(mirror)))
    return outcomes


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def test_the_ledger_s_test_is_the_sequential_mcnemar_of_the_stored_rows(gateway, told):
    outcomes = paired_by_hand(gateway, "mail")
    wins = losses = 0
    log_e_max = 0.0
    for live, mirror in outcomes:
        wins += mirror and not live
        losses += live and not mirror
        log_e = log_beta(10 + wins, 10 + losses) - log_beta(10, 10) + (wins + losses) * math.log(2)
        log_e_max = max(log_e_max, log_e)
    evidence = gateway.client.ledger("mail")["mirrors"][0]["evidence"]
    assert len(outcomes) == UNITS == evidence["units"], "each unit once"
    assert (evidence["wins"], evidence["losses"]) == (wins, losses)
    assert evidence["ties"] == UNITS - wins - losses
    assert evidence["log_e"] == pytest.approx(log_e)
    assert evidence["p_value"] == pytest.approx(math.exp(-log_e_max))
    assert wins > losses
    assert evidence["verdict"] == "better"
    assert gateway.client.ledger("mail")["mirrors"][0]["evidence"] == evidence, "looking again changes nothing"


def test_without_exogenous_labels_the_ledger_says_agreement_and_never_better(gateway, told):
    mirror = gateway.client.ledger("post")["mirrors"][0]
    assert mirror["evidence"]["verdict"] == "agreement_only"
    assert "better" not in json.dumps(mirror["evidence"]["verdict"])
    assert 0 < mirror["agreement"] < 1


def test_quality_is_what_the_stored_rows_say(gateway, told):
    latest = gateway.lake(
        "SELECT l.label_text, s.live_label, s.answer_label FROM shadows s JOIN"
        " (SELECT prediction_id, any_value(label_text) AS label_text FROM labels GROUP BY 1) l USING (prediction_id)"
        " WHERE s.endpoint = 'mail' AND s.outcome = 'recorded'"
    )
    right = {
        "live": sum(float(label) == float(live) for label, live, _ in latest) / len(latest),
        "mirror": sum(float(label) == float(mirror) for label, _, mirror in latest) / len(latest),
    }
    subjects = {one["role"]: one for one in gateway.client.quality("mail")["subjects"]}
    for role, accuracy in right.items():
        assert subjects[role]["labelled"] == len(latest)
        assert subjects[role]["accuracy"] == pytest.approx(accuracy)
    assert right["mirror"] == 1.0


def test_labels_that_are_none_are_rejected_one_by_one_and_a_body_that_is_none_as_a_whole(gateway):
    told = sent(
        gateway,
        {"prediction_id": str(uuid.uuid4())},
        {"label": 1},
        {"prediction_id": "x", "label": 1},
        {"endpoint": "orders", "request_id": "r", "label": 1, "at": "yesterday"},
        {"endpoint": "orders", "request_id": "r", "label": {"a": 1}},
    )
    assert told["accepted"] == 0
    assert [row["index"] for row in told["rejected"]] == [0, 1, 2, 3, 4]
    assert all(row["code"] and row["message"] for row in told["rejected"])
    assert gateway.http.post("/v1/labels", content=b"{no json").status_code == 400


def test_labels_of_a_table_come_by_themselves_and_by_command(tmp_path, models):
    """A Delta table of cases is followed by the gateway; a CSV file of another is sent once, by `runoff label`."""
    cases, others = str(tmp_path / "cases"), tmp_path / "others.csv"
    followed, sent_once = tmp_path / "followed.toml", tmp_path / "once.toml"
    table = '[[labels]]\nendpoint = "sign"\ntable = "{0}"\nrequest_id = "case"\nlabel = "truth"\nevery_s = 1\n'
    followed.write_text(table.format(cases))
    sent_once.write_text(table.format(others))
    others.write_text("case,truth\nc2,1\nc3,0\n")
    coverage = lambda: gateway.run("quality", "sign", "--json")
    labelled = lambda: json.loads(coverage().stdout)["subjects"][0]["labelled"]
    with Gateway(tmp_path / "gateway", labels_file=str(followed)) as gateway:
        gateway.apply(route("sign", ("champion", models["champion"], 1)))
        for n in range(6):
            gateway.infer("sign", [[1.0, 2.0, 3.0, 4.0]], headers={"x-request-id": f"c{n}"})
        gateway.stored("predictions", 6)
        write_deltalake(cases, pa.table({"case": ["c0", "c1", "c9"], "truth": [1, None, 1]}))
        gateway.stored("labels", 1, 90, "request_id = 'c0'")
        eventually(lambda: labelled() == 1, 90, 0.5)
        write_deltalake(cases, pa.table({"case": ["c1"], "truth": [0]}), mode="append")
        gateway.stored("labels", 1, 90, "request_id = 'c1'")
        eventually(lambda: labelled() == 2, 90, 0.5)
        sent = gateway.run("label", str(sent_once), "--json")
        assert json.loads(sent.stdout) == {"accepted": 2, "rejected": []}
        eventually(lambda: labelled() == 4, 90, 0.5)
        gateway.stored("labels", 4)  # nobody asked about c9
        assert gateway.metric("runoff_labels_total", outcome="accepted") == 4


def test_nothing_in_the_state_directory_is_open_to_others(gateway):
    """The lake of the tests above among it, whose files deltalake makes."""
    state = gateway.state
    assert list((state / "lake" / "predictions" / "_delta_log").glob("*.json"))
    made = [state, *state.rglob("*")]
    assert [
        str(path.relative_to(state)) for path in made if path.lstat().st_mode & 0o077 and not path.is_symlink()
    ] == []
