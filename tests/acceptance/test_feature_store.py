"""docs/feedback.md, "With Feast", line by line in a fresh folder: from a served prediction to training rows, and to the online store."""

import hmac
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytest.importorskip("feast")

from tests.kit import files
from tests.kit.gateway import Gateway, route

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "feedback.md"
ASKED = """
import sys
import time
from feast import FeatureStore
store = FeatureStore(".")
service = store.get_feature_service("phishing_online")
print("ready", flush=True)
for line in sys.stdin:
    unit, prediction_id, sent = line.split()
    while True:
        found = store.get_online_features(service, entity_rows=[{"unit": unit}]).to_dict()
        if found["prediction_id"] == [prediction_id]:
            print(time.time() - float(sent), found["answer_label"][0], flush=True)
            break
        time.sleep(0.05)
"""


def told() -> tuple[list[str], list[str]]:
    """The two lines that the page says to type after the installation."""
    block = re.search(r"## With Feast\n\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)[1].splitlines()
    assert block[0].startswith("pip install")
    init, rest = block[1:]
    return init.split(), rest.split(" && ")


def shell(command: list[str] | str, folder: Path, **environ: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, check=False, cwd=folder, env={**os.environ, "PATH": path, **environ}, capture_output=True, text=True, timeout=200,
        shell=isinstance(command, str),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_user_of_feast_follows_the_page(tmp_path):
    model = files.binary(tmp_path / "model.onnx")
    init, (enter, apply, train) = told()
    unit = {"unit": {"header": "x-user"}}
    with Gateway(tmp_path) as gateway:
        gateway.apply(route("phishing", ("champion", model, 1), **unit))
        replies = [gateway.infer("phishing", [[1.0, 2.0, 3.0, n]], headers={"x-user": "ann"}) for n in range(8)]
        ids = [reply.headers["x-prediction-id"] for reply in replies]
        gateway.http.post("/v1/labels", json=[{"prediction_id": key, "label": 1} for key in ids[:5]])
        gateway.stored("predictions", 8)
        gateway.stored("labels", 5)
    shell(init, tmp_path)  # reads runoff.toml of this folder
    features = tmp_path / enter.removeprefix("cd ")
    shell(apply, features)
    said = shell(train, features)
    assert "8 predictions, 5 of them with a label" in said, said

    key = (gateway.state / "unit.key").read_bytes()
    hashed = hmac.digest(key, b"ann", "sha256")[:16].hex()
    with Gateway(tmp_path, environ={"RUNOFF_SINKS_FEAST_REPO": str(features)}) as again, subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ASKED)], cwd=features, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as asking:  # fmt: skip
        try:
            assert asking.stdout.readline() == "ready\n"
            took = []
            for _ in range(4):
                reply = again.infer("phishing", [[9.0, 9.0, 9.0, 9.0]], headers={"x-user": "ann"})
                asking.stdin.write(f"{hashed} {reply.headers['x-prediction-id']} {time.time()}\n")
                asking.stdin.flush()
                seconds, answered = asking.stdout.readline().split()
                took.append(float(seconds))
                assert answered == str(reply.json()["outputs"][0]["data"][0]), reply.text
            asking.stdin.close()
        finally:
            asking.kill()  # else leaving it would wait for it
    print(
        f"\npushed and read online after {', '.join(f'{one:.1f}' for one in took)} s (the first waits for Feast's import)"
    )
