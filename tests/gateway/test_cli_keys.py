from typer.testing import CliRunner

from gateway import cli_options
from gateway.cli_keys import app


def test_every_command_of_keys_has_help_and_the_same_options():
    for verb in ("create", "list", "rotate", "revoke"):
        text = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
        assert all(option in text for option in ("--local", "--url", "--key-file", "--json")), verb


def test_a_settings_file_is_found_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli_options.settings_file(None) is None
    (tmp_path / "runoff.toml").touch()
    assert cli_options.settings_file(None) is not None
    assert cli_options.settings_file(tmp_path / "other.toml") == tmp_path / "other.toml"
