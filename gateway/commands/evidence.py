"""How the ledger, quality and single predictions look in a terminal: scalars first, then each list as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from gateway.commands.talk import escaped, grid
from runoff.tables import shown


def show_evidence(reply: Mapping[str, Any], first: str) -> None:
    """`first` names the part that stands on top."""
    console = Console()
    scalars = {name: value for name, value in reply.items() if not isinstance(value, list)}
    for name, value in scalars.items():
        if value is not None and value != {}:
            console.print(f"[bold]{escaped(name)}[/bold]  {escaped(shown(value))}", highlight=False)
    parts = [name for name, value in reply.items() if isinstance(value, list)]
    for name in sorted(parts, key=lambda part: part != first):
        rows = [row if isinstance(row, Mapping) else {name: row} for row in reply[name]]
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            console.print()
            console.print(grid(rows, columns, title=name))
        else:
            console.print(f"[bold]{escaped(name)}[/bold]  none yet")
