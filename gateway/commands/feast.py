"""`runoff feast init`: writes a feature repository for an endpoint, from what the lake holds of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from gateway.commands.lake import local_lake
from gateway.commands.talk import CommandFailed, show_json, show_lines
from gateway.settings import Settings
from gateway.streams.feast_repo import OFFLINE_STORE, addition, repo
from gateway.streams.table import CommitFailed
from gateway.streams.table_view import TableView


def init(settings: Settings, folder: Path, endpoint: str, *, force: bool, as_json: bool) -> None:
    """A folder that is a repository of ours gets the endpoint beside the others.

    Raises CommandFailed, also where a file is there already (without `force`).
    """
    lake = local_lake(settings)
    make = addition if not force and _is_ours(folder) else repo
    files = make(folder, endpoint, lake, _inputs(lake, endpoint))
    taken = [path for path in files if path.exists()]
    if taken and not force:
        raise CommandFailed(f"{taken[0]} is there already; --force writes over it")
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, "utf-8")
    except OSError as error:
        raise CommandFailed(f"{folder} cannot be written: {error}") from error
    if as_json:
        show_json({"files": [str(path) for path in files]})
        return
    show_lines(*(f"wrote {path}" for path in files))
    show_lines(
        f"next: cd {folder} && feast apply && python {list(files)[-1].name}",
        f'online: add to runoff.toml  [sinks.feast] repo = "{folder.absolute()}"  and start the gateway again',
    )


def _is_ours(folder: Path) -> bool:
    """Whether there is a repository to which an endpoint can be added. Raises CommandFailed where it reads tables by another store."""
    try:
        text = (folder / "feature_store.yaml").read_text("utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{folder} cannot be read: {error}") from error
    if OFFLINE_STORE not in text:
        raise CommandFailed(
            f"{folder}/feature_store.yaml is there already: wanted offline_store: {{type: {OFFLINE_STORE}}}"
        )
    return True


def _inputs(lake: str, endpoint: str) -> list[object]:
    """The input columns that hold something in any of the endpoint's rows."""
    try:
        found = TableView(f"{lake}/predictions").dataset()
    except CommitFailed as error:
        raise CommandFailed(f"the lake cannot be read: {error}") from error
    if found is None:
        raise CommandFailed(f"no predictions in {lake}")
    _, dataset = found
    names = [name for name in dataset.schema.names if name.startswith("input_")]
    # By the files' footers: a scan that ends early leaves threads behind, which may abort the process when it ends.
    footers = [part.metadata for part in dataset.get_fragments(pc.field("endpoint") == endpoint)]
    if not any(footer.num_rows for footer in footers):
        raise CommandFailed(f"{endpoint}: nothing of it is recorded yet; ask it something first")
    filled = {name for footer in footers for name in _filled(footer, names)}
    return [dataset.schema.field(name) for name in names if name in filled]


def _filled(footer: Any, names: Sequence[str]) -> Iterator[str]:
    """The columns that hold more than nulls in a Parquet file."""
    for part in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(part.column, range(part.num_columns)):
            told = column.statistics
            if told is None or not told.has_null_count or told.null_count < column.num_values:
                path = column.path_in_schema  # of lists: `input_x.list.element`
                yield from (name for name in names if path == name or path.startswith(f"{name}.list."))
