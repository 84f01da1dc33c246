import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from gateway.control.process import _retention
from gateway.processes.birth import Birth, new_writer
from gateway.settings import Settings
from gateway.state.revision import Draft
from gateway.state.store import StateStore
from routing.traffic import Retention
from tests.kit.control import linear
from tests.kit.plain import PLAIN

pytestmark = pytest.mark.slow


class Supervisor:
    """The one end of a control process: its pipe, and the socket that outlives it."""

    def __init__(self, folder):
        self._settings = Settings(state_dir=str(folder / "var"), admin_port=0)
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._listener.getsockname()[1]}", timeout=60, verify=PLAIN
        )

    @contextlib.contextmanager
    def control(self, *program):
        """The process; `program` in place of its own module."""
        near, far = socket.socketpair()
        birth = Birth(
            process="control",
            writer=new_writer("control"),
            settings=self._settings,
            pipe_fd=far.fileno(),
            admin_fd=self._listener.fileno(),
        )
        process = subprocess.Popen(
            [sys.executable, *(program or ("-m", "gateway.control"))],
            env=os.environ | birth.environment(),
            pass_fds=birth.fds,
        )
        far.close()
        self._pipe = near.makefile("rw")
        near.close()
        self.send({"event": "workers", "live": [], "exited": []})
        try:
            assert self.hear("ready")
            yield process
        finally:
            process.kill()
            process.wait()
            self._pipe.close()

    def send(self, line):
        self._pipe.write(json.dumps(line) + "\n")
        self._pipe.flush()

    def hear(self, event):
        return any(json.loads(line)["event"] == event for line in self._pipe)

    def close(self):
        self.http.close()
        self._listener.close()


@pytest.fixture
def supervisor(tmp_path):
    made = Supervisor(tmp_path)
    yield made
    made.close()


def test_control_prepares_real_models_survives_kill_9_and_drains(supervisor, tmp_path):
    (tmp_path / "double.onnx").write_bytes(linear(("x",), 2.0))
    model = f"file://{tmp_path}/double.onnx"
    document = {"endpoint": "double", "variants": [{"name": "champion", "model": model, "weight": 1}]}
    path = "/admin/v1/routes/double"
    with supervisor.control() as process:
        query = {"reason": "new", "wait": 50}
        reply = supervisor.http.put(path, params=query, json=document, headers={"If-None-Match": "*"})
        assert reply.status_code == 200, reply.text
        (staged,) = supervisor.http.get("/admin/v1/models").json()["models"]
        assert (staged["state"], staged["flavor"]) == ("live", "onnx")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with supervisor.control() as process:
        assert supervisor.http.get(path).json()["status"]["state"] == "live"
        assert supervisor.hear("beat")
        supervisor.send({"command": "drain"})
        assert process.wait(30) == 0


def test_a_document_that_this_release_refuses_keeps_its_own_retention_and_stops_no_other(tmp_path):
    store = StateStore(tmp_path / "state.db")
    variants = {"variants": [{"name": "champion", "model": "models:/m/1", "weight": 1}]}
    kept = {
        "good": {"record": {"retention": "1d"}},
        "old": {"record": {"retention": "2d"}, "unit": {"header": "authorization"}},
        "misread": {"record": {"retention": "for ever"}},
    }
    for endpoint, keys in kept.items():
        document = {"endpoint": endpoint, **variants, **keys}
        draft = Draft(endpoint=endpoint, action="put", author="ann", reason="r", document=document)
        number = store.write(draft).number
        store._connection.execute("UPDATE routes SET live = ? WHERE endpoint = ?", (number, endpoint))
    store.close()
    assert _retention(tmp_path / "state.db") == {"good": Retention(86_400), "old": Retention(2 * 86_400)}


LOOKS_LONG = """
import time
from gateway.control.feedback import Feedback
from gateway.control.process import main
Feedback.look = lambda _: print("looks", flush=True) or time.sleep(600)
main()
"""


def test_a_long_look_at_the_evidence_does_not_hold_up_the_end(supervisor):
    with supervisor.control("-c", LOOKS_LONG) as process:
        supervisor.send({"command": "drain"})
        assert process.wait(60) == 0


def test_control_ends_when_its_supervisor_does(supervisor):
    with supervisor.control() as process:
        supervisor._pipe.close()
        assert process.wait(30) == 0
