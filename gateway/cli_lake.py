"""The commands of the next iteration, `runoff dataset …`: names, options and help; what they do is in `gateway/commands/`.

They read and write the lake themselves, by the gateway's settings, whether it runs or not.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli_options import Config, Endpoint, Json, settings_file

if TYPE_CHECKING:
    from gateway.settings import Settings

app = typer.Typer()

StateDir = Annotated[str | None, typer.Option("--state-dir", help="directory of all state; default: as the settings say")]
From = Annotated[str | None, typer.Option("--from", help="only what arrived from this date or moment on, RFC 3339")]
To = Annotated[str | None, typer.Option("--to", help="only what arrived before this date or moment, RFC 3339")]


@app.command()
def dataset(
    endpoint: Endpoint,
    since: From = None,
    until: To = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Parquet file; default: <endpoint>.parquet")] = None,
    log_to: Annotated[
        str | None, typer.Option("--log-to", help="MLflow experiment: log it there, with digest and lineage")
    ] = None,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Labelled predictions as rows to train on, with a digest and where every row came from."""
    from gateway.commands.dataset import make_dataset

    settings = _settings(config, state_dir)
    make_dataset(settings, endpoint, since=since, until=until, out=out, log_to=log_to, as_json=as_json)


def _settings(config: Path | None, state_dir: str | None) -> "Settings":
    from gateway.settings import load

    return load({"state_dir": state_dir}, os.environ, settings_file(config))
