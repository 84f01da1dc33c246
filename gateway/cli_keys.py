"""`runoff keys …`: names, options and help; what they do is in `gateway/commands/keys.py`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli_options import Config, Json, KeyFile, Reason, Url, settings_file

app = typer.Typer(
    help="Make, list, rotate and revoke keys. A key is `runoff_<id>_<secret>`; the id stands in lists, the secret nowhere.",
    no_args_is_help=True,
)

Local = Annotated[
    bool,
    typer.Option("--local", help="write into the state directory of this machine: for the first key, needs no gateway"),
]
StateDir = Annotated[str | None, typer.Option("--state-dir", help="with --local: the directory of all state")]
Out = Annotated[
    Path | None, typer.Option("--out", help="write the key into this new file (0600) instead of the terminal")
]
KeyId = Annotated[str, typer.Argument(help="the id, as `runoff keys list` shows it")]


@app.command("create")
def create(
    name: Annotated[str | None, typer.Argument(help="who the key is for; default: you")] = None,
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            "-s",
            help="what it may do: predict, label:phishing, read, … (repeat); with --local by default everything",
        ),
    ] = None,
    reason: Reason = "made by hand",
    expires: Annotated[str | None, typer.Option(help="how long it holds: 90d, 12h, 30m; left out: for ever")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="requests a second in each worker, at most")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="with --rate: how many at once")] = None,
    out: Out = None,
    local: Local = False,
    state_dir: StateDir = None,
    config: Config = None,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown this once, on standard output alone."""
    from gateway.commands import keys

    keys.check_free(out)
    order = keys.ordered(name, scopes or (), keys.seconds_of(expires), rate, burst, is_local=local)
    with keys.desk(url, key_file, _local(local, state_dir, config)) as desk:
        keys.show_made(desk.create(order, reason), out, as_json=as_json)


@app.command("list")
def list_keys(
    local: Local = False,
    state_dir: StateDir = None,
    config: Config = None,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Every key that there ever was: who it is for, what it may do, and until when."""
    from gateway.commands import keys

    with keys.desk(url, key_file, _local(local, state_dir, config)) as desk:
        keys.show_list(desk.list(), as_json=as_json)


@app.command("rotate")
def rotate(
    key_id: KeyId,
    reason: Reason,
    overlap: Annotated[str, typer.Option(help="how long the old key goes on beside the new one: 24h, 30m, 0s")] = "24h",
    out: Out = None,
    local: Local = False,
    state_dir: StateDir = None,
    config: Config = None,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make a successor with the same name, scopes and quota."""
    from gateway.commands import keys

    keys.check_free(out)
    with keys.desk(url, key_file, _local(local, state_dir, config)) as desk:
        keys.show_made(desk.rotate(key_id, reason, keys.seconds_of(overlap) or 0.0), out, as_json=as_json)


@app.command("revoke")
def revoke(
    key_id: KeyId,
    reason: Reason,
    local: Local = False,
    state_dir: StateDir = None,
    config: Config = None,
    url: Url = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """End a key, everywhere within a tenth of a second."""
    from gateway.commands import keys

    with keys.desk(url, key_file, _local(local, state_dir, config)) as desk:
        keys.show_revoked(desk.revoke(key_id, reason), as_json=as_json)


def _local(local: bool, state_dir: str | None, config: Path | None) -> Path | None:
    """The state file to write into; None: ask the gateway."""
    if not local:
        return None
    from gateway.settings_sources import load

    return load({"state_dir": state_dir}, os.environ, settings_file(config)).state_file
