import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo import processes
from gateway.demo.processes import DemoFailed, World


def test_a_program_of_the_demo_sees_no_registry_or_gateway_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("RUNOFF_STATE_DIR", "/elsewhere")
    shown = "import os; print(os.environ.get('MLFLOW_TRACKING_URI'), os.environ.get('RUNOFF_STATE_DIR'))"
    process = processes._start(("-c", shown), stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=30)
    assert out.split() == [b"None", b"None"]


def test_a_program_is_ended_in_order_and_in_its_own_group() -> None:
    process = processes._start(("-c", "import time; print('up', flush=True); time.sleep(60)"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert os.getpgid(process.pid) != os.getpgid(0)
    processes._end(process)
    assert process.returncode is not None


def test_a_world_that_cannot_start_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    addresses = processes.Addresses({"REST": "http://127.0.0.1:9", "gRPC": "127.0.0.1:9", "metrics": "", "admin": ""})
    with (
        World(addresses, tmp_path / "client", days=1, seconds=1.0) as world,
        pytest.raises(DemoFailed, match=r"replay\.log"),
    ):
        world.go()
