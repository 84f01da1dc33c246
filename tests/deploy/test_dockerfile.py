"""The Dockerfile's steps in a clean directory, without a builder; then the gateway that comes of them, as the image would run it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from runoff import RequestRefused, Runoff
from tests.kit import files
from tests.kit.gateway import ROOT, eventually, infer_body, route

TEXT = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(
    r"^(FROM|RUN|COPY|ADD|ENV|USER|CMD|ENTRYPOINT|HEALTHCHECK|VOLUME|WORKDIR|EXPOSE) (.*)$",
    TEXT.replace("\\\n", " "),
    re.MULTILINE,
)
KEY = "image-canary-0123456789abcdef0123456789abcdef"


def last_stage():
    """The instructions of the image itself."""
    start = max(place for place, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
    return INSTRUCTIONS[start + 1 :]


def said(name):
    """What the last instruction of this name in the image says."""
    return [text.strip() for kind, text in last_stage() if kind == name][-1]


def variables():
    return dict(re.findall(r"(\w+)=(\S+)", said("ENV")))


# ── what the text says ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_image_runs_as_a_user_without_rights_and_keeps_state_in_a_volume():
    assert said("USER") == "10001:10001"
    names = [name for name, _ in last_stage()]
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :]), (
        "what is made after it would not be as it is made here"
    )
    assert json.loads(said("ENTRYPOINT")) == ["runoff"]
    assert said("VOLUME") == said("WORKDIR") == variables()["RUNOFF_STATE_DIR"]


def test_beyond_loopback_the_image_wants_keys_on_every_listener_that_serves():
    env = variables()
    assert json.loads(said("CMD")) == ["serve", "--host", "0.0.0.0"]
    assert (env["RUNOFF_AUTH_DATA"], env["RUNOFF_AUTH_ADMIN"]) == ("keys", "keys")
    assert env["RUNOFF_BOOTSTRAP_KEY_FILE"] == "/run/secrets/runoff_admin_key"
    assert not re.search(r"(key|token|password|secret)=(?!/)\S", said("ENV"), re.IGNORECASE), "no secret in a layer"


def test_nothing_is_fetched_but_through_the_ordinary_clients():
    assert not [text for name, text in INSTRUCTIONS if name == "ADD"]
    assert not re.search(r"https?://(?!127\.0\.0\.1)|curl |wget ", TEXT)
    assert "--require-hashes" in (ROOT / "deploy/docker/install.sh").read_text()


def test_everything_that_is_copied_comes_through_the_ignore_file():
    kept = [line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, text in INSTRUCTIONS:
        if name == "COPY" and "--from" not in text:
            for source in text.split()[:-1]:
                assert source == "." or any(source == one or source.startswith(f"{one}/") for one in kept), source
    assert all((ROOT / one).exists() for one in kept)


# ── what comes of it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Image:
    """The folder of the environment that the steps made, in a directory that holds only what a builder would be sent."""

    def __init__(self, folder: Path) -> None:
        self.environment, source = folder / "opt", folder / "src"
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        for name in listed.stdout.splitlines():
            if (
                any(name == one or (one.endswith("/") and name.startswith(one)) for one in kept)
                and (ROOT / name).exists()
            ):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, source / name)
        shutil.copy(source / "deploy/docker/install.sh", source / "install.sh")
        steps = [text for name, text in INSTRUCTIONS if name == "RUN" and "install.sh" in text]
        assert len(steps) == 2
        for step in steps:
            command = step.replace("/opt/runoff", str(self.environment)).split()
            done = subprocess.run(
                command, cwd=source, capture_output=True, text=True, check=False, env=clean(PYTHON=sys.executable)
            )
            assert done.returncode == 0, done.stderr

    def files(self) -> set[str]:
        """Without byte code, which the image's installer has written already."""
        return {str(path) for path in self.environment.rglob("*") if "__pycache__" not in path.parts}


def clean(**more: str) -> dict[str, str]:
    """The builder's variables: none of ours, nor of this test's environment."""
    foreign = ("RUNOFF_", "MLFLOW_", "OTEL_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | more


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return Image(tmp_path_factory.mktemp("image"))


@pytest.mark.slow
@pytest.mark.acceptance
def test_the_steps_make_a_gateway_that_runs_as_the_image_would(image, tmp_path):
    state, secret, work = tmp_path / "state", tmp_path / "secret", tmp_path / "work"
    state.mkdir(mode=0o700)
    work.mkdir(mode=0o555)
    secret.write_text(KEY)
    before = image.files()
    env = clean(**variables()) | {
        "PATH": f"{image.environment}/bin:{os.environ['PATH']}",
        "HOME": str(state),
        "RUNOFF_STATE_DIR": str(state),
        "RUNOFF_BOOTSTRAP_KEY_FILE": str(secret),
        "RUNOFF_WORKERS": "1",
        **dict.fromkeys(("RUNOFF_REST_PORT", "RUNOFF_GRPC_PORT", "RUNOFF_METRICS_PORT", "RUNOFF_ADMIN_PORT"), "0"),
    }
    entry = [str(image.environment / "bin" / json.loads(said("ENTRYPOINT"))[0]), *json.loads(said("CMD"))]
    process = subprocess.Popen(entry, cwd=work, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    errors: list[str] = []
    reading = threading.Thread(target=lambda: errors.extend(process.stderr))
    reading.start()
    try:
        addresses = dict(process.stdout.readline().split() for _ in range(4))
        rest, admin = (addresses[name].replace("0.0.0.0", "127.0.0.1") for name in ("REST", "admin"))
        port = addresses["metrics"].rpartition(":")[2].removesuffix("/metrics")
        check = json.loads(said("HEALTHCHECK").partition("CMD ")[2])
        check = [part.replace("/opt/runoff", str(image.environment)).replace("8082", port) for part in check]
        eventually(lambda: subprocess.run(check, capture_output=True, check=False, env=env).returncode == 0, 60, 0.2)

        def answers(url):
            try:
                return httpx.get(url, timeout=30).status_code == 401
            except httpx.TransportError:
                return False

        eventually(lambda: answers(f"{admin}/admin/v1/routes"), 60, 0.1)
        with Runoff(admin) as stranger, pytest.raises(RequestRefused, match="a key is needed"):
            stranger.routes()
        with Runoff(admin, key=KEY, data_url=rest, timeout_s=60) as operator:
            model = files.binary(state / "phishing.onnx")
            operator.apply(route("phishing", ("champion", model, 1)), reason="first")
            key = operator.create_key("app", ["predict:phishing"], reason="first")["key"]
        url, body = f"{rest}/v2/models/phishing/infer", infer_body([[1, 2, 3, 4]])
        eventually(lambda: httpx.post(url, json=body, headers={"x-api-key": key}, timeout=30).status_code == 200)
        assert httpx.post(url, json=body, timeout=30).status_code == 401
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        reading.join(30)
        process.stdout.close()
        process.stderr.close()
    assert status == 0, "".join(errors)
    assert list(work.iterdir()) == [], "nothing is written where it runs"
    assert image.files() == before, "nothing is written where it is installed"
    assert not [path for path in state.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
