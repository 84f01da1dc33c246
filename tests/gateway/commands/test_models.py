import json
import sys

import pytest

from gateway import cli_models
from gateway.cli import main
from gateway.commands.models import version_of
from gateway.commands.talk import CommandFailed
from tests.kit.control import ServedControlPlane

ROUTE = """
endpoint: phishing
variants:
  - {name: champion, model: "models:/phishing@champion", weight: 90}
  - {name: challenger, model: "models:/phishing@challenger", weight: 10}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command line against a gateway with two versions; its status, standard output and standard error."""

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["runoff", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    with ServedControlPlane(tmp_path / "var") as plane:
        monkeypatch.setenv("RUNOFF_URL", plane.url)
        (tmp_path / "route.yaml").write_text(ROUTE)
        assert command("apply", tmp_path / "route.yaml", "--reason", "new")[0] == 0
        yield command


def test_an_endpoint_means_every_version_that_it_serves(run):
    status, out, _ = run("tune", "phishing", "--target-ms", "20")
    assert status == 0
    for text in ("phishing/1: 1 thread", "phishing/2: 1 thread", "target 20 ms a run", "chosen", "on the loop"):
        assert text in out
    status, out, _ = run("models")
    assert out.count("rows") >= 1
    assert "not tuned" not in out


def test_a_version_is_shown_whole_before_and_after_it_was_tuned(run):
    assert "not tuned on this machine: runoff tune models:/phishing/1" in run("models", "models:/phishing/1")[1]
    assert run("tune", "models:/phishing/1")[0] == 0
    assert "rows a run" in run("models", "phishing/1")[1]
    assert json.loads(run("models", "phishing/1", "--json")[1])["profile"]["rows_max"] >= 1


def test_json_is_the_profiles_as_the_gateway_answers_them(run):
    replies = json.loads(run("tune", "phishing", "--json")[1])
    assert [(reply["name"], reply["version"]) for reply in replies] == [("phishing", "1"), ("phishing", "2")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nix"], "endpoint 'nix' serves no model"),
        (["models:/phishing@champion"], "wanted models:/<name>/<version>"),
        (["models:/phishing/9"], "no version 9 of model 'phishing' was staged here"),
        (["models:/phishing/9", "--from-traffic"], "no endpoint serves phishing/9"),
        (["phishing", "--from-traffic"], "no answered request of endpoint 'phishing' is in the lake"),
    ],
)
def test_what_cannot_be_tuned_ends_as_one_line(run, words, said):
    status, _, err = run("tune", *words)
    assert status == 1
    assert said in err
    assert err.count("\n") == 1


def test_a_version_may_be_named_with_and_without_the_prefix():
    assert version_of("models:/phishing/3") == version_of("phishing/3") == ("phishing", "3")
    with pytest.raises(CommandFailed):
        version_of("phishing")


def test_both_commands_stand_in_the_table():
    assert {command.callback.__name__ for command in cli_models.app.registered_commands} == {"models", "tune"}
