"""The demo whole, as a user runs it: real training, a real gateway, a real replay, a report that adds up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo import main, project, story, train


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").touch()
    assert main(tmp_path, quick=True) == 1
    assert "not empty" in capsys.readouterr().err


def test_quick_is_less_of_the_same() -> None:
    assert story.QUICK.days < story.FULL.days
    assert story.QUICK.seconds < story.FULL.seconds


def test_the_project_file_runs_the_training_module() -> None:
    text = (Path(project.__file__).parent / "MLproject").read_text()
    assert f"python -m {train.__name__} --rows {{rows}}" in text


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_the_demo_trains_serves_replays_and_reports_numbers_that_add_up(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "gateway.cli", "demo", "--quick", "--json", "--state-dir", str(state)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=380, env={**os.environ, "COLUMNS": "120"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["consistent"]
    assert told["summary"]["asked"] == told["summary"]["answered"] > 2500
    assert told["summary"]["shadowed"] == told["summary"]["answered"]
    assert set(told["arms"]) == {"champion", "challenger", "candidate"}
    assert [move["challenger_share"] for move in told["moves"]] == [0.1, 0.5]
    assert "<h1>" in Path(told["report"]).read_text()
    assert "Traceback" not in done.stderr
