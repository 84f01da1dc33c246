"""New rows of one table of the lake, in the order of their sequence: what further sinks read instead of the spool.

So a sink that is down for a week holds nothing up: its backlog is the lake itself, which has no bound but the retention.
"""

import datetime as dt
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from gateway.streams.fold import NUMBERED
from gateway.streams.table import CommitFailed
from gateway.streams.table_view import TableView

_WINDOW: Final = 20_000
"""Sequence numbers looked through at once, which bounds the rows of a portion; all tables share the numbers."""
_BYTES_MAX: Final = 32 << 20
"""Of one portion; rows with large inputs are looked through fewer at a time."""
_BATCH_ROWS: Final = 256


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """Rows above the position that was asked for; `last` is the position after them. `oldest_unix_s`: when the first was received."""

    rows: pa.Table
    last: int
    oldest_unix_s: float


class Feed:
    """Belongs to one thread."""

    def __init__(self, uri: str, table: str) -> None:
        self._view = TableView(f"{uri}/{table}")
        self._seen: tuple[int, int] | None = None
        self._window = _WINDOW

    def end(self) -> int:
        """The position after all rows that are there now. Raises CommitFailed."""
        self._view.dataset()
        return max((high for _, high in self._view.spans("sequence")), default=0)

    def given(self) -> int:
        """The last number that was ever given to a row of the table, also to one that was deleted since. Raises CommitFailed."""
        return self._view.committed(NUMBERED) if self._view.dataset() is not None else 0

    def after(self, position: int) -> Portion | None:
        """The next rows; None when there are none. Raises CommitFailed."""
        found = self._view.dataset()
        if found is None or self._seen == (found[0], position):
            return None
        version, dataset = found
        spans = self._view.spans("sequence")
        while True:
            starts = [max(low, position + 1) for low, high in spans if high > position]
            if not starts:
                self._seen = version, position
                return None
            last = min(starts) + self._window - 1
            rows = _read(dataset, min(starts), last)
            if rows is None:
                self._window //= 2
                continue
            if rows.nbytes < _BYTES_MAX // 4:
                self._window = min(_WINDOW, 2 * self._window)
            if rows.num_rows:
                last = pc.max(rows["sequence"]).as_py()
                return Portion(rows=rows, last=last, oldest_unix_s=_oldest(rows))
            position = last  # these numbers were deleted, or are other tables'


def _read(dataset: Any, first: int, last: int) -> pa.Table | None:
    """The rows of these numbers in their order; None when they are too large to be taken at once, and more than one."""
    try:
        is_due = (pc.field("sequence") >= first) & (pc.field("sequence") <= last)
        found = dataset.scanner(filter=is_due, batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=1)
        batches, size_bytes = [], 0
        for batch in found.to_batches():
            size_bytes += batch.nbytes
            if size_bytes > _BYTES_MAX and last > first:
                return None
            batches.append(batch)
        return pa.Table.from_batches(batches, found.projected_schema).sort_by("sequence")
    except (OSError, pa.ArrowException) as error:  # a file that a vacuum took: the next look sees the newer version
        raise CommitFailed(str(error)) from error


def _oldest(rows: pa.Table) -> float:
    name = "received_at" if "received_at" in rows.column_names else "minute"
    moment: dt.datetime = pc.min(rows[name]).as_py()
    return moment.timestamp()
