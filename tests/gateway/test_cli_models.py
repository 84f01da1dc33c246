import pytest
from typer.testing import CliRunner

from gateway import cli_models


@pytest.mark.parametrize("command", ["models", "tune"])
def test_every_option_has_a_help(command):
    reply = CliRunner().invoke(cli_models.app, [command, "--help"], env={"COLUMNS": "200"})
    assert reply.exit_code == 0
    assert "--json" in reply.output
