"""Questions to the stored records: one snapshot of the lake's tables, asked in SQL. The only room of DuckDB."""

import datetime as dt
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

import duckdb

from gateway.streams.schema import ARROW_OF, SCHEMAS
from gateway.streams.table import TableView

_MACROS: Final = """
CREATE MACRO plain(label) AS CASE lower(label) WHEN 'true' THEN '1.0' WHEN 'false' THEN '0.0'
    ELSE CASE WHEN length(label) <= 15 AND regexp_full_match(label, '[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?')
    THEN CAST(CAST(label AS DOUBLE) AS VARCHAR) ELSE label END END;
CREATE MACRO unix_us_of(id) AS CASE WHEN uuid_extract_version(id) = 7 THEN epoch_us(uuid_extract_timestamp(id)) END
"""
"""`plain`: two labels are equal when their plain forms are: as text, as numbers (`1`, `1.0`), or as booleans (`true`, `1`).
`unix_us_of`: when a prediction came, by its id (to the millisecond)."""

_FILES: Final = """
CREATE TEMP VIEW {name} AS FROM read_parquet(
    [{files}], union_by_name = true, hive_partitioning = true, hive_types = {{'endpoint': VARCHAR, 'date': DATE}})
"""
"""The files of one version of a table on a local disk, read by DuckDB itself: half the cost of reading them by way of Arrow."""

_EVER_US: Final = 4_102_444_800_000_000  # 2100

Row = dict[str, Any]


class Snapshot:
    """The tables as of one moment, as views of their names, and temporary tables beside them. For one thread."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        uri: str,
        tables: Mapping[str, tuple[int, Any]],
        files: Mapping[str, set[str]] | None = None,
    ) -> None:
        """`tables`: by name, the version and what is read (a pyarrow dataset or table); those of a dataset lie below `uri`.

        `files`: by name, which of a table's files are read, where that is not all.
        """
        self._connection = connection
        self.versions = {name: version for name, (version, _) in tables.items()}
        for name, (_, source) in tables.items():
            wanted = None if files is None else files.get(name)
            all_files = getattr(source, "files", ())
            read = [f"{uri}/{name}/{file}" for file in all_files if wanted is None or file in wanted]
            if not all_files or "://" in uri:
                connection.register(name, source)
            elif read:
                connection.execute(_FILES.format(name=name, files=", ".join(map(literal, read))))
            else:
                connection.register(name, source.schema.empty_table())
        self._columns: dict[str, dict[str, None]] = {}

    def columns(self, table: str) -> KeysView[str]:
        """The columns of a table, in their order."""
        if table not in self._columns:
            self._columns[table] = dict.fromkeys(one["column_name"] for one in self.rows(f"DESCRIBE {table}"))
        return self._columns[table].keys()

    def narrow(self, table: str, where: str, values: Sequence[object]) -> None:
        """From here on the table has only the rows that fit: who asks it again reads no file."""
        self.run(f"CREATE TEMP TABLE narrow_{table} AS SELECT * FROM {table} WHERE {where}", values)  # noqa: S608  # our own names
        self.run(f"CREATE OR REPLACE TEMP VIEW {table} AS FROM narrow_{table}")

    def run(self, sql: str, values: Sequence[object] = ()) -> None:
        self._connection.execute(sql, list(values))

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """The answer as one dict a row."""
        done = self._connection.execute(sql, list(values))
        names = [column[0] for column in done.description or ()]
        return [dict(zip(names, row, strict=True)) for row in done.fetchall()]

    def arrays(self, sql: str, values: Sequence[object] = ()) -> dict[str, Any]:
        """The answer as one numpy array a column; a column with nulls is a masked array."""
        return self._connection.execute(sql, list(values)).fetchnumpy()

    def batches(self, sql: str, values: Sequence[object] = (), *, rows: int) -> Any:
        """The answer as a pyarrow RecordBatchReader with about so many rows a batch; it is read before the snapshot ends."""
        return self._connection.sql(sql, params=list(values)).to_arrow_reader(rows)

    def take(self, name: str, rows: Any) -> None:
        """Lets an Arrow table be asked under a name, as long as the snapshot lives."""
        self._connection.register(name, rows)

    def keep_one(self, table: str, key: Sequence[str], order: str) -> None:
        """Of rows with the same key in a temporary table only the first by `order` stays. Looking costs a tenth of sorting."""
        names = ", ".join(key)
        if self.rows(f"SELECT count(*) > count(DISTINCT hash({names})) AS has FROM {table}")[0]["has"]:  # noqa: S608  # our own names
            self.run(
                f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * FROM {table}"  # noqa: S608  # see above
                f" QUALIFY row_number() OVER (PARTITION BY {names} ORDER BY {order}) = 1"
            )


class Queries:
    """Opens snapshots of the lake at `uri`, from any thread. `columns` of a table that does not exist yet are its base columns.

    `instead`: Arrow tables that are asked in place of the lake's own, by name.
    """

    def __init__(self, uri: str, *, instead: Mapping[str, Any] | None = None) -> None:
        self._uri = uri
        self._instead = dict(instead or {})
        self._connection = duckdb.connect(":memory:", config={"threads": 2})
        self._connection.execute(_MACROS)
        self._views = {name: TableView(f"{uri}/{name}") for name in SCHEMAS}
        self._ingested: dict[str, TableView] = {}
        self._lock = Lock()  # taken for a look at the log only, and no other lock is taken inside it

    def versions(self, tables: Iterable[str]) -> tuple[int, ...]:
        """The newest version of each table, −1 where it does not exist; equal versions mean equal answers."""
        with self._lock:
            found = [self._dataset(name) for name in tables]
        return tuple(-1 if one is None else one[0] for one in found)

    def recent(self, table: str, endpoint: str, rows_max: int) -> dt.date | None:
        """The first day of the newest whole days of an endpoint that hold at most `rows_max` rows (at least one day); None: no rows."""
        with self._lock:
            days = self._views[table].rows_by_day(endpoint)
        first, rows = None, 0
        for day in sorted(days, reverse=True):
            rows += days[day]
            if first is not None and rows > rows_max:
                break
            first = day
        return first

    def ingested(self, name: str, rows_max: int) -> tuple[int, Any] | None:
        """The version of a table of `runoff ingest` and its first rows as an Arrow table; None while there is none. Raises CommitFailed."""
        with self._lock:
            view = self._ingested.setdefault(name, TableView(f"{self._uri}/ingested/{name}"))
            found = view.dataset()
        return None if found is None else (found[0], found[1].head(rows_max))

    @contextmanager
    def snapshot(self, *tables: str, prediction_id: str | None = None) -> Iterator[Snapshot]:
        """The newest state of `tables`; with `prediction_id` only what may be about that prediction need be in them."""
        with self._lock:
            found = {name: self._dataset(name) for name in tables}
            files = (
                {} if prediction_id is None else {name: self._views[name].files_of(prediction_id) for name in tables}
            )
            connection = self._connection.cursor()  # what is registered and made in it is its own
        try:
            yield Snapshot(
                connection,
                self._uri,
                {name: one or (-1, SCHEMAS[name].empty_table()) for name, one in found.items()},
                {name: of for name, of in files.items() if of is not None},
            )
        finally:
            connection.close()

    def _dataset(self, name: str) -> tuple[int, Any] | None:
        return (0, self._instead[name]) if name in self._instead else self._views[name].dataset()


def window_us(since_unix_s: float | None, until_unix_s: float | None) -> list[int]:
    """The ends of a window [since, until) of Unix seconds, as microseconds for `make_timestamptz`; None is open."""
    return [int((since_unix_s or 0) * 1e6), _EVER_US if until_unix_s is None else int(until_unix_s * 1e6)]


def columns_of(snapshot: Snapshot, table: str, kind: str, tensor: str) -> list[str]:
    """The columns of a tensor in a table: one for each type under which it was stored (`gateway.streams.schema.Naming`)."""
    plain = f"{kind}_{tensor}"
    typed = [name for name in snapshot.columns(table) if name.startswith(plain + "__")]
    own = [name for name in typed if name.removeprefix(plain + "__").partition("_")[0] in ARROW_OF]
    return [plain, *own] if plain in snapshot.columns(table) else own


def quoted(name: str) -> str:
    """A column's name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a constant of SQL, where a parameter cannot stand (views)."""
    return "'" + text.replace("'", "''") + "'"
