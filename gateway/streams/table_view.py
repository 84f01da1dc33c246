"""One Delta table as readers see it: which version is the newest, and which of its files may hold what is asked for, by the log alone."""

import datetime as dt
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from gateway.streams.table import CommitFailed


class TableView:
    """A table as readers see it: follows the log, never writes. Not for two threads at once."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._delta: DeltaTable | None = None
        self._dataset: tuple[int, Any] | None = None
        self._listed: tuple[int, pa.Table] | None = None

    def newest(self) -> int | None:
        """The newest version, which all other calls are about; None while there is no such table. Raises CommitFailed."""
        try:
            self._delta = self._newest()
        except (DeltaError, OSError) as error:
            self._delta = self._dataset = self._listed = None
            raise CommitFailed(str(error)) from error
        return None if self._delta is None else int(self._delta.version())

    def dataset(self) -> tuple[int, Any] | None:
        """The newest version and its rows as a pyarrow dataset; None while there is no such table. Raises CommitFailed.

        It holds an object a file with all that the log says of it: of a lake of months that is more than its reader may need.
        """
        version = self.newest()
        if version is None or self._delta is None:
            return None
        if self._dataset is None or self._dataset[0] != version:
            self._dataset = version, self._delta.to_pyarrow_dataset()
        return self._dataset

    @property
    def schema(self) -> pa.Schema:
        """The columns as of the last look."""
        return pa.schema([] if self._delta is None else self._delta.schema().to_arrow())

    def committed(self, name: str) -> int:
        """The version of an application transaction, as of the last look; 0: there was none."""
        return 0 if self._delta is None else int(self._delta.transaction_version(name) or 0)

    def spans(self, column: str) -> list[tuple[int, int]]:
        """The least and largest value of a whole-numbered column in each file, as of the last look; from the log alone."""
        files = self._files()
        if not files.num_rows:
            return []
        found = zip(files[f"min.{column}"].to_pylist(), files[f"max.{column}"].to_pylist(), strict=True)
        return [(low, high) for low, high in found if low is not None]

    def files_of(
        self,
        first: str | None = None,
        last: str | None = None,
        *,
        endpoint: str | None = None,
        since: dt.date | None = None,
    ) -> list[str]:
        """The files, relative to the table, that may hold rows of an endpoint, of a day from `since` on, and about predictions with an
        id from `first` to `last` (None: any), as of the last look.

        By the log alone: ids begin with their time, so of a month only a day's file or two are left. Labels by prediction id do not say
        whose they are, and those by request id name no prediction, so they always may.
        """
        files = self._files()
        if not files.num_rows:
            return []
        names = [
            "path",
            "partition.endpoint",
            "partition.date",
            *(f"{end}.prediction_id" for end in ("min", "max", "null_count")),
        ]
        columns = [files[name].to_pylist() if name in files.schema.names else [None] * files.num_rows for name in names]
        found = []
        for path, of, day, low, high, nulls in zip(*columns, strict=True):
            if (endpoint is not None and of not in (None, "", endpoint)) or (since is not None and day < since):
                continue
            # Texts are cut short in the log: what a cut one begins with is compared.
            if (
                nulls != 0
                or low is None
                or high is None
                or ((last is None or low <= last) and (first is None or first[: len(high)] <= high))
            ):
                found.append(unquote(path))
        return found

    def rows_by_day(self, endpoint: str) -> dict[dt.date, int]:
        """How many rows of an endpoint each day has, from the table's log, without reading a row. Raises CommitFailed."""
        self.newest()
        files = self._files()
        days: dict[dt.date, int] = {}
        if not files.num_rows:
            return days
        columns = [files[name].to_pylist() for name in ("partition.endpoint", "partition.date", "num_records")]
        for of, day, rows in zip(*columns, strict=True):
            if of == endpoint:
                days[day] = days.get(day, 0) + rows
        return days

    def _files(self) -> pa.Table:
        """A row a file, with what the log says of it."""
        if self._delta is None:
            return pa.table({})
        version = int(self._delta.version())
        if self._listed is None or self._listed[0] != version:
            self._listed = version, pa.table(self._delta.get_add_actions(flatten=True))
        return self._listed[1]

    def _newest(self) -> DeltaTable | None:
        if self._delta is None:
            return DeltaTable(self._uri) if DeltaTable.is_deltatable(self._uri) else None
        try:
            self._delta.update_incremental()
        except (DeltaError, OSError):
            return DeltaTable(self._uri)  # the log was trimmed under a handle that was not used for days
        return self._delta
