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


def test_an_input_that_came_with_a_later_version_is_there_however_much_came_before(tmp_path):
    place = Place(tmp_path)
    for first in range(0, 12_000, 4_000):
        place.store(predictions([request(first + n) for n in range(4_000)], [0.5] * 4_000), writer=f"w-{first}")
    later = [Column("later", "INT64", (1,), bytes(8)), Column("wide", "FP32", (2,), bytes(8))]
    place.store(predictions([request(99_999)], [0.5], inputs=later), writer="worker-2")
    init(Settings(state_dir=str(tmp_path)), tmp_path / "repo", "phishing", force=False, as_json=False)
    views = (tmp_path / "repo" / "phishing.py").read_text()
    assert "Field(name='input_later', dtype=Int64)" in views
    assert "Field(name='input_wide', dtype=Array(Float32))" in views


def test_a_second_endpoint_goes_to_the_repository_that_is_there(tmp_path, capsys):
    place = Place(tmp_path)
    place.store(predictions([request(0)], [0.5]), predictions([request(1)], [0.5], endpoint="1.odd"))
    settings, repo = Settings(state_dir=str(tmp_path)), tmp_path / "repo"
    init(settings, repo, "phishing", force=False, as_json=True)
    before = {path: path.read_text() for path in repo.iterdir() if path.is_file()}
    init(settings, repo, "1.odd", force=False, as_json=False)
    assert "python train_e_1_odd.py" in capsys.readouterr().out
    added = {path.name for path in repo.iterdir() if path.is_file() and path not in before}
    assert added == {"e_1_odd.py", "train_e_1_odd.py"}
    assert all(path.read_text() == text for path, text in before.items())
    with pytest.raises(CommandFailed, match=r"e_1_odd.py is there already"):
        init(settings, repo, "1.odd", force=False, as_json=True)


def test_a_repository_with_another_offline_store_is_left_alone(tmp_path):
    Place(tmp_path).store(predictions([request(0)], [0.5]))
    (tmp_path / "feature_store.yaml").write_text("offline_store: {type: dask}")
    with pytest.raises(CommandFailed, match="wanted offline_store"):
        init(Settings(state_dir=str(tmp_path)), tmp_path, "phishing", force=False, as_json=True)
    assert not (tmp_path / "phishing.py").exists()
