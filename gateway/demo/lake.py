"""What the gateway wrote down, as DuckDB views over its lake: the report knows nothing of the demo that does not stand there."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from gateway.demo.replay import ANSWERS_CSV, LABELS_CSV

if TYPE_CHECKING:
    import pandas as pd

_TABLES: Final = ("predictions", "shadows", "labels")


class LakeEmpty(Exception):
    """A table is not there yet."""


class Lake:
    """The lake at `uri` as of now, and the replay's own logs (`client_answers`, `client_labels`) beside it. For one thread."""

    def __init__(self, uri: str, client: Path) -> None:
        """Raises LakeEmpty."""
        import duckdb
        from deltalake import DeltaTable

        missing = [table for table in _TABLES if not DeltaTable.is_deltatable(f"{uri}/{table}")]
        if missing:
            raise LakeEmpty(f"the lake has no table yet: {', '.join(missing)}")
        self._duckdb = duckdb.connect()
        for table in _TABLES:
            self._duckdb.register(f"lake_{table}", DeltaTable(f"{uri}/{table}").to_pyarrow_dataset())
        self._duckdb.execute((Path(__file__).parent / "july.sql").read_text(encoding="utf-8"))
        for name, file in (("client_answers", ANSWERS_CSV), ("client_labels", LABELS_CSV)):
            self._duckdb.from_csv_auto(str(client / file), header=True).create(name)

    def frame(self, sql: str, parameters: dict[str, Any] | None = None) -> "pd.DataFrame":
        """The rows of a query."""
        return self._duckdb.execute(sql, parameters or {}).df()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query as plain values."""
        return self._duckdb.execute(sql).fetchall()

    def row(self, sql: str) -> dict[str, Any]:
        """The one row of a query, by column."""
        return {str(name): value for name, value in self.frame(sql).iloc[0].items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._duckdb.close()


def counts(uri: str) -> dict[str, int]:
    """Rows of each table now, from the log alone; what is not there has none."""
    from deltalake import DeltaTable

    return {
        table: _rows(DeltaTable(f"{uri}/{table}")) if DeltaTable.is_deltatable(f"{uri}/{table}") else 0
        for table in _TABLES
    }


def _rows(table: Any) -> int:
    return int(table.to_pyarrow_dataset().count_rows())
