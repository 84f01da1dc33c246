import json
import sys
from importlib.metadata import version

import pytest

from gateway.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line; its status, standard output and standard error."""

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["runoff", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return command


def test_no_gateway_is_one_clear_line(run):
    status, _, err = run("routes", "--url", "http://127.0.0.1:9")
    assert status == 1
    assert "runoff serve" in err
    assert err.count("\n") == 1


def test_the_version_is_that_of_the_package(run):
    status, out, _ = run("--version")
    assert (status, out) == (0, f"runoff {version('runoff')}\n")


def test_settings_are_explained(run, monkeypatch):
    monkeypatch.setenv("RUNOFF_REST_PORT", "7")
    rows = {row["key"]: row for row in json.loads(run("settings", "--json")[1])}
    assert (rows["rest_port"]["value"], rows["rest_port"]["origin"]) == (7, "RUNOFF_REST_PORT")
    assert "idle" in run("settings")[1]


def test_a_bad_setting_is_one_clear_line(run, monkeypatch):
    monkeypatch.setenv("RUNOFF_REST_PORT", "many")
    status, _, err = run("settings")
    assert status == 1
    assert err.startswith("runoff: rest_port (from RUNOFF_REST_PORT)")
