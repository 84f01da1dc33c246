"""One Delta table, written exactly once. How it is read: `gateway/streams/table_view.py`.

Each commit carries an application transaction for every writer whose rows it holds. delta-rs does not refuse a repeated one by
itself; what it refuses is a commit on a handle that others have overtaken. So a handle is loaded, asked what is committed, and the rows
after that are appended with the same handle; after any failure the handle is loaded anew and asked again.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError

from gateway.streams.shore import Shore

KEPT_H: Final = 6
"""How long files stay that were joined or rewritten: for readers that looked at the log before."""
_PROPERTIES: Final[dict[str, str | None]] = {
    "delta.logRetentionDuration": f"interval {KEPT_H} hours",
    # Each commit leaves one such file; every checkpoint names them all, and what it does not name is never deleted.
    "delta.deletedFileRetentionDuration": f"interval {KEPT_H + 2} hours",
    "delta.checkpointInterval": "100",
}

_TRIES: Final = 5
_FILE_BYTES: Final = 128 << 20
"""Files of this size are not joined any more."""
_WRITER: Final = WriterProperties(max_row_group_size=32_768, compression="ZSTD", compression_level=3)
"""Small groups, whose statistics let a reader pass over all but one when it looks for one prediction (`loadtests/points.py`)."""

_AFTER: Final = PostCommitHookProperties(cleanup_expired_logs=False)
"""Logs are trimmed in `compact` alone: there the checkpoint that stands for them is synced first."""


class CommitFailed(Exception):
    """A table could not be read or written. Rows may or may not be in it: load it again and ask what is committed."""


class _Overtaken(Exception):
    """A rewriting that stopped in between, after it had deleted `dropped` rows."""

    def __init__(self, dropped: int, reason: str) -> None:
        super().__init__(reason)
        self.dropped = dropped


class LakeTable:
    """A table at `uri`, made on first use with `schema`; for one thread of the one process that writes it."""

    def __init__(self, uri: str, schema: pa.Schema, partitions: Sequence[str]) -> None:
        """Raises CommitFailed where the table can be neither opened nor made."""
        self._uri = uri
        self._partitions = tuple(partitions)
        self._shore = Shore(uri)
        try:
            self._shore.mend()
            if not DeltaTable.is_deltatable(uri):
                self._shore.begin()
                DeltaTable.create(uri, schema, mode="ignore", partition_by=list(partitions), configuration=_PROPERTIES)
            self._delta = DeltaTable(uri)
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error
        if not self._shore.is_marked:
            self.sync()

    @staticmethod
    def exists(uri: str) -> bool:
        """Whether there is a table. Raises CommitFailed."""
        try:
            return DeltaTable.is_deltatable(uri)
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error

    @property
    def version(self) -> int:
        return int(self._delta.version())

    @property
    def is_set_back(self) -> bool:
        """Whether a power loss took the last commits, whose rows come again."""
        return self._shore.is_set_back

    @property
    def fields(self) -> list[pa.Field]:
        """The columns as of this handle."""
        return list(pa.schema(self._delta.schema().to_arrow()))

    def committed(self, writer: str) -> int:
        """The last sequence of `writer` in this table, 0 for none."""
        return int(self._delta.transaction_version(writer) or 0)

    def append(self, rows: pa.Table, transactions: Mapping[str, int]) -> None:
        """Commits `rows` and the sequence of each writer together, new columns included. Raises CommitFailed."""
        done = [Transaction(writer, sequence) for writer, sequence in transactions.items()]
        try:
            write_deltalake(
                self._delta,
                rows,
                mode="append",
                schema_mode="merge",
                commit_properties=CommitProperties(app_transactions=done),
                post_commithook_properties=_AFTER,
            )
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error

    def replace(self, rows: pa.Table, transactions: Mapping[str, int]) -> None:
        """Commits `rows` in place of all that is in their partitions, and the transactions with them. Raises CommitFailed."""
        done = [Transaction(name, version) for name, version in transactions.items()]
        touched = rows.select(list(self._partitions)).group_by(list(self._partitions)).aggregate([]).to_pylist()
        where = " OR ".join(
            "(" + " AND ".join(_sql(name, value) for name, value in one.items()) + ")" for one in touched
        )
        try:
            write_deltalake(
                self._delta,
                rows,
                mode="overwrite",
                predicate=where,
                commit_properties=CommitProperties(app_transactions=done),
                post_commithook_properties=_AFTER,
            )
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error

    def sync(self) -> None:
        """What is committed as of this handle outlives power loss. Raises CommitFailed."""
        try:
            self._shore.sync(self.version, self._active)
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error

    def _active(self) -> list[str]:
        return list(pa.table(self._delta.get_add_actions())["path"].to_pylist())

    def reload(self) -> None:
        """Loads what is committed now. Raises CommitFailed."""
        try:
            self._delta = DeltaTable(self._uri)
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error

    @property
    def files(self) -> int:
        """How many files the rows lie in."""
        return len(self._delta.file_uris())

    @property
    def partitions(self) -> list[dict[str, str | None]]:
        """The partition values that have rows."""
        return [dict(found) for found in self._delta.partitions()]

    def rows(
        self, columns: Sequence[str], where: Any = None, only: Mapping[str, Sequence[str]] | None = None
    ) -> pa.Table:
        """Some columns of the rows that fit the pyarrow expression `where`. Raises CommitFailed.

        `only`: the values of partition columns, as texts, that rows are looked for in. Files of others are not even listed, which for a
        year of days is most of the work.
        """
        within: Any = [(name, "in", list(values)) for name, values in (only or {}).items()] or None
        try:
            return self._delta.to_pyarrow_dataset(file_pruning_predicate=within).to_table(
                columns=list(columns), filter=where
            )
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise CommitFailed(str(error)) from error

    def drop_partitions(self, where: str) -> int:
        """Drops the partitions that fit the SQL condition, which names partition columns only; answers how many rows that was.

        Their files go with a later `compact`. Raises CommitFailed.
        """
        try:
            dropped = int(self._delta.delete(where, post_commithook_properties=_AFTER)["num_deleted_rows"] or 0)
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error
        return dropped

    def drop(self, is_gone: Any) -> int:
        """Writes every partition that has rows which fit the pyarrow expression anew, without them; answers how many rows that was.

        Not by Delta's own DELETE or MERGE: what those rewrite has a text type (string_view) that pyarrow's filters refuse from then on,
        and they keep the condition in the table's log, where a person must not be named. Raises CommitFailed.
        """
        dropped = 0
        for tries in range(_TRIES, 0, -1):
            try:
                return dropped + self._drop(is_gone)
            except _Overtaken as overtaken:
                dropped += overtaken.dropped
                if tries == 1:
                    raise CommitFailed(str(overtaken)) from overtaken
                self.reload()
        raise AssertionError("unreachable: the last try returns or raises")

    def _drop(self, is_gone: Any) -> int:
        """Raises _Overtaken where somebody committed since this handle was loaded: delta-rs then refuses to overwrite what it has not read."""
        dropped = 0
        try:
            dataset = self._delta.to_pyarrow_dataset()
            gone = dataset.to_table(columns=list(self._partitions), filter=is_gone).group_by(list(self._partitions))
            for found in gone.aggregate([([], "count_all")]).to_pylist():
                rows = found.pop("count_all")
                if not rows:  # a table without partitions
                    continue
                is_here = reduce(and_, (_is(name, value) for name, value in found.items()), pc.scalar(value=True))
                kept = dataset.scanner(filter=is_here & ~pc.coalesce(is_gone, pc.scalar(value=False)))
                # Without any predicate delta-rs would not look at what others committed meanwhile.
                where = " AND ".join(_sql(name, value) for name, value in found.items()) or "true"
                if kept.count_rows():
                    write_deltalake(
                        self._delta,
                        kept.to_reader(),
                        mode="overwrite",
                        predicate=where,
                        writer_properties=_WRITER,
                        post_commithook_properties=_AFTER,
                    )
                else:
                    self._delta.delete(where, post_commithook_properties=_AFTER)
                dropped += rows
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise _Overtaken(dropped, str(error)) from error
        return dropped

    def join(self) -> None:
        """Joins the small files of each partition, each with those that make as much together; raises CommitFailed.

        What is joined stays until a `compact` long after, so a file that grew by a little each time would fill the disk with its past.
        """
        files = pa.table(self._delta.get_add_actions(flatten=True))
        keys = [f"partition.{name}" for name in self._partitions]
        grouped = files.select([*keys, "size_bytes"]).group_by(keys).aggregate([("size_bytes", "list")])
        for found in grouped.to_pylist():
            joined = joined_bytes(found["size_bytes_list"])
            if joined:
                # The empty text stands for NULL.
                only = [(name, "=", str(found[f"partition.{name}"] or "")) for name in self._partitions]
                self._optimize(joined, only)

    def compact(self, vacuum_after_h: int) -> None:
        """Joins all small files, deletes files that no version of the last `vacuum_after_h` hours needs, and trims the log."""
        self._optimize(_FILE_BYTES)
        try:
            self._delta.create_checkpoint()
            self.sync()  # before anything is deleted that these stand for
            # `full`: also what no commit names, as a rewriting leaves it that was overtaken or killed.
            self._delta.vacuum(
                retention_hours=vacuum_after_h, enforce_retention_duration=False, dry_run=False, full=True
            )
            self._delta.cleanup_metadata()
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error

    def _optimize(self, bytes_max: int, only: list[tuple[str, str, Any]] | None = None) -> None:
        """Joins files up to that size, of the partitions that fit `only`."""
        try:
            self._delta.optimize.compact(
                partition_filters=only,
                target_size=bytes_max,
                writer_properties=_WRITER,
                post_commithook_properties=_AFTER,
            )
        except (DeltaError, OSError) as error:
            raise CommitFailed(str(error)) from error


def joined_bytes(sizes: Sequence[int]) -> int:
    """The bytes of the smallest files up to the largest that is no larger than all those before it together; 0: none is.

    So a file is rewritten when it doubles: a row as often as the logarithm of how many files it came in (what stores of log-structured
    merge trees call size-tiered compaction).
    """
    joined = before = 0
    for place, size in enumerate(sorted(sizes)):
        if place and size <= before:
            joined = before + size
        before += size
    return min(joined, _FILE_BYTES)


def _is(name: str, value: object) -> Any:
    return pc.field(name).is_null() if value is None else pc.field(name) == pc.scalar(value)


def _sql(name: str, value: object) -> str:
    """A partition in the log's own language; its values are names of endpoints and days."""
    return f"{name} IS NULL" if value is None else f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'"
