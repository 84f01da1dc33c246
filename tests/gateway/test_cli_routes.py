import json
import sys

import pytest

from gateway.cli import main
from tests.kit.control import ServedControlPlane

ROUTE = """
endpoint: phishing
variants:
  - {name: champion, model: "models:/phishing@champion", weight: 90}
  - {name: challenger, model: "models:/phishing@challenger", weight: 10}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "route.yaml"
    path.write_text(ROUTE)
    return path


@pytest.fixture
def served(tmp_path, monkeypatch):
    with ServedControlPlane(tmp_path / "var") as plane:
        monkeypatch.setenv("RUNOFF_URL", plane.url)
        yield plane


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


@pytest.fixture
def applied(run, served, file):
    assert run("apply", file, "--reason", "new")[0] == 0


def test_check_needs_no_gateway_and_names_every_problem(run, file, tmp_path):
    assert run("check", file)[:2] == (0, f"{file}: phishing: ok\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text("endpoint: a b\ncolour: red\nvariants: []\n")
    status, out, _ = run("check", file, bad)
    assert status == 1
    assert "colour" in out
    assert "endpoint" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("endpoint: a\nendpoint: b\n", "stands twice"),
        ("endpoint: [\n", "bad.yaml"),
        ("- 1\n", "wanted a mapping"),
        ("", "no route document"),
    ],
)
def test_a_file_that_is_no_document_is_one_clear_line(run, tmp_path, text, words):
    bad = tmp_path / "bad.yaml"
    bad.write_text(text)
    status, _, err = run("check", bad)
    assert status == 1
    assert words in err
    assert err.startswith("runoff: ")
    assert err.count("\n") == 1


def test_apply_shows_what_changes_and_is_idempotent(run, served, file):
    status, out, _ = run("apply", file, "--reason", "new")
    assert status == 0
    assert "phishing: revision 1 is live" in out
    assert "variants.challenger: added" in out
    assert run("apply", file, "--reason", "again")[1] == "phishing: unchanged\n"
    file.write_text(ROUTE.replace("90", "50"))
    dry = run("apply", file, "--reason", "try", "--dry-run")[1]
    assert "weights: champion 90 → 50" in dry
    assert "of units move" in dry
    assert "revision 2 is live" in run("apply", file, "--reason", "even")[1]


def test_apply_takes_a_folder_and_goes_on_after_a_refusal(run, served, file, tmp_path):
    folder = tmp_path / "routes"
    folder.mkdir()
    (folder / "a.yaml").write_text(ROUTE.replace("phishing\n", "broken\n").replace("@champion", "@nobody"))
    (folder / "b.yaml").write_text(ROUTE)
    status, out, _ = run("apply", folder, "--reason", "all")
    assert status == 1
    assert "broken: refused" in out
    assert "phishing: revision" in out


def test_every_change_from_the_command_line(run, applied):
    even = run("split", "phishing", "champion=50", "challenger=50", "--reason", "even")[1]
    assert "50.4%" in even
    assert "  weights: champion 90 → 50, challenger 10 → 50\n" in even
    promoted = run("promote", "phishing", "challenger", "-m", "better")[1]
    assert "  champion: phishing/1 → phishing/2\n" in promoted
    assert "revision 4 is live" in run("rollback", "phishing", "-m", "worse")[1]
    out = run("history", "phishing")[1]
    assert "rollback" in out
    assert "better" in out
    assert "promote" in run("history")[1]
    audit = json.loads(run("history", "phishing", "--audit", "--json")[1])
    assert [row["action"] for row in audit][:2] == ["live", "rollback"]
    assert "rollback" in run("history", "--audit")[1]
    assert run("delete", "phishing", "-m", "over")[0] == 0
    assert "no routes yet" in run("routes")[1]


@pytest.mark.parametrize(
    "words",
    [
        ("routes",),
        ("history", "phishing"),
        ("status",),
        ("split", "phishing", "challenger=20", "-m", "x"),
        ("ledger", "phishing"),
        ("quality", "phishing"),
        ("apply", "FILE", "-m", "x"),
    ],
)
def test_programs_get_json(run, applied, file, words):
    status, out, _ = run(*(str(file) if word == "FILE" else word for word in words), "--json")
    assert status == 0
    assert json.loads(out)


def test_people_get_tables(run, applied):
    assert "champion 90.1%" in run("routes")[1]
    assert "0 workers" in run("status", "--once")[1]
    assert "nothing was mirrored yet" in run("ledger", "phishing")[1]
    assert "no predictions are stored yet" in run("quality", "phishing")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("split", "phishing", "challenger", "-m", "x"), "wanted <variant>=<weight>"),
        (("split", "phishing", "nobody=1", "-m", "x"), "nobody"),
        (("rollback", "phishing", "-m", "x"), "no revision was live before"),
        (("promote", "phishing", "nobody", "-m", "x"), "nobody"),
        (("history", "spam"), "spam"),
        (("predictions", "nix"), "no record of prediction"),
        (("routes", "--key-file", "/nowhere"), "key file"),
    ],
)
def test_what_fails_ends_with_a_status_and_a_clear_line(run, applied, words, message):
    status, _, err = run(*words)
    assert status == 1
    assert message in err
    assert "Traceback" not in err


def test_mirrors_of_every_kind_come_and_go(run, applied, served):
    served.shelf.publish("phishing", "7")
    shown = run(
        "mirror", "phishing", "candidate", "models:/phishing/7", "-m", "look", "--priority", "3", "--sample", "0.5"
    )
    assert "  mirrors.candidate: added (model models:/phishing/7, sample 0.5, priority 3)" in shown[1]
    remote = ("--remote", "http://127.0.0.1:9", "--protocol", "mlflow", "--until", "2030-01-01T00:00:00Z")
    assert run("mirror", "phishing", "staging", "theirs", "-m", "look", *remote)[0] == 0
    (route,) = json.loads(run("routes", "--json")[1])
    candidate, staging = route["mirrors"]
    assert (candidate["model"], candidate["sample"], candidate["priority"]) == ("models:/phishing/7", 0.5, 3)
    assert staging["remote"] == {"url": "http://127.0.0.1:9", "model": "theirs", "protocol": "mlflow"}
    assert staging["until"] == "2030-01-01T00:00:00Z"
    less = run("mirror", "phishing", "candidate", "-m", "less", "--sample", "0.1", "--body-bytes-max", "4096")[1]
    assert "mirrors.candidate.sample: 0.5 → 0.1" in less
    assert "mirrors.candidate.body_bytes_max: added (4096)" in less
    assert "priority" not in less
    ends = run("mirror", "phishing", "candidate", "-m", "end", "--until", "2037-01-02T00:00:00Z")[1]
    assert "mirrors.candidate.until: added (2037-01-02T00:00:00Z)" in ends
    assert "until: removed" in run("mirror", "phishing", "candidate", "-m", "no end", "--until", "never")[1]
    assert run("mirror", "phishing", "candidate", "-m", "what?")[0] == 1
    assert run("mirror", "phishing", "candidate", "--remove", "--sample", "1", "-m", "both")[0] == 1
    assert "--remote" in run("mirror", "phishing", "candidate", "--auth", "env:KEY", "-m", "where?")[2]
    assert "mirrors.candidate: removed" in run("mirror", "phishing", "candidate", "--remove", "-m", "enough")[1]
    refused = run("mirror", "phishing", "away", "m", "--remote", "http://evil.example", "-m", "x")
    assert refused[0] == 1
    assert "mirrors[1].remote.url" in refused[2]
    assert "remotes.allow" in refused[2]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (("champion=1", "champion=2"), "'champion' twice"),
        (("champion=nan",), "got 'champion=nan'"),
        (("champion=1e400",), "got 'champion=1e400'"),
        (("champion",), "got 'champion'"),
    ],
)
def test_weights_that_mean_nothing_are_one_clear_line(run, applied, weights, words):
    status, _, err = run("split", "phishing", *weights, "-m", "why")
    assert (status, err.count("\n")) == (1, 1)
    assert words in err


def test_a_dry_run_needs_no_reason_and_shows_shares_before_and_after(run, applied, file):
    assert "wanted --reason" in run("apply", file)[2]
    file.write_text(ROUTE.replace("weight: 90", "weight: 30"))
    status, out, _ = run("apply", file, "--dry-run")
    assert status == 0
    assert "weights: champion 90 → 30" in out
    assert "shares: champion 90.1% → " in out
