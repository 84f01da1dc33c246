"""A candidate from a real MLflow registry becomes champion and goes back again; the alias follows when it should."""

import json
import time

import pytest

from tests.kit import files
from tests.kit.gateway import Gateway, eventually, route, write_yaml
from tests.kit.logged import Registry

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

ROW = [[0.5, 1.0, -2.0, 0.25]]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    made = Registry(folder)
    for version, weights in enumerate([(1.0, 1.0, 1.0, 1.0), (1.0, 2.0, 1.0, 1.0), (2.0, 1.0, 1.0, 3.0)], 1):
        assert made.publish("phishing", files.binary(folder / f"{version}.onnx", *weights)) == str(version)
    made.move("phishing", "champion", "1")
    made.move("phishing", "challenger", "2")
    return made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, registry):
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(folder, registry_uri=registry.uri) as running:
        document = route(
            "phishing",
            ("champion", "models:/phishing@champion", 1),
            ("challenger", "models:/phishing@challenger", 1),
            mirrors={"candidate": "models:/phishing/3"},
        )
        done = running.run("apply", write_yaml(folder / "route.yaml", document), "-m", "from the registry")
        assert done.returncode == 0, done.stderr
        yield running


def versions(gateway: Gateway, requests: int = 12) -> set[str]:
    """Which versions answer now."""
    replies = [gateway.infer("phishing", ROW) for _ in range(requests)]
    assert {reply.status_code for reply in replies} == {200}
    return {reply.headers["x-runoff-model"] for reply in replies}


def test_the_whole_way_there_and_back(gateway, registry):
    assert versions(gateway, 40) == {"phishing/1", "phishing/2"}

    done = gateway.run("promote", "phishing", "candidate", "--mirror", "-m", "it was better on all rows", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "live"
    assert versions(gateway) == {"phishing/3"}, "the promoted version has all traffic"
    eventually(lambda: registry.version_of("phishing", "champion") == "3", 30)

    began = time.monotonic()
    reply = gateway.client.rollback("phishing", reason="complaints")
    took_s = time.monotonic() - began
    assert reply["state"] == "live"
    assert versions(gateway, 40) == {"phishing/1", "phishing/2"}
    assert registry.version_of("phishing", "champion") == "3", "the alias stays unless told to move"
    print(f"\nrollback, from the call to served in every worker: {took_s * 1000:.0f} ms")

    states = {row["revision"]: row["action"] for row in gateway.client.history("phishing")}
    assert list(states.values()) == ["rollback", "promote", "put"]


def test_promote_takes_the_version_that_is_served_not_what_its_alias_says_by_now(gateway, registry):
    gateway.client.rollback("phishing", reason="start over")
    registry.move("phishing", "challenger", "3")
    gateway.client.promote("phishing", variant="challenger", reason="as measured")
    assert versions(gateway) == {"phishing/2"}
