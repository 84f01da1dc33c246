"""Where a table on a local disk is made to outlive power loss: deltalake syncs nothing of what it writes.

Segments of the spool are deleted once their rows are committed. Were a commit still in the page cache then, a power loss would take
rows that `durability: disk` had promised to keep; so it is synced first, and `_synced.json` in the table's folder says up to which
version that was done. Commits after it may be torn by a power loss, although their log says that they are done. Their segments are
still there: so the next process takes back all versions from the first torn one on, before anybody asks what is committed.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec
import pyarrow as pa
from pyarrow import parquet

from gateway.telemetry.log import EventLog
from models.files import replace_file, sync

_log: Final = EventLog(__name__)
_COMMITS: Final = "_delta_log"
_MARK: Final = "_synced.json"  # readers and vacuum leave out what begins with an underscore


class _File(msgspec.Struct):
    path: str
    size: int = 0


class _Action(msgspec.Struct):
    add: _File | None = None
    remove: _File | None = None


_Actions = list[_Action]


class _Checkpoint(msgspec.Struct):
    version: int


class _Mark(msgspec.Struct):
    """The last synced version, -1 for none, and whether later ones were taken back since."""

    version: int
    is_set_back: bool = False


class Shore:
    """The files of one table. A table that is not on a local disk has none: its store keeps what it acknowledged."""

    def __init__(self, uri: str) -> None:
        self._table = None if "://" in uri else Path(uri)
        self._version: int | None = None
        self._mark = self._read_mark()

    @property
    def is_marked(self) -> bool:
        """Whether it is known up to where the table was synced."""
        return self._table is None or self._mark is not None

    @property
    def is_set_back(self) -> bool:
        """Whether versions were taken back, and nothing was synced since."""
        return self._mark is not None and self._mark.is_set_back

    def begin(self) -> None:
        """Makes the folder of a new table, of which nothing is synced. Raises OSError."""
        if self._table is not None:
            self._table.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write_mark(_Mark(-1))

    def sync(self, version: int, active: Callable[[], Iterable[str]]) -> None:
        """Makes all commits up to `version` durable; `active` names all files of that version, as the log writes them. Raises OSError.

        What a predecessor committed may not have been synced either, so the first call looks at every file.
        """
        if self._table is None:
            return
        names = set(active() if self._version is None else self._added(self._version + 1, version, active))
        files = [self._table / unquote(name) for name in sorted(names)]
        folders = {parent for file in files for parent in file.parents if self._table in (parent, *parent.parents)}
        gone = [file for file in files if not _synced(file)]
        if gone and not {self._table / unquote(name) for name in active()}.isdisjoint(gone):
            raise FileNotFoundError(f"{gone[0]} is part of the table, and gone")  # else it was vacuumed meanwhile
        for path in (*self._log(), *sorted(folders | {self._table / _COMMITS}, reverse=True)):
            _synced(path)
        if self._version is None:
            for parent in self._table.absolute().parents:
                with suppress(PermissionError):  # what we may not read was not made by us
                    sync(parent)
        self._version = version
        if self._mark != _Mark(version):
            self._write_mark(_Mark(version))

    def mend(self) -> None:
        """Takes back what a power loss tore of the versions after the last sync, so that its rows come again. Raises OSError.

        To be called before the table is opened. What a kill alone ends is whole: then nothing is done.
        """
        if self._table is None or not (self._table / _COMMITS).is_dir():
            return
        numbers = {int(path.stem) for path in self._numbered() if path.suffix == ".json"}
        if self._mark is None:  # made by others, or before there were marks
            return
        self._mend_checkpoints(self._mark.version)
        versions: dict[int, _Actions] = {}
        for number in count(self._mark.version + 1):
            actions = self._actions(number) if number in numbers else None
            if actions is None:
                break
            versions[number] = actions
        good, reason = self._good(versions)
        if good < max(numbers, default=-1):
            self._take_back(good, reason or f"the log of version {good + 1} is torn")

    def _good(self, versions: dict[int, _Actions]) -> tuple[int, str | None]:
        """The last of these versions whose files are all whole, and which was not, None for none. A file that a later one removed does not matter."""
        assert self._mark is not None
        good, reason, is_whole = self._mark.version + len(versions), None, dict[str, bool]()
        while True:
            active: dict[str, int] = {}
            for number in range(self._mark.version + 1, good + 1):
                for action in versions[number]:
                    if action.add is not None:
                        active[action.add.path] = number
                        if action.add.path not in is_whole:
                            is_whole[action.add.path] = self._is_whole(action.add)
                    if action.remove is not None:
                        active.pop(action.remove.path, None)
            torn = {path: number for path, number in active.items() if not is_whole[path]}
            if not torn:
                return good, reason
            first = min(torn, key=torn.__getitem__)
            good, reason = torn[first] - 1, f"{first} is torn"

    def _is_whole(self, file: _File) -> bool:
        assert self._table is not None
        path = self._table / unquote(file.path)
        return path.is_file() and path.stat().st_size == file.size and _is_readable(path)

    def _take_back(self, good: int, reason: str) -> None:
        """Deletes the log after the version `good`, the newest first: a kill in between leaves a table that is to be mended still."""
        assert self._table is not None
        lost = sorted((path for path in self._numbered() if _number(path) > good), reverse=True)
        versions = sum(path.suffix == ".json" for path in lost)
        _log.error("lake_set_back", table=str(self._table), version=good, versions=versions, reason=reason)
        assert self._mark is not None
        self._write_mark(_Mark(self._mark.version, is_set_back=True))
        for path in lost:
            path.unlink()
        self._mend_checkpoints(good)
        sync(self._table / _COMMITS)

    def _mend_checkpoints(self, version: int) -> None:
        """Deletes checkpoints from `version` on that are torn: logs go after a checkpoint was synced, so all it stood for is still there."""
        assert self._table is not None
        for path in self._numbered():
            if path.suffix == ".parquet" and _number(path) >= version and not _is_readable(path):
                path.unlink()
        hint = self._table / _COMMITS / "_last_checkpoint"
        with suppress(FileNotFoundError):
            try:
                named = msgspec.json.decode(hint.read_bytes(), type=_Checkpoint).version
            except msgspec.DecodeError:
                named = -1
            if not any(_number(path) == named for path in self._numbered() if path.suffix == ".parquet"):
                hint.unlink()

    def _actions(self, version: int) -> _Actions | None:
        """What a commit did; None where its log is torn."""
        try:
            return list(self._read(version)) or None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _read(self, version: int) -> Iterator[_Action]:
        assert self._table is not None
        for line in (self._table / _COMMITS / f"{version:020d}.json").read_bytes().splitlines():
            yield msgspec.json.decode(line, type=_Action)

    def _added(self, first: int, last: int, active: Callable[[], Iterable[str]]) -> Iterable[str]:
        """The files that these commits added; all that there are where the log of one was trimmed."""
        try:
            found = [action.add for version in range(first, last + 1) for action in self._read(version)]
        except FileNotFoundError:
            return active()
        return [add.path for add in found if add is not None]

    def _log(self) -> list[Path]:
        """The log of every commit that was not synced, and the newest checkpoint."""
        assert self._table is not None
        log = self._table / _COMMITS
        first = f"{0 if self._version is None else self._version:020d}"  # that version's checkpoint may have come after its sync
        return [path for path in sorted(log.iterdir()) if path.name >= first and path.is_file()]

    def _numbered(self) -> list[Path]:
        """Logs and checkpoints, whose names begin with their version."""
        assert self._table is not None
        return [
            path for path in (self._table / _COMMITS).iterdir() if path.name[:20].isdigit() and path.name[20:21] == "."
        ]

    def _read_mark(self) -> _Mark | None:
        if self._table is None:
            return None
        try:
            return msgspec.json.decode((self._table / _MARK).read_bytes(), type=_Mark)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _write_mark(self, mark: _Mark) -> None:
        assert self._table is not None
        replace_file(self._table / _MARK, msgspec.json.encode(mark), durable=True)
        self._mark = mark


def _synced(path: Path) -> bool:
    """False where it is not there."""
    try:
        sync(path)
    except FileNotFoundError:
        return False
    return True


def _number(path: Path) -> int:
    return int(path.name[:20])


def _is_readable(path: Path) -> bool:
    """Whether every value of a Parquet file can be read."""
    try:
        with parquet.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    except (OSError, pa.ArrowException):
        return False
    return True
