import pytest

from gateway.commands.feast import init
from gateway.commands.talk import CommandFailed
from gateway.settings import Settings
from routing.records import Column
from tests.kit.spooled import Place, predictions, request


def test_a_repository_names_what_the_endpoint_recorded_and_nothing_of_others(tmp_path, capsys):
    place = Place(tmp_path)
    other = predictions([request(1)], [0.5], endpoint="other", inputs=[Column("theirs", "INT64", (1,), bytes(8))])
    wide = Column("wide", "FP32", (2,), bytes(8))
    big = Column("big", "UINT64", (1,), bytes(8))
    place.store(predictions([request(0)], [0.5], endpoint="fraud-eu", inputs=[wide, big]), other)
    init(Settings(state_dir=str(tmp_path)), tmp_path / "repo", "fraud-eu", force=False, as_json=False)
    views = (tmp_path / "repo" / "fraud_eu.py").read_text()
    assert "Field(name='input_wide', dtype=Array(Float32))" in views
    assert "input_theirs" not in views
    assert "input_big" not in views  # Feast has no type that holds it
    compile(views, "fraud_eu.py", "exec")
    compile((tmp_path / "repo" / "train.py").read_text(), "train.py", "exec")
    assert "feast apply" in capsys.readouterr().out


def test_files_that_are_there_are_kept_unless_it_is_forced(tmp_path):
    Place(tmp_path).store(predictions([request(0)], [0.5]))
    (tmp_path / "train.py").write_text("mine")
    settings = Settings(state_dir=str(tmp_path))
    with pytest.raises(CommandFailed, match="is there already"):
        init(settings, tmp_path, "phishing", force=False, as_json=True)
    assert (tmp_path / "train.py").read_text() == "mine"
    init(settings, tmp_path, "phishing", force=True, as_json=True)
    assert "training_rows" in (tmp_path / "train.py").read_text()


def test_an_endpoint_without_records_is_said(tmp_path):
    Place(tmp_path).store(predictions([request(0)], [0.5]))
    with pytest.raises(CommandFailed, match="nothing of it is recorded"):
        init(Settings(state_dir=str(tmp_path)), tmp_path, "nobody", force=False, as_json=True)
