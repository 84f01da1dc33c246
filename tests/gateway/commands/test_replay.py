import os

import pytest

from gateway.commands.replay import run_replay
from gateway.commands.talk import CommandFailed
from gateway.settings import Settings
from tests.kit import files
from tests.kit.spooled import Place, predictions, request


@pytest.fixture
def replay(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "nice", lambda _: 0)  # the test process stays as it is

    def run(endpoint="phishing", **more):
        asked = {"variant": None, "segment_by": None, "since": None, "until": None, "rows_max": 10, "as_json": True}
        run_replay(Settings(state_dir=str(tmp_path)), endpoint, **{**asked, **more})

    return run


def test_without_a_lake_there_is_nothing_to_replay(replay):
    with pytest.raises(CommandFailed, match="no lake"):
        replay(against="models:/phishing/7")


@pytest.mark.parametrize(("against", "said"), [("models:/m/latest", "latest"), ("./none.onnx", "none")])
def test_a_version_that_cannot_be_staged_is_said(replay, tmp_path, against, said):
    Place(tmp_path).store(predictions([request(0)], [0.5]))
    with pytest.raises(CommandFailed, match=said):
        replay(against=against)


def test_inputs_that_were_not_recorded_are_named(replay, tmp_path):
    Place(tmp_path).store(predictions([request(0)], [0.5], inputs=[]))
    with pytest.raises(CommandFailed, match="'x' of the version was never recorded"):
        replay(against=files.binary(tmp_path / "next.onnx"))
