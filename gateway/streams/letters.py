"""Frames that nobody can read: set aside one by one in the table `dead_letters`, so that they neither block the stream nor vanish.

On its way there a letter lies in a folder, synced before its frame is passed over: so a table that cannot be written holds nobody up.
It may hold anything that a record holds, sensitive attributes included, and is for the eyes of those who may see these.
"""

import datetime as dt
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from gateway.streams.arrow import times
from gateway.streams.conversion import TABLES_OF
from gateway.streams.schema import DEAD_LETTERS, PARTITIONS
from gateway.streams.table import CommitFailed, LakeTable
from models.files import replace_file

REDRIVEN: Final = "redrive"
"""First part of the name of a writer whose one frame was a letter: `redrive.<table>.<anything>.<letter>`."""
_ANY: Final = "any"
_WITH_ENDPOINT: Final = frozenset("pas")
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_KEPT_S: Final = 30 * 86_400
"""A letter that does not say whose it is: at most, and no longer than the shortest retention."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """Why a frame is here. `table`: which one could not take it, None: no table could be told."""

    writer: str
    sequence: int
    reason: str
    table: str | None
    at_unix_us: int

    @property
    def name(self) -> str:
        return f"{self.writer}-{self.sequence:012d}"


class DeadLetters:
    """Letters on their way, two files each in `folder` (`.frame`, `.json`), and the table at `uri`. For one thread.

    Putting the same frame again changes nothing. While `letters_max` wait for the table further ones are only counted, in `dropped`.
    """

    def __init__(self, folder: Path, uri: str, letters_max: int = 1000) -> None:
        self._folder = folder
        self._uri = uri
        self._letters_max = letters_max
        self._waiting = {path.stem for path in folder.glob("*.frame")}
        self._counted: set[str] = set()
        self._table: LakeTable | None = None
        self.count = 0
        self.dropped = 0
        self.failure: str | None = None

    def put(self, letter: Letter, payload: bytes) -> None:
        """Keeps one frame. Raises OSError: a frame that can be neither read nor set aside must not be passed over."""
        letter = _original(letter)
        if letter.name in self._waiting:
            return
        if len(self._waiting) >= self._letters_max:
            self.deliver()
        if len(self._waiting) >= self._letters_max:
            self.count += 1
            self.dropped += 1
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{letter.name}.frame"
        for file, data in ((path.with_suffix(".json"), msgspec.json.encode(letter)), (path, payload)):
            replace_file(file, data, durable=True)  # its segment will be deleted
        self._waiting.add(letter.name)
        self._counted.add(letter.name)
        self.count += 1

    def deliver(self) -> bool:
        """Brings what waits to the table, each once; False where that is not possible now, and `failure` says why."""
        if not self._waiting:
            return True
        try:
            table = self._opened()
            known = set(table.rows(["letter"])["letter"].to_pylist())
            found = [self._read(name) for name in sorted(self._waiting - known)]
            self.count -= len(self._counted & known)  # they came again after a crash
            self._counted.clear()
            if found:
                table.append(_rows(found), {})
                table.sync()
            for name in sorted(self._waiting):
                self._drop_file(name)
        except (CommitFailed, OSError) as error:
            self._table = None
            self.failure = str(error)
            return False
        self.failure = None
        return True

    def compact(self, vacuum_after_h: int) -> None:
        """Raises CommitFailed."""
        if LakeTable.exists(self._uri):
            self._opened().compact(vacuum_after_h)

    def expire(self, cutoffs: Mapping[str, dt.datetime], now: dt.datetime) -> int:
        """Deletes letters of the endpoints that are older than their cutoff, all others by the shortest retention. Raises CommitFailed."""
        if not LakeTable.exists(self._uri):
            return 0
        table, oldest = self._opened(), now - dt.timedelta(seconds=_KEPT_S)
        by: Any = pc.field("endpoint")
        latest = max([oldest, *cutoffs.values()])
        gone = 0
        for endpoint, cutoff in cutoffs.items():
            gone += table.drop((by == endpoint) & (pc.field("at") < pa.scalar(cutoff)))
        is_other = by.is_null() | ~by.isin(list(cutoffs))
        return gone + table.drop(is_other & (pc.field("at") < pa.scalar(latest)))

    def forget(self, parts: Collection[bytes]) -> int:
        """Deletes every letter whose frame holds one of `parts`, with all that stands in it. Raises CommitFailed and OSError."""
        wanted = re.compile(b"|".join(map(re.escape, sorted(parts)))) if parts else None
        if wanted is None:
            return 0
        waiting = [
            name for name in sorted(self._waiting) if wanted.search((self._folder / f"{name}.frame").read_bytes())
        ]
        for name in waiting:
            self._drop_file(name)
        if not LakeTable.exists(self._uri):
            return len(waiting)
        table = self._opened()
        kept = table.rows(["letter", "payload"])
        found = [one["letter"] for one in kept.to_pylist() if wanted.search(one["payload"])]
        gone = table.drop(pc.field("letter").isin(found)) if found else 0
        table.sync()
        return gone + len(waiting)

    def _opened(self) -> LakeTable:
        """The table as it is now: whoever redrives letters takes them out of it."""
        if self._table is None:
            self._table = LakeTable(self._uri, DEAD_LETTERS, PARTITIONS)
        self._table.reload()
        return self._table

    def _read(self, name: str) -> tuple[Letter, bytes]:
        path = self._folder / f"{name}.frame"
        return msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Letter), path.read_bytes()

    def _drop_file(self, name: str) -> None:
        path = self._folder / f"{name}.frame"
        for file in (path, path.with_suffix(".json")):
            with suppress(FileNotFoundError):
                file.unlink()
        self._waiting.discard(name)


def only_table(writer: str) -> str | None:
    """Of a writer whose frame was a letter, the one table that could not take it; None for all others: their frames go where they belong."""
    first, _, rest = writer.partition(".")
    table = rest.partition(".")[0]
    return table if first == REDRIVEN and table != _ANY else None


def redriven(letter: str, table: str | None, attempt: str) -> str:
    """The writer under which a letter is read again."""
    return f"{REDRIVEN}.{table or _ANY}.{attempt}.{letter}"


def letter_of(writer: str) -> str:
    """The letter that such a writer's frame was."""
    return writer.split(".", 3)[3]


def _original(letter: Letter) -> Letter:
    """Of a letter that was read again in vain, whose it was first."""
    if not letter.writer.startswith(REDRIVEN + "."):
        return letter
    writer, _, sequence = letter_of(letter.writer).rpartition("-")
    return msgspec.structs.replace(letter, writer=writer, sequence=int(sequence))


def _rows(letters: list[tuple[Letter, bytes]]) -> pa.Table:
    at, date = times([letter.at_unix_us for letter, _ in letters])
    told = [_told(payload) for _, payload in letters]
    columns = {
        "letter": [letter.name for letter, _ in letters],
        "endpoint": [endpoint for _, endpoint in told],
        "date": date,
        "at": at,
        "writer": [letter.writer for letter, _ in letters],
        "writer_sequence": [letter.sequence for letter, _ in letters],
        "kind": [kind for kind, _ in told],
        "table": [letter.table for letter, _ in letters],
        "reason": [letter.reason for letter, _ in letters],
        "payload": [payload for _, payload in letters],
    }
    return pa.table({name: pa.array(values, DEAD_LETTERS.field(name).type) for name, values in columns.items()})


def _told(payload: bytes) -> tuple[str | None, str | None]:
    """As far as a frame can be read: the table that its block is meant for, and its endpoint."""
    try:
        block: Any = msgspec.msgpack.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None, None
    if not isinstance(block, list) or not block or not isinstance(block[0], str) or block[0] not in TABLES_OF:
        return None, None
    endpoint = block[1] if block[0] in _WITH_ENDPOINT and len(block) > 1 else None
    is_name = isinstance(endpoint, str) and _ENDPOINT.fullmatch(endpoint)
    return TABLES_OF[block[0]][0], endpoint if is_name else None
