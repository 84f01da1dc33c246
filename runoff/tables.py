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
    """One answer: the gateway's JSON object, shown as two columns; lists of objects in it (variants, mirrors, labels) as tables below."""

    def table(self) -> Table:
        """What is no table of its own."""
        rows = [{"": name, "value": value} for name, value in self.items() if not _is_list_of_rows(value)]
        return Table(rows, ("", "value"))

    def tables(self) -> list[Table]:
        """The lists of objects, each with the columns that somebody has a value in; what is a list of objects again is for programs."""
        return [_flat(name, rows) for name, rows in self.items() if _is_list_of_rows(rows)]

    def __str__(self) -> str:
        plain = [(row[""], row["value"]) for row in self.table()]
        width = max((len(name) for name, _ in plain), default=0)
        lines = [f"{name.ljust(width)}  {shown(value)}" for name, value in plain]
        return "\n".join([*lines, *(f"\n{table}" for table in self.tables())])

    def _repr_html_(self) -> str:
        plain = [self.table()] if self.table() else []
        return "".join(table._repr_html_() for table in [*plain, *self.tables()])


def _flat(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    names = dict.fromkeys(name for row in rows for name in row)
    shown_names = [
        name
        for name in names
        if any(row.get(name) not in (None, {}, []) for row in rows)
        and not any(_is_list_of_rows(row.get(name)) for row in rows)
    ]
    return Table(rows, shown_names, title=title.replace("_", " "))


def _is_list_of_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


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
