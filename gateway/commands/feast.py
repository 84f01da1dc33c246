"""`runoff feast init`: writes a feature repository for an endpoint, from what the lake holds of it."""

from pathlib import Path

import pyarrow.compute as pc

from gateway.commands.lake import local_lake
from gateway.commands.talk import CommandFailed, show_json, show_lines
from gateway.settings import Settings
from gateway.streams.feast_repo import repo
from gateway.streams.table import CommitFailed, TableView

_LOOK_ROWS = 10_000


def init(settings: Settings, folder: Path, endpoint: str, *, force: bool, as_json: bool) -> None:
    """Raises CommandFailed, also where a file is there already (without `force`)."""
    lake = local_lake(settings)
    files = repo(folder, endpoint, lake, _inputs(lake, endpoint))
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
        f"next: cd {folder} && feast apply && python train.py",
        f'online: add to runoff.toml  [sinks.feast] repo = "{folder.absolute()}"  and start the gateway again',
    )


def _inputs(lake: str, endpoint: str) -> list[object]:
    """The input columns that hold something in the endpoint's rows."""
    try:
        found = TableView(f"{lake}/predictions").dataset()
    except CommitFailed as error:
        raise CommandFailed(f"the lake cannot be read: {error}") from error
    if found is None:
        raise CommandFailed(f"no predictions in {lake}")
    _, dataset = found
    names = [name for name in dataset.schema.names if name.startswith("input_")]
    rows = dataset.filter(pc.field("endpoint") == endpoint).head(_LOOK_ROWS, columns=names or ["row"])
    if not rows.num_rows:
        raise CommandFailed(f"{endpoint}: nothing of it is recorded yet; ask it something first")
    return [rows.schema.field(name) for name in names if rows[name].null_count < rows.num_rows]
