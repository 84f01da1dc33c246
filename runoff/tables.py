"""Answers that look like what they are: ordinary lists and dicts that a notebook shows as tables and a terminal as columns."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


class Table(list[dict[str, Any]]):
    """A list of rows. `columns` are shown, in this order; the rows may hold more. `pandas.DataFrame(table)` works as it is."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = (), *, title: str = "") -> None:
        super().__init__(dict(row) for row in rows)
        self.columns = tuple(columns) or tuple(dict.fromkeys(name for row in self for name in row))
        self.title = title

    def cells(self) -> list[list[str]]:
        """The shown columns of every row, as text."""
        return [[shown(row.get(column)) for column in self.columns] for row in self]

    def __str__(self) -> str:
        lines = [list(self.columns), *self.cells()]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([*([self.title] if self.title else []), *text])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in self.cells())
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Reply(dict[str, Any]):
    """One answer: the gateway's JSON object, shown as two columns."""

    def table(self) -> Table:
        return Table(({"": name, "value": value} for name, value in self.items()), ("", "value"))

    def __str__(self) -> str:
        width = max((len(name) for name in self), default=0)
        return "\n".join(f"{name.ljust(width)}  {shown(value)}" for name, value in self.items())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def shown(value: object) -> str:
    """A cell's text: nothing for None, four significant digits for fractions, `a 90%, b 10%` for shares."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case Mapping():
            return ", ".join(f"{name} {shown(inner)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(shown(inner) for inner in value)
        case _:
            return str(value)
