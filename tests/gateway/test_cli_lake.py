"""Commands that read and write the lake themselves, as a user types them, on a state directory without a running gateway."""

import json
import os
import re
import sys
import time

import mlflow
import numpy as np
import pytest
from pyarrow import parquet

from gateway import cli_lake
from gateway.cli import main
from gateway.commands.dataset import lineage_of
from routing.records import Column
from tests.kit import files
from tests.kit.spooled import Place, label, labels, pid_text, predictions, request

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("RUNOFF_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RUNOFF_STATE_DIR", str(tmp_path / "var"))
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path / "var")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command line; its status, standard output and standard error."""
    monkeypatch.setattr(os, "nice", lambda _: 0)  # the test process stays as it is

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["runoff", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return command


def test_every_command_of_the_lake_is_a_command_of_runoff(run):
    _, out, _ = run("--help")
    for command in cli_lake.app.registered_commands:
        assert (command.name or command.callback.__name__) in out


def test_a_data_set_is_a_parquet_file_with_its_lineage(run, place, tmp_path):
    place.store(predictions([request(n) for n in range(3)], [0.1, 0.9, 0.8]), labels(label(0, 0), label(2, 1)))
    status, out, err = run("dataset", "phishing", "--out", "rows.parquet")
    assert (status, err) == (0, "")
    assert "2 labelled rows of 3 predictions, 1 inputs, label int64" in out
    rows = parquet.read_table(tmp_path / "rows.parquet")
    assert rows["prediction_id"].to_pylist() == [pid_text(0), pid_text(2)]
    assert lineage_of(tmp_path / "rows.parquet")["digest"] in out


def test_a_data_set_is_logged_to_mlflow_with_its_digest_and_source(run, place, tmp_path):
    place.store(predictions([request(n) for n in range(3)], [0.1, 0.9, 0.8]), labels(*[label(n, 1) for n in range(3)]))
    status, out, err = run("dataset", "phishing", "--log-to", "next", "--json")
    assert status == 0, err
    told = json.loads(out)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/var/mlflow.db")
    found = mlflow.get_run(told["mlflow"]["run_id"])
    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("phishing", told["mlflow"]["digest"])
    assert told["digest"].startswith("sha256:" + given.dataset.digest)
    assert found.data.tags["runoff.revisions"] == "7"
    path = mlflow.artifacts.download_artifacts(run_id=found.info.run_id, artifact_path="dataset/phishing.parquet")
    assert parquet.read_table(path).num_rows == 3
    mlflow.set_tracking_uri(None)


def test_a_recorded_window_is_replayed_against_a_file_and_prints_its_ledger(run, place, tmp_path):
    file = files.binary(tmp_path / "next.onnx")
    values = np.tile(np.float32([[1, 1, 1, 1], [-1, -1, -1, -1]]), (10, 1))
    inputs = [Column("x", "FP32", (4,), values.astype("<f4").tobytes())]
    place.store(predictions([request(n) for n in range(20)], [0.9] * 20, inputs=inputs))
    status, out, err = run("replay", "phishing", "--against", file)
    assert (status, err) == (0, "")
    assert "50.00%" in out
    assert re.search(r"\nreplay +1 +0 +10 *\n", out), "what flipped"
    assert "20 of 20 predictions replayed" in out
    told = json.loads(run("replay", "phishing", "--against", file, "--json")[1])
    assert (told["mirrors"][0]["rows"], told["predictions"], told["without_inputs"]) == (20, 20, 0)


def test_what_cannot_be_replayed_is_said_in_one_line(run, place, tmp_path):
    file = files.binary(tmp_path / "next.onnx")
    place.store(predictions([request(0)], [0.9], inputs=[Column("y", "FP32", (1,), b"0000")]))
    assert "input 'x' of the version was never recorded" in run("replay", "phishing", "--against", file)[2]
    status, _, err = run("replay", "phishing", "--against", str(tmp_path / "none.onnx"))
    assert status == 1
    assert len(err.splitlines()) == 1


def test_files_are_ingested_once_and_what_is_no_table_is_said(run, place, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.csv").write_text("id,age\n1,30\n2,40\n")
    status, out, _ = run("ingest", inbox, "--table", "customers")
    assert status == 0
    assert "2 rows of 1 files added" in out
    (inbox / "x.bin").write_bytes(b"\0\xff")
    status, out, _ = run("ingest", inbox, "--table", "customers", "--json")
    assert status == 1
    assert [one["state"] for one in json.loads(out)["files"]] == ["known", "refused"]
    assert "no such file" in run("ingest", tmp_path / "none", "--table", "customers")[2]
    assert "--table: wanted" in run("ingest", inbox, "--table", "../../up")[2]


def test_a_feature_repository_is_written_once_and_for_an_endpoint_that_is_recorded(run, place, tmp_path):
    """That Feast applies it and gives its rows: tests/acceptance/test_feature_store.py."""
    pytest.importorskip("feast")
    now_us = time.time_ns() // 1000 - 60_000_000
    rows = [request(n, received_unix_us=now_us) for n in range(20)]
    place.store(predictions(rows, [0.9] * 20), labels(*[label(n, 1) for n in range(5)]))
    status, out, err = run("feast", "init", "repo", "--endpoint", "phishing")
    assert (status, err) == (0, "")
    assert "feast apply" in out
    assert "is there already" in run("feast", "init", "repo", "--endpoint", "phishing")[2]
    assert run("feast", "init", "repo", "--endpoint", "phishing", "--force")[0] == 0
    assert "nothing of it is recorded yet" in run("feast", "init", "other", "--endpoint", "nobody")[2]
    assert {"feature_store.yaml", "train.py"} <= {path.name for path in (tmp_path / "repo").rglob("*")}


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ((), "no lake at"),
        ((predictions([request(0)], [0.5], endpoint="other"),), "no answered prediction"),
        ((predictions([request(0)], [0.5]),), "none of 1 predictions has a label in time"),
    ],
)
def test_why_there_are_no_rows_is_said_in_one_line(run, place, stored, said):
    if stored:
        place.store(*stored)
    status, _, err = run("dataset", "phishing")
    assert status == 1
    assert said in err
    assert len(err.splitlines()) == 1
