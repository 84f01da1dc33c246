"""How a command speaks: to a gateway through the thin client, to people in tables on standard output, about waiting on standard error."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table as Grid

from runoff import Runoff, Table
from runoff.tables import shown

_PIPE_WIDTH: Final = 200
_MOMENT: Final = re.compile(r"\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z")
"""People read seconds of UTC, without the letters."""
_TOLD: Final = ("key", "name", "scopes", "alias", "version", "step", "rows")
_LINES_MAX: Final = 4


class CommandFailed(Exception):
    """What the user of a command can mend; the message is the one line that they see."""


@contextmanager
def gateway(url: str | None, key_file: Path | None, data_url: str | None = None) -> Iterator[Runoff]:
    """A client; `url` None: RUNOFF_URL, else the default. Raises CommandFailed when the key file cannot be read."""
    key = None
    if key_file is not None:
        try:
            key = key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(f"the key file cannot be read: {error}") from error
    with Runoff(url, key=key, data_url=data_url) as client:
        yield client


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says on standard error, to people only, what is being waited for."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def show_json(value: object) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(
        json.dumps(value, indent=2, ensure_ascii=False, default=str)
    )


def show_lines(*lines: str) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in lines:
        console.print(line)


def screen() -> Console:
    """Standard output; wide where it is no terminal, so that a file or a pipe gets whole lines."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def show_table(table: Table, *, empty: str) -> None:
    """The table, or, without a row, a sentence that says what to do."""
    if not table:
        show_lines(empty)
        return
    screen().print(grid(table, table.columns, title=table.title))


def grid(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, title: str = "") -> Grid:
    drawn = Grid(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        drawn.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        drawn.add_row(*(escaped(_MOMENT.sub(r"\1 \2", shown(row.get(column)))) for column in columns))
    return drawn


def escaped(text: str) -> str:
    """Text of others, without what rich would take for markup."""
    return text.replace("[", r"\[")


def percents(shares: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {share:.1%}" for name, share in shares.items())


def change_lines(reply: Mapping[str, Any]) -> list[str]:
    """What came of a change, for people."""
    what = f"revision {reply['revision']} is {reply['state']}" if "revision" in reply else reply["state"]
    if "followed_by" in reply:  # it was live, and a step or an alias has taken its place already
        what = f"revision {reply['revision']} was made live, and followed by {reply['followed_by']}"
    lines = [f"{reply['endpoint']}: {what}"]
    if reply.get("shares"):
        lines.append(f"  {percents(reply['shares'])}")
    return [*lines, *(f"  {change}" for change in reply.get("changes", ()))]


def about(detail: Mapping[str, Any]) -> str:
    """What a line of the audit holds beside its columns, for people: what was changed, which versions, which key; no digests."""
    told = [str(change) for change in detail.get("changes", ())]
    told += [problem["message"] for problem in detail.get("problems") or () if isinstance(problem, dict)]
    told += [f"{arm} {model}" for arm, model in (detail.get("models") or {}).items()]
    named = ", ".join(f"{name} {shown(detail[name])}" for name in _TOLD if detail.get(name) is not None)
    return few([*told, *([named] if named else [])])


def few(lines: Sequence[str]) -> str:
    """The first lines of a cell, and how many more there are."""
    more = [f"… and {len(lines) - _LINES_MAX} more"] if len(lines) > _LINES_MAX else []
    return "\n".join([*lines[:_LINES_MAX], *more])
