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


def document(folder, *durations, **more):
    """A challenger that gets 1, 10 and 50 of 101, 110 and 100, for so long each."""
    weights = [{"challenger": 1}, {"challenger": 10}, {"challenger": 50, "champion": 50}]
    return route(
        "phishing",
        ("champion", files.binary(folder / "champion.onnx"), 100),
        ("challenger", files.binary(folder / "challenger.onnx", 1, 2, 3, 4), 0),
        steps=[{"weights": one, "for": duration} for one, duration in zip(weights, durations, strict=True)],
        **more,
    )


def test_steps_stay_where_people_put_them_and_a_file_that_is_applied_again_changes_nothing(gateway, tmp_path):
    """Every step lasts for an hour, so that only people move anything here."""
    file = write_yaml(tmp_path / "route.yaml", document(tmp_path, "1h", "1h", "1h"))
    applied = gateway.run("apply", file, "-m", "ramp up")  # the first step follows within a moment
    assert applied.returncode == 0
    assert "revision 1 is live" in applied.stdout or "revision 1 was made live, and followed by 2" in applied.stdout
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
    assert steps(gateway)["state"] == "running"

    gateway.client.split("phishing", challenger=0, reason="something is wrong")
    eventually(lambda: steps(gateway)["state"] == "paused")
    assert "the weights were changed by" in steps(gateway)["reason"]
    gateway.kill("control")
    eventually(lambda: gateway.is_managed)
    assert steps(gateway)["state"] == "paused"
    assert weights(gateway)["challenger"] == 0
    gateway.client.resume("phishing", reason="it was not", what="steps")
    eventually(lambda: weights(gateway)["challenger"] == 1)

    gateway.client.promote("phishing", variant="challenger", reason="good enough")
    eventually(lambda: gateway.client.route("phishing")["status"]["steps"] is None)
    assert weights(gateway) == {"champion": 1, "challenger": 0}


def test_steps_are_each_taken_once_and_in_order_though_control_dies_on_the_way(gateway, tmp_path):
    gateway.apply(document(tmp_path, "3s", "3s", "1s"))
    eventually(lambda: weights(gateway)["challenger"] == 1)
    gateway.kill("control")
    eventually(lambda: gateway.is_managed, 60)
    eventually(lambda: steps(gateway).get("state") == "finished", 90)
    assert weights(gateway) == {"champion": 50, "challenger": 50}
    taken = [row["reason"] for row in gateway.client.history("phishing") if row["author"] == "system:steps"]
    assert taken == ["step 3 of 3", "step 2 of 3", "step 1 of 3"]


def test_a_challenger_that_fails_pauses_its_steps_and_people_see_why(gateway, tmp_path):
    champion, challenger = files.binary(tmp_path / "champion.onnx"), files.poisoned(tmp_path / "challenger.onnx")
    arms = ("champion", champion, 1), ("challenger", challenger, 0)
    gateway.apply(route("phishing", *arms, steps=[{"weights": {"challenger": 1}, "for": "1h"}]))
    eventually(lambda: weights(gateway)["challenger"] == 1)

    def is_paused():
        for _ in range(20):
            gateway.infer("phishing", [[666, 0, 0, 0]])
        return steps(gateway)["state"] == "paused"

    eventually(is_paused, 40)
    assert "challenger fails more often than champion" in steps(gateway)["alarm"]
    assert "step 1 of 1, paused" in " ".join(gateway.run("routes").stdout.split())
    status = gateway.run("status", "--once").stdout
    assert "phishing: steps paused: challenger fails more often than champion" in status
    assert "runoff resume phishing goes on" in " ".join(status.split())
    assert gateway.run("resume", "phishing", "-m", "known, and mended").returncode == 0
    assert steps(gateway)["state"] == "running"
