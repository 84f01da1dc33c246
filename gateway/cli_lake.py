"""The commands of the next iteration, `runoff dataset …`: names, options and help; what they do is in `gateway/commands/`.

They read and write the lake themselves, by the gateway's settings, whether it runs or not.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli_options import Config, Endpoint, Json, KeyFile, Reason, Url, settings_file

if TYPE_CHECKING:
    from gateway.settings import Settings

app = typer.Typer()
feast = typer.Typer(help="Work with the feature store (needs the extra `feast`).", no_args_is_help=True)
app.add_typer(feast, name="feast")

StateDir = Annotated[
    str | None, typer.Option("--state-dir", help="directory of all state; default: as the settings say")
]
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
    with_sensitive: Annotated[
        bool,
        typer.Option("--with-sensitive", help="add the attributes that the route keeps apart, as attribute_<name>"),
    ] = False,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Labelled predictions as rows to train on, with a digest and where every row came from."""
    from gateway.commands.dataset import make_dataset

    settings = _settings(config, state_dir)
    make_dataset(
        settings,
        endpoint,
        since=since,
        until=until,
        out=out,
        log_to=log_to,
        as_json=as_json,
        with_sensitive=with_sensitive,
    )


@app.command()
def replay(
    endpoint: Endpoint,
    against: Annotated[str, typer.Option("--against", help="the version to try: models:/phishing/7")],
    since: From = None,
    until: To = None,
    variant: Annotated[
        str | None, typer.Option(help="whose rows, and whom to compare with; default: the champion")
    ] = None,
    segment_by: Annotated[str | None, typer.Option(help="a column of the predictions, such as input_age")] = None,
    rows: Annotated[int, typer.Option(min=1, help="the newest rows of the window, at most")] = 1_000_000,
    with_sensitive: Annotated[
        bool, typer.Option("--with-sensitive", help="take inputs that the route keeps apart from where they lie")
    ] = False,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a recorded window to any version, and print the ledger that a mirror would have had. Serves nobody, stores nothing."""
    from gateway.commands.replay import run_replay

    run_replay(
        _settings(config, state_dir),
        endpoint,
        against=against,
        variant=variant,
        segment_by=segment_by,
        since=since,
        until=until,
        rows_max=rows,
        with_sensitive=with_sensitive,
        as_json=as_json,
    )


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="a file or a folder of CSV, JSON or Parquet; s3://bucket/folder too")],
    table: Annotated[str, typer.Option("--table", help="its name in the lake: ingested/<table>")],
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Take files of others into the lake as they are, each once, by its digest; nothing is checked, nothing left out."""
    from gateway.commands.ingest import take_files

    if not take_files(_settings(config, state_dir), source, table=table, as_json=as_json):
        raise typer.Exit(1)


@app.command("dead-letters")
def dead_letters(
    redrive: Annotated[
        bool, typer.Option("--redrive", help="give them to the lake again: once a newer release can read them")
    ] = False,
    letter: Annotated[list[str] | None, typer.Option("--letter", help="only this one; may be repeated")] = None,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Records that the lake could not take: whose they are, why they lie aside, and another try for them."""
    from gateway.commands.letters import redrive_letters, show_letters

    act = redrive_letters if redrive else show_letters
    act(_settings(config, state_dir), letter or (), as_json=as_json)


@app.command()
def forget(
    unit: Annotated[str, typer.Option("--unit", help="who, as callers name them: the user, the customer")],
    reason: Reason,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Delete what is recorded about one unit: its predictions, their shadows and labels. Needs the running gateway."""
    from gateway.commands.talk import gateway, show_json, show_lines, waiting

    with gateway(url, key_file) as client, waiting("rewriting the lake …"):
        reply = client.forget(unit, reason=reason)
    if as_json:
        show_json(reply)
        return
    first = ("predictions", "shadows", "labels")
    deleted = [(table, reply["deleted"].get(table, 0)) for table in first]
    deleted += [(table, rows) for table, rows in sorted(reply["deleted"].items()) if rows and table not in first]
    show_lines(", ".join(f"{rows} {table}" for table, rows in deleted) + " deleted")
    show_lines(
        "  out of the tables now, and out of the files within eight hours; what sinks were sent before is theirs to delete"
    )


@feast.command()
def init(
    folder: Annotated[Path, typer.Argument(help="folder of the feature repository; made if it is not there")],
    endpoint: Annotated[str, typer.Option("--endpoint", help="whose predictions, labels and latest answers")],
    force: Annotated[bool, typer.Option("--force", help="write over files that are there")] = False,
    state_dir: StateDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write a working Feast repository: entities, views and feature services over the lake."""
    from gateway.commands.feast import init as write

    write(_settings(config, state_dir), folder, endpoint, force=force, as_json=as_json)


def _settings(config: Path | None, state_dir: str | None) -> "Settings":
    from gateway.settings_sources import load

    return load({"state_dir": state_dir}, os.environ, settings_file(config))
