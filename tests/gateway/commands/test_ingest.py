import pytest

from gateway.commands.ingest import take_files
from gateway.commands.talk import CommandFailed
from gateway.settings import Settings


def test_it_says_whether_every_file_was_taken(tmp_path, capsys):
    settings = Settings(state_dir=str(tmp_path / "var"))
    (tmp_path / "a.csv").write_text("id\n1\n")
    assert take_files(settings, str(tmp_path / "a.csv"), table="customers", as_json=False)
    assert "1 rows of 1 files added" in capsys.readouterr().out
    (tmp_path / "x.bin").write_bytes(b"\0\xff")
    assert not take_files(settings, str(tmp_path / "x.bin"), table="customers", as_json=False)
    assert "refused: neither CSV nor JSON nor Parquet" in capsys.readouterr().out


@pytest.mark.parametrize("table", ["", "../up", "a b", "_hidden"])
def test_a_table_has_a_plain_name(tmp_path, table):
    with pytest.raises(CommandFailed, match="--table"):
        take_files(Settings(state_dir=str(tmp_path)), "x", table=table, as_json=False)
