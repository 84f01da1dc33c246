"""Where a table on a local disk is made to outlive power loss: deltalake syncs nothing of what it writes.

Segments of the spool are deleted once their rows are committed. Were a commit still in the page cache then, a power loss would take
rows that `durability: disk` had promised to keep; so it is synced first.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec

from models.files import sync

_LOG: Final = "_delta_log"


class _Add(msgspec.Struct):
    path: str


class _Action(msgspec.Struct):
    add: _Add | None = None


class Shore:
    """The files of one table. A table that is not on a local disk has none: its store keeps what it acknowledged."""

    def __init__(self, uri: str) -> None:
        self._table = None if "://" in uri else Path(uri)
        self._version: int | None = None

    def sync(self, version: int, active: Callable[[], Iterable[str]]) -> None:
        """Makes all commits up to `version` durable; `active` names all files of that version, as the log writes them. Raises OSError.

        What a predecessor committed may not have been synced either, so the first call looks at every file.
        """
        if self._table is None:
            return
        names = set(active() if self._version is None else self._added(self._version + 1, version, active))
        files = [self._table / unquote(name) for name in sorted(names)]
        folders = {parent for file in files for parent in file.parents if self._table in (parent, *parent.parents)}
        for path in (*files, *self._log(), *sorted(folders | {self._table / _LOG}, reverse=True)):
            with suppress(FileNotFoundError):  # vacuumed meanwhile
                sync(path)
        if self._version is None:
            for parent in self._table.absolute().parents:
                with suppress(PermissionError):  # what we may not read was not made by us
                    sync(parent)
        self._version = version

    def _added(self, first: int, last: int, active: Callable[[], Iterable[str]]) -> Iterable[str]:
        """The files that these commits added; all that there are where the log of one was trimmed."""
        try:
            return [name for version in range(first, last + 1) for name in self._names(version)]
        except FileNotFoundError:
            return active()

    def _names(self, version: int) -> Iterator[str]:
        assert self._table is not None
        for line in (self._table / _LOG / f"{version:020d}.json").read_bytes().splitlines():
            action = msgspec.json.decode(line, type=_Action)
            if action.add is not None:
                yield action.add.path

    def _log(self) -> list[Path]:
        """The log of every commit that was not synced, and the newest checkpoint."""
        assert self._table is not None
        log = self._table / _LOG
        first = f"{0 if self._version is None else self._version:020d}"  # that version's checkpoint may have come after its sync
        return [path for path in sorted(log.iterdir()) if path.name >= first and path.is_file()]
