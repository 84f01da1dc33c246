"""The registry as MLflow keeps it: in SQLite without a server, and behind a real server, by the same calls."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.artifacts import Artifacts
from models.errors import ModelUnknown, ReferenceInvalid, RegistryUnavailable
from models.ref import parse_ref
from models.registry.mlflow import MlflowRegistry
from models.staged import ModelKey
from models.staging import stage

_START_S = 90.0


def test_a_version_resolves_to_its_pinned_address(registry: MlflowRegistry) -> None:
    resolved = registry.resolve(parse_ref("models:/pipeline/1"))

    assert resolved.key == ModelKey("pipeline", "1")
    assert resolved.uri == "models:/pipeline/1"


def test_an_alias_resolves_to_the_version_it_points_to_and_shows_in_the_map_of_all(registry: MlflowRegistry) -> None:
    registry.set_alias("light", "champion", "1")

    resolved = registry.resolve(parse_ref("models:/light@champion"))

    assert resolved.uri == "models:/light/1"
    assert resolved.aliases == ("champion",)
    assert registry.aliases()["light", "champion"] == "1"
    assert registry.versions("light") == ["1"]


def test_a_logged_model_and_a_run_resolve_to_the_same_files(registry: MlflowRegistry) -> None:
    version = registry.resolve(parse_ref("models:/doubled/1"))
    model_id = Path(version.source).parent.name
    by_id = registry.resolve(parse_ref(f"models:/{model_id}"))
    run_id = registry._client.get_logged_model(model_id).source_run_id

    by_run = registry.resolve(parse_ref(f"runs:/{run_id}/model"))

    assert by_id.source.removeprefix("file://") == by_run.source.removeprefix("file://")
    assert by_id.key == ModelKey(model_id, "1")
    assert by_run.uri == f"runs:/{run_id}/model"


@pytest.mark.parametrize(
    "text", ["models:/absent/1", "models:/pipeline/99", "models:/pipeline@absent", "models:/m-0000", "runs:/0000/model"]
)
def test_what_is_not_there_is_unknown(registry: MlflowRegistry, text: str) -> None:
    with pytest.raises(ModelUnknown, match=text):
        registry.resolve(parse_ref(text))


def test_versions_and_aliases_of_an_unknown_model_are_unknown(registry: MlflowRegistry) -> None:
    with pytest.raises(ModelUnknown):
        registry.versions("absent")
    with pytest.raises(ModelUnknown):
        registry.set_alias("absent", "champion", "1")


def test_files_are_not_its_business(registry: MlflowRegistry) -> None:
    with pytest.raises(ReferenceInvalid, match="of the registry"):
        registry.resolve(parse_ref("./model"))


def test_a_database_that_does_not_exist_is_made(tmp_path: Path) -> None:
    registry = MlflowRegistry(f"sqlite:///{tmp_path / 'deep' / 'mlflow.db'}")

    assert registry.aliases() == {}
    assert (tmp_path / "deep" / "mlflow.db").exists()


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    address = f"http://127.0.0.1:{_free_port()}"
    registry = MlflowRegistry(address)

    with pytest.raises(RegistryUnavailable) as caught:
        registry.aliases()
    assert str(caught.value) == f"the registry: the registry does not answer: nobody at {address}"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def _server(registry_uri: str, work: Path) -> Iterator[str]:
    """A real MLflow server over the session's database."""
    port = _free_port()
    command = [
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        registry_uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--workers", "1", "--artifacts-destination", str(work / "served")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (work / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _await_health(f"http://127.0.0.1:{port}/health", server, work / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _await_health(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=1.0):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_server_is_used_by_the_same_calls_down_to_a_staged_model(registry_uri: str, tmp_path: Path) -> None:
    with _server(registry_uri, tmp_path) as url:
        registry = MlflowRegistry(url)
        registry.set_alias("boosted", "served", "1")

        staged = stage(parse_ref("models:/boosted@served"), registry, Artifacts(tmp_path / "artifacts"))

        assert staged.key == ModelKey("boosted", "1")
        assert registry.aliases()["boosted", "served"] == "1"
        assert registry.versions("boosted") == ["1"]
        with pytest.raises(ModelUnknown):
            registry.resolve(parse_ref("models:/boosted@absent"))
        with pytest.raises(ModelUnknown):
            registry.resolve(parse_ref("models:/absent/1"))
