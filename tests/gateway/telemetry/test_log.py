import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.telemetry.counters import CounterPage
from gateway.telemetry.log import REPEATS_PER_S, EventLog, Repeats, json_lines
from gateway.telemetry.retained import read_pages

ROOT = Path(__file__).parents[3]


def child(code: str, folder: Path) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, cwd=ROOT, check=True, text=True
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_our_events_and_libraries_lines_come_out_alike(tmp_path):
    ours, theirs, warning = child(SCRIPT, tmp_path)
    assert {key: ours[key] for key in ("level", "process", "logger", "event", "endpoint", "revision")} == {
        "level": "info",
        "process": "worker-0",
        "logger": "gateway.worker",
        "event": "model_warmed",
        "endpoint": "e",
        "revision": 3,
    }
    assert (theirs["event"], theirs["message"], theirs["level"]) == ("log", "port 80 in use", "warning")
    assert "old" in warning["message"]
    written = (tmp_path / "worker-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["logger"] for line in written] == ["gateway.worker", "uvicorn.error", "py.warnings"]


SCRIPT = """
import logging, sys, warnings
from pathlib import Path
from gateway.telemetry.log import EventLog, configure
configure("worker-0", "info", folder=Path(sys.argv[1]))
EventLog("gateway.worker").info("model_warmed", endpoint="e", revision=3)
EventLog("gateway.worker").debug("nothing")
logging.getLogger("uvicorn.error").warning("port %d in use", 80)
warnings.simplefilter("always")
warnings.warn("old", UserWarning, stacklevel=1)
"""


@pytest.fixture
def record():
    return logging.LogRecord("gateway.x", logging.INFO, "", 0, {"event": "spool_full"}, (), None)


def test_a_line_is_one_json_object_with_its_time(record):
    record.created, record.msecs = 1_700_000_000.25, 250.0
    record.msg = {"event": "spool_full", "bytes": 3, "path": Path("x")}
    record._logger, record._name = logging.getLogger("gateway.x"), "info"
    assert json.loads(json_lines("control").format(record)) == {
        "at": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "process": "control",
        "logger": "gateway.x",
        "event": "spool_full",
        "bytes": 3,
        "path": "x",
    }


def test_an_error_nobody_expected_has_its_stack_trace(caplog):
    try:
        raise ValueError("odd")
    except ValueError as error:
        EventLog("gateway.x").error("turn_failed", error=error)
    line = json.loads(json_lines("worker-0").format(caplog.records[0]))
    assert "ValueError: odd" in line["exception"]


def test_repeats_above_the_bound_are_dropped_and_counted(tmp_path):
    page = CounterPage(tmp_path, "worker-a")
    now = [0.0]
    repeats = Repeats(page, clock=lambda: now[0])
    make = lambda: logging.LogRecord("gateway.x", logging.INFO, "", 0, "spool_full", (), None)
    kept = sum(repeats.filter(make()) for _ in range(REPEATS_PER_S + 5))
    assert kept == REPEATS_PER_S
    assert read_pages(tmp_path).value("runoff_log_lines_dropped_total") == 5
    now[0] = 1.0
    assert repeats.filter(make())


def test_a_line_is_judged_once_for_all_handlers(record):
    repeats = Repeats(None, clock=lambda: 0.0)
    for _ in range(REPEATS_PER_S * 2):
        assert repeats.filter(record)
