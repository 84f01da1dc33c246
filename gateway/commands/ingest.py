"""`runoff ingest`: files of others into the lake; a line a file."""

import datetime as dt
import os

import msgspec
import pyarrow as pa

from gateway.commands.talk import CommandFailed, show_json, show_lines, waiting
from gateway.settings import INGESTED_TABLE, Settings
from gateway.streams.ingest import Taken, ingest
from gateway.streams.table import CommitFailed


def take_files(settings: Settings, source: str, *, table: str, as_json: bool) -> bool:
    """Whether every file was taken. Raises CommandFailed."""
    if not INGESTED_TABLE.fullmatch(table):
        raise CommandFailed(f"--table: wanted 1 to 128 letters, digits, '_' or '-', got {table!r}")
    uri = f"{settings.lake_uri}/ingested/{table}"
    taken: list[Taken] = []
    os.umask(0o077)  # as the gateway whose lake this is
    try:
        with waiting(f"reading {source} …"):
            taken.extend(ingest(uri, source, dt.datetime.now(dt.UTC)))  # what was taken stays there when one raises
    except (OSError, CommitFailed, pa.ArrowException) as error:
        raise CommandFailed(
            f"{error}; {len(taken)} files were taken before, the same command takes the rest"
        ) from error
    if as_json:
        show_json({"table": uri, "files": [msgspec.structs.asdict(one) for one in taken]})
    else:
        show_lines(*map(_line, taken))
        added = [one for one in taken if one.state == "added"]
        show_lines(f"{uri}: {sum(one.rows for one in added)} rows of {len(added)} files added")
    return all(one.state != "refused" for one in taken)


def _line(one: Taken) -> str:
    told = {"added": f"{one.rows} rows", "known": "was taken before"}.get(one.state, f"refused: {one.reason}")
    return f"  {one.file}: {told}"
