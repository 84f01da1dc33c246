import pytest

from gateway.commands.dataset import lineage_of, make_dataset
from gateway.commands.talk import CommandFailed
from gateway.settings import Settings
from tests.kit.spooled import Place, label, labels, predictions, request

HASHED = {"inputs": [], "inputs_digest": ["aa"]}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def make(tmp_path, **more):
    asked = {"since": None, "until": None, "out": tmp_path / "rows.parquet", "log_to": None, "as_json": True} | more
    make_dataset(Settings(state_dir=str(tmp_path)), "phishing", **asked)


def test_a_file_carries_the_lineage_that_was_told(place, tmp_path):
    place.store(predictions([request(0)], [0.9]), labels(label(0, 1)))
    make(tmp_path)
    assert lineage_of(tmp_path / "rows.parquet")["rows"] == 1


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([predictions([request(0)], [0.5], endpoint="other")], "no answered prediction"),
        ([predictions([request(0)], [0.5])], "none of 1 predictions has a label in time"),
        ([predictions([request(0)], [0.5], **HASHED), labels(label(0, 1))], "none its inputs"),
    ],
)
def test_why_there_are_no_rows_is_said(place, tmp_path, stored, said):
    place.store(*stored)
    with pytest.raises(CommandFailed, match=said):
        make(tmp_path)
    assert not (tmp_path / "rows.parquet").exists()


def test_a_file_that_cannot_be_written_is_said(place, tmp_path):
    place.store(predictions([request(0)], [0.9]), labels(label(0, 1)))
    with pytest.raises(CommandFailed, match="cannot be written"):
        make(tmp_path, out=tmp_path / "none" / "rows.parquet")
