"""Weights that go up by themselves, step by step, through pauses and through the death of the process that takes them."""

import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, route, write_yaml

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def gateway(tmp_path):
    with Gateway(tmp_path) as running:
        yield running


def weights(gateway):
    return gateway.client.route("phishing")["status"]["weights"]


def steps(gateway):
    return gateway.client.route("phishing")["status"]["steps"] or {}


def test_steps_survive_pauses_restarts_and_a_file_that_is_applied_again(gateway, tmp_path):
    document = route(
        "phishing",
        ("champion", files.binary(tmp_path / "champion.onnx"), 100),
        ("challenger", files.binary(tmp_path / "challenger.onnx", 1, 2, 3, 4), 0),
        steps=[
            {"weights": {"challenger": 1}, "for": "15s"},
            {"weights": {"challenger": 10}, "for": "1h"},
            {"weights": {"challenger": 50, "champion": 50}, "for": "1h"},
        ],
    )
    file = write_yaml(tmp_path / "route.yaml", document)
    assert gateway.run("apply", file, "-m", "ramp up").returncode == 0
    eventually(lambda: weights(gateway) == {"champion": 100, "challenger": 1})
    assert steps(gateway)["summary"].startswith("step 1 of 3 until")

    gateway.client.pause("phishing", reason="look at it first")
    assert steps(gateway)["state"] == "paused"
    assert "step 1 of 3, paused: by local:" in " ".join(gateway.run("routes").stdout.split())
    twice = gateway.run("pause", "phishing", "-m", "again")
    assert (twice.returncode, len(twice.stderr.splitlines())) == (1, 1)
    again = gateway.run("apply", file, "-m", "the same file")
    assert "unchanged" in again.stdout, again.stdout
    assert gateway.run("resume", "phishing", "-m", "looks good").returncode == 0

    gateway.kill("control")
    eventually(lambda: gateway.is_managed)
    eventually(lambda: weights(gateway) == {"champion": 100, "challenger": 10}, 60)

    gateway.client.split("phishing", challenger=0, reason="something is wrong")
    eventually(lambda: steps(gateway)["state"] == "paused")
    assert "the weights were changed by" in steps(gateway)["reason"]
    assert weights(gateway)["challenger"] == 0
    gateway.client.resume("phishing", reason="it was not", what="steps")
    eventually(lambda: weights(gateway)["challenger"] == 10)

    gateway.client.promote("phishing", variant="challenger", reason="good enough")
    eventually(lambda: gateway.client.route("phishing")["status"]["steps"] is None)
    history = gateway.client.history("phishing")
    assert [row["author"] for row in history].count("system:steps") == 3
    assert {"step 1 of 3", "step 2 of 3"} <= {row["reason"] for row in history}
