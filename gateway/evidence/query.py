"""Questions to the stored records: one snapshot of the lake's tables, asked in SQL. The only room of DuckDB."""

import ctypes
import datetime as dt
import shutil
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from gateway.streams.arrow import id_floor
from gateway.streams.schema import ARROW_OF, SCHEMAS
from gateway.streams.table_view import TableView

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
    UNION ALL BY NAME FROM no_{name}
"""
"""The files of one version of a table on a local disk, read by DuckDB itself: half the cost of reading them by way of Arrow."""

_EVER_US: Final = 4_102_444_800_000_000  # 2100
_MEMORY: Final = "512MB"
"""A question takes no more of it, and goes on on the disk. What a million predictions need fits in."""

Row = dict[str, Any]


class Files(NamedTuple):
    """Parquet files on a local disk, of a table with these columns."""

    schema: pa.Schema
    paths: list[str]


class Snapshot:
    """The tables as of one moment, as views of their names, and temporary tables beside them. For one thread."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        tables: Mapping[str, tuple[int, Any]],
    ) -> None:
        """`tables`: by name, the version and what is read: files, or a pyarrow dataset or table."""
        self._connection = connection
        self.versions = {name: version for name, (version, _) in tables.items()}
        for name, (_, source) in tables.items():
            if not isinstance(source, Files):
                connection.register(name, source)
                continue
            # An empty table has the columns that files of an older release lack.
            nothing = f"no_{name}" if source.paths else name
            connection.register(nothing, source.schema.empty_table())
            if source.paths:
                connection.execute(_FILES.format(name=name, files=", ".join(map(literal, source.paths))))
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

    `instead`: Arrow tables that are asked in place of the lake's own, by name. `spill`: a folder of their own for what a long-lived process
    does not hold in memory; None, for a command that ends soon: it holds everything.
    """

    def __init__(self, uri: str, *, instead: Mapping[str, Any] | None = None, spill: Path | None = None) -> None:
        self._uri = uri
        self._instead = dict(instead or {})
        # Its cache takes no local file, but keeps a note of each that was ever read: one a second, for ever.
        config: dict[str, Any] = {"threads": 2, "enable_external_file_cache": False}
        if spill is not None:
            shutil.rmtree(spill, ignore_errors=True)  # of a predecessor that was killed
            spill.mkdir(mode=0o700, parents=True)
            config |= {"memory_limit": _MEMORY, "temp_directory": str(spill)}
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.execute(_MACROS)
        self._views = {name: TableView(f"{uri}/{name}") for name in SCHEMAS}
        self._ingested: dict[str, TableView] = {}
        self._lock = Lock()  # taken for a look at the log only, and no other lock is taken inside it

    def versions(self, tables: Iterable[str]) -> tuple[int, ...]:
        """The newest version of each table, −1 where it does not exist; equal versions mean equal answers."""
        with self._lock:
            return tuple(self._version(name) for name in tables)

    def recent(self, table: str, endpoint: str, rows_max: int) -> tuple[dt.date, int] | None:
        """The first of the newest whole days of an endpoint that hold at most `rows_max` rows, at least one day, and how many they hold; None: no rows."""
        with self._lock:
            days = self._views[table].rows_by_day(endpoint)
        found = None
        for day in sorted(days, reverse=True):
            rows = days[day] + (found[1] if found else 0)
            if found is not None and rows > rows_max:
                break
            found = day, rows
        return found

    def ingested(self, name: str, rows_max: int) -> tuple[int, Any] | None:
        """The version of a table of `runoff ingest` and its first rows as an Arrow table; None while there is none. Raises CommitFailed."""
        with self._lock:
            view = self._ingested.setdefault(name, TableView(f"{self._uri}/ingested/{name}"))
            found = view.dataset()
        return None if found is None else (found[0], found[1].head(rows_max))

    @contextmanager
    def snapshot(
        self,
        *tables: str,
        prediction_id: str | None = None,
        endpoint: str | None = None,
        since_unix_s: float | None = None,
    ) -> Iterator[Snapshot]:
        """The newest state of `tables`; with `prediction_id` only what may be about that prediction need be in them, with `endpoint` only
        what may be about its predictions, and with `since_unix_s` about those that came from then on: files of others are not opened.
        """
        only: dict[str, Any] = {"endpoint": endpoint}
        if prediction_id is not None:
            only = {"first": prediction_id, "last": prediction_id}
        by_day, by_id = only, only  # a label has the day on which it came
        if since_unix_s is not None and since_unix_s > 0:
            by_day = only | {"since": dt.datetime.fromtimestamp(since_unix_s, dt.UTC).date()}
            by_id = only | {"first": id_floor(since_unix_s)}
        with self._lock:
            found = {name: self._source(name, by_id if name == "labels" else by_day) for name in tables}
            connection = self._connection.cursor()  # what is registered and made in it is its own
        try:
            yield Snapshot(connection, found)
        finally:
            connection.close()

    def give_back(self) -> None:
        """Returns to the system what allocators keep of questions past: DuckDB's own keeps all of the dearest one (`loadtests/control_memory.py`)."""
        duckdb.connect(":memory:", config={"threads": 1}).close()  # the end of any database makes it let go
        pa.default_memory_pool().release_unused()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc; elsewhere nothing happens

    def _version(self, name: str) -> int:
        version = 0 if name in self._instead else self._views[name].newest()
        return -1 if version is None else version

    def _source(self, name: str, only: Mapping[str, Any]) -> tuple[int, Any]:
        """The newest version and what is read of it."""
        if name in self._instead:
            return 0, self._instead[name]
        view, uri = self._views[name], f"{self._uri}/{name}"
        if "://" in uri:
            return view.dataset() or (-1, SCHEMAS[name].empty_table())
        version = view.newest()
        if version is None:
            return -1, SCHEMAS[name].empty_table()
        return version, Files(view.schema, [f"{uri}/{file}" for file in view.files_of(**only)])


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
