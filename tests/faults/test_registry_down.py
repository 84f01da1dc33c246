"""The registry goes away, before the start and later; what is warm is served, and what needs the registry says so and waits."""

import time

import pytest

from runoff import RequestRefused
from tests.kit import files
from tests.kit.gateway import Gateway, eventually, route
from tests.kit.logged import Registry, RegistryServer

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(300),
]  # `mlflow server` is slow to start on a busy machine

ROW = [[0.5, 1.0, -2.0, 0.25]]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    made = Registry(folder)
    made.publish("phishing", files.binary(folder / "1.onnx"), "champion")
    made.publish("phishing", files.binary(folder / "2.onnx", 1.0, 2.0, 1.0, 1.0), "challenger")
    made.publish("phishing", files.binary(folder / "3.onnx", 1.0, 1.0, 1.0, 3.0))
    return made


def version(gateway: Gateway) -> str:
    reply = gateway.infer("phishing", ROW)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-runoff-model"]


def test_serving_rollback_promotion_and_a_restart_go_on_without_the_registry(tmp_path, registry):
    document = route(
        "phishing", ("champion", "models:/phishing@champion", 1), ("challenger", "models:/phishing@challenger", 0)
    )
    with RegistryServer(registry) as server, Gateway(tmp_path, registry_uri=server.uri) as gateway:
        gateway.apply(document)
        gateway.client.split("phishing", champion=0, challenger=1, reason="the challenger for a moment")
        assert version(gateway) == "phishing/2"
        server.cut()

        began = time.monotonic()
        assert gateway.client.rollback("phishing", reason="the registry is down")["state"] == "live"
        print(f"\nrollback without a registry: {(time.monotonic() - began) * 1000:.0f} ms")
        assert version(gateway) == "phishing/1"
        assert gateway.client.promote("phishing", variant="challenger", reason="all the same")["state"] == "live"
        assert version(gateway) == "phishing/2"
        eventually(lambda: [move for move in gateway.client.status()["alias_moves"] if move["problem"]], 60, 0.1)
        assert registry.version_of("phishing", "champion") == "1"
        shown = gateway.run("status", "--once").stdout
        assert "phishing@champion waits to move to version 2" in shown

        with pytest.raises(RequestRefused) as refused:
            gateway.apply(route("phishing", ("champion", "models:/phishing/3", 1)))
        assert "registry" in str(refused.value)
        assert version(gateway) == "phishing/2"

        assert gateway.stop() == 0
        gateway.start()
        assert version(gateway) == "phishing/2", "a restart needs no registry for what was live"

        server.plug_in()
        gateway.kill("control")  # by now a minute lies between two attempts; a new control makes one at once
        eventually(lambda: not gateway.client.status()["alias_moves"], 90, 0.2)
        assert registry.version_of("phishing", "champion") == "2"
        gateway.apply(route("phishing", ("champion", "models:/phishing/3", 1)))
        assert version(gateway) == "phishing/3"


def test_a_gateway_starts_without_its_registry_and_serves_what_needs_none(tmp_path):
    with Gateway(tmp_path, registry_uri="http://127.0.0.1:9") as gateway:
        gateway.apply(route("phishing", ("champion", files.binary(tmp_path / "phishing.onnx"), 1)))
        assert gateway.infer("phishing", ROW).status_code == 200
        with pytest.raises(RequestRefused) as refused:
            gateway.apply(route("mail", ("champion", "models:/mail@champion", 1)))
        assert "registry does not answer" in str(refused.value)
        assert gateway.is_ready
