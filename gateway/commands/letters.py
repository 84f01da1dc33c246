"""`runoff dead-letters`: what lies in the table of that name, and `--redrive`: its frames to the spool again, each once.

A letter leaves the table after its frame lies ready in `<state>/redrive`, and goes to the spool after that. Whatever was ended in
between is ended by the next run: what is still in the table had not left it.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from gateway.commands.talk import CommandFailed, grid, screen, show_json, show_lines
from gateway.settings import Settings
from gateway.spool.files import Files
from gateway.spool.segment import SegmentWriter
from gateway.streams.letters import letter_of, redriven
from gateway.streams.schema import DEAD_LETTERS, PARTITIONS
from gateway.streams.table import CommitFailed, LakeTable

_SHOWN: Final = ("letter", "at", "kind", "endpoint", "table", "reason")
_AT_ONCE: Final = 1000


def show_letters(settings: Settings, letters: Sequence[str], *, as_json: bool) -> None:
    """Without their frames, which may hold what not everybody may see. Raises CommandFailed."""
    table = _table(settings)
    rows = [] if table is None else list(_found(table, letters))
    told = [{name: row[name] for name in _SHOWN} | {"bytes": len(row["payload"])} for row in rows]
    if as_json:
        show_json([one | {"at": one["at"].isoformat()} for one in told])
    elif told:
        screen().print(grid(told, tuple(told[0]), title=f"{len(told)} dead letters"))
        show_lines("  runoff dead-letters --redrive gives them to the lake again")
    else:
        show_lines("no dead letters")


def redrive_letters(settings: Settings, letters: Sequence[str], *, as_json: bool) -> None:
    """Raises CommandFailed; what was given to the spool before stays there."""
    ready, spool = settings.state_path / "redrive", settings.state_path / "spool"
    if not settings.state_path.is_dir():
        raise CommandFailed(
            f"{settings.state_path}: no gateway has its state here; name it with --config or --state-dir"
        )
    os.umask(0o077)  # as the gateway whose lake and spool these are
    table = _table(settings)
    given: list[str] = []
    try:
        kept = set() if table is None else set(table.rows(["letter"])["letter"].to_pylist())
        given += _left_behind(ready, spool, kept)
        rows = [] if table is None else list(_found(table, letters))[:_AT_ONCE]
        if table is not None and rows:
            folders = {ready / redriven(row["letter"], row["table"], uuid4().hex): row["payload"] for row in rows}
            for folder, payload in folders.items():
                _spooled(folder, payload)
            table.drop(pc.field("letter").isin([row["letter"] for row in rows]))
            table.sync()
            given += _given(list(folders), ready, spool)
    except (CommitFailed, OSError) as error:
        raise CommandFailed(
            f"{error}; {len(given)} were given to the spool, the same command gives the rest"
        ) from error
    if as_json:
        show_json(given)
    else:
        show_lines(f"{len(given)} letters are in the spool again; those that still cannot be taken will come back here")


def _table(settings: Settings) -> LakeTable | None:
    uri = f"{settings.lake_uri}/dead_letters"
    try:
        return LakeTable(uri, DEAD_LETTERS, PARTITIONS) if LakeTable.exists(uri) else None
    except CommitFailed as error:
        raise CommandFailed(f"{uri} cannot be read: {error}") from error


def _found(table: LakeTable, letters: Sequence[str]) -> Iterator[dict[str, Any]]:
    is_asked = pc.field("letter").isin(pa.array(letters, pa.string())) if letters else None
    try:
        rows = table.rows([*_SHOWN, "payload"], is_asked)
    except CommitFailed as error:
        raise CommandFailed(str(error)) from error
    unknown = set(letters) - set(rows["letter"].to_pylist())
    if unknown:
        raise CommandFailed(f"no dead letter is called {', '.join(sorted(unknown))}; runoff dead-letters lists them")
    yield from rows.sort_by("at").to_pylist()


def _left_behind(ready: Path, spool: Path, kept: set[str]) -> list[str]:
    """What a run before this one had prepared: not yet taken out of the table, or not yet given."""
    folders = sorted(ready.iterdir()) if ready.is_dir() else []
    for folder in folders:
        if letter_of(folder.name) in kept:
            shutil.rmtree(folder)
    return _given([folder for folder in folders if letter_of(folder.name) not in kept], ready, spool)


def _spooled(folder: Path, payload: bytes) -> None:
    """A folder as of a writer that is gone, with this one frame."""
    writer = SegmentWriter(folder, bytes_max=4 * len(payload) + (1 << 20), durable=True)
    try:
        writer.append([payload])
        writer.sync()
    finally:
        writer.close()


def _given(folders: Sequence[Path], ready: Path, spool: Path) -> list[str]:
    files = Files()
    for folder in folders:
        files.rename(folder, spool / folder.name)
    if folders:
        files.sync_folder(spool)
        files.sync_folder(ready)
    return [letter_of(folder.name) for folder in folders]
