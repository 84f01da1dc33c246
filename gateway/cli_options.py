"""Options that many commands have, under one name and with one help each."""

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str | None, typer.Option("--url", envvar="RUNOFF_URL", help="admin address of the gateway")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="file with the key (or RUNOFF_KEY)")]
Json = Annotated[bool, typer.Option("--json", help="for programs: JSON instead of a table")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="why; everybody sees it in the history")]
Wait = Annotated[float, typer.Option("--wait", min=0, max=300, help="seconds to wait until it is live; 0: do not")]
Endpoint = Annotated[str, typer.Argument(help="name of the endpoint")]
Since = Annotated[str | None, typer.Option("--since", help="only what arrived from this moment on, RFC 3339")]
Until = Annotated[str | None, typer.Option("--until", help="only what arrived before this moment, RFC 3339")]
Config = Annotated[Path | None, typer.Option("--config", help="settings file; default: runoff.toml, if it is there")]


def settings_file(config: Path | None) -> Path | None:
    """The file that was named (it must be there), else runoff.toml in this directory, if it is there."""
    default = Path("runoff.toml")
    return config or (default if default.exists() else None)
