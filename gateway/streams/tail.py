"""The control process's loop that keeps the lake up to date: all blocking work in one thread named `lake`, and what it did in figures."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gateway.streams.ingested import expire_ingested
from gateway.streams.lake import Lake, Tally
from gateway.streams.letters import DeadLetters
from gateway.streams.predictions import Answers
from gateway.streams.table import KEPT_H, CommitFailed
from gateway.streams.upkeep import Deleted, Request
from gateway.telemetry.log import EventLog
from models.files import replace_file
from routing.traffic import Retention

_log: Final = EventLog(__name__)
_IDLE_S: Final = 0.1
_RETRY_S: Final = 1.0
_ROUNDS_MAX: Final = 100
_COMPACT_S: Final = 3600.0
_EXPIRE_S: Final = 600.0
_DELIVER_S: Final = 5.0
_FOLD_S: Final = 5.0
_FIRST_S: Final = 60.0
"""After a start compaction and expiry come soon, so that a process that is restarted every hour does them too."""
_LATE_S: Final = 150.0
"""What was received is in the spool by then, also by way of mirrors: rows wait for a mirror up to a minute, and its server up to another."""
_FORGETS_MAX: Final = 1000


class SinkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What metrics and status show of the lake. `lag_s`: the age of the oldest record that is not in it yet, 0 when all are.

    `dead_letters`: frames that nobody could read, set aside in the table of that name; `missing`: frames that were written and never came (corruption);
    `torn_bytes`: what killed writers left half written; `expired`: rows that their retention took.
    `failure`: why nothing is committed now, None when all is well.
    """

    lag_s: float = 0.0
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    commits: dict[str, int] = msgspec.field(default_factory=dict)
    held_frames: int = 0
    held_bytes: int = 0
    dead_letters: int = 0
    expired: int = 0
    missing: int = 0
    torn_bytes: int = 0
    failure: str | None = None


class _Every:
    """An interval, by a monotonic clock: a wall clock that is set back holds nothing up."""

    def __init__(self, seconds: float, clock: Callable[[], float], first_s: float = 0.0) -> None:
        self._seconds = seconds
        self._clock = clock
        self._due_at = clock() + first_s

    def has_come(self) -> bool:
        """Whether it is over; then the next one begins."""
        is_due = self._clock() >= self._due_at
        if is_due:
            self.begin()
        return is_due

    def begin(self) -> None:
        self._due_at = self._clock() + self._seconds


class _Forget(msgspec.Struct, frozen=True):
    """Units, as they are stored, of which all is to be deleted that was received before this moment. `gone`: their predictions that were in the lake."""

    units: list[str]
    before_unix_us: int
    gone: list[Request] = []


class LakeStream:
    """Tails every writer's segments under `spool` into the tables at `uri`.

    Commits when `commit_s` have passed since the oldest frame was read, or `frames_max` wait; joins files after `join_every` commits
    or an hour, and then deletes files that nothing of the last `vacuum_after_h` hours needs. Every ten minutes rows go that are older
    than `retention` says, by endpoint; it is called on the thread `lake`. Every hour those of the tables of `runoff ingest` go that
    `ingested_s` names. `figures` may be read from any thread.

    `forgets`: a file with the units that are to be looked for once more, when all that was received before has come. `clock` is
    monotonic, `clock_us` the wall clock.
    """

    def __init__(
        self,
        uri: str,
        spool: Path,
        *,
        answers: Answers,
        letters: Path,
        forgets: Path,
        commit_s: float = 1.0,
        frames_max: int = 5000,
        join_every: int = 200,
        vacuum_after_h: int = KEPT_H,
        retention: Callable[[], Mapping[str, Retention]] = dict,
        ingested_s: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._uri = uri
        self._spool = spool
        self._answers = answers
        self._letters = DeadLetters(letters, f"{uri}/dead_letters")
        self._forgets_file = forgets
        self._forgets: list[tuple[float, _Forget]] | None = None
        self._commit_s = commit_s
        self._frames_max = frames_max
        self._join_every = join_every
        self._join_at = join_every
        self._compaction = _Every(_COMPACT_S, clock, _FIRST_S)
        self._expiry = _Every(_EXPIRE_S, clock, _FIRST_S)
        self._delivery = _Every(_DELIVER_S, clock)
        self._folding = _Every(_FOLD_S, clock)
        self._retention = retention
        self._ingested_s = ingested_s or {}
        self._vacuum_after_h = vacuum_after_h
        self._clock = clock
        self._clock_us = clock_us
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lake")
        self._lake: Lake | None = None
        self._stalled_s: float | None = None
        self._tally = Tally()
        self.figures = SinkFigures(rows=dict(self._tally.rows), commits=dict(self._tally.commits))

    async def run(self, stop: asyncio.Event) -> None:
        """Steps until `stop` is set, then commits what is there and ends. Trouble is logged, shown, and tried again."""
        while not stop.is_set():
            pause_s = _IDLE_S if await self.step() else _RETRY_S
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
        await self.step(flush=True)
        await self.close()

    async def step(self, *, flush: bool = False) -> bool:
        """Reads what is new and commits what is due (`flush`: all of it). False where something failed that a later step may mend."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._step, flush)

    async def forget(self, units: Sequence[str]) -> Deleted:
        """Deletes all that is about these units, as they are stored, and was received before the call. Raises CommitFailed.

        What mirrors had not come to then is deleted when it comes, within minutes, also by a successor of this process.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._forget, units)

    async def close(self) -> None:
        """Ends the thread; what was not committed stays in the spool."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # Everything below runs on the thread `lake`.

    def _step(self, flush: bool) -> bool:
        try:
            if self._lake is None:
                self._lake = Lake(
                    self._uri,
                    self._spool,
                    answers=self._answers,
                    letters=self._letters,
                    clock=self._clock,
                    clock_us=self._clock_us,
                    tally=self._tally,
                )
            done = self._advance(self._lake, flush)
            self._deliver()
            self._fold(self._lake, flush)
            self._compact(self._lake)
            self._expire(self._lake)
            if done:
                self._forget_late(self._lake)
            self._show(self._lake, self._lake.failure, None if done else self._stalled_s)
        except Exception as error:  # noqa: BLE001  # a stream that ended would fill the spool: whatever it is, start over from the segments
            is_expected = isinstance(error, CommitFailed | OSError)
            _log.error("lake_failed", reason=str(error), error=None if is_expected else error)
            self._stalled_s = self._clock() if self._stalled_s is None else self._stalled_s
            self._close()
            self._show(None, f"{type(error).__name__}: {error}", self._stalled_s)
            return False
        if done:
            self._stalled_s = None
        else:
            _log.warning("lake_failed", reason=self._lake.failure)
        return done

    def _advance(self, lake: Lake, flush: bool) -> bool:
        """Reads and commits until nothing more is due; False when a table failed."""
        for _ in range(_ROUNDS_MAX):
            taken = lake.read()
            if not (flush or self._is_due(lake) or not lake.held_frames):
                return True
            if not lake.commit():
                return False
            if not taken:
                return True
        return True

    def _fold(self, lake: Lake, flush: bool) -> None:
        """As letters, minutes keep nobody waiting: their parts are in the lake already."""
        if not flush and not self._folding.has_come():
            return
        self._folding.begin()
        try:
            lake.fold(everything=flush)
        except CommitFailed as error:
            _log.warning("minutes_wait", reason=str(error))

    def _deliver(self) -> None:
        """Letters go by themselves: what keeps them from their table holds no record up."""
        if self._letters.failure is not None and not self._delivery.has_come():
            return
        self._delivery.begin()
        failed_before = self._letters.failure is not None
        if not self._letters.deliver() and not failed_before:
            _log.warning("dead_letters_wait", reason=self._letters.failure)

    def _compact(self, lake: Lake) -> None:
        """Joins small files after enough commits; each hour also the larger ones, and the files of deleted rows go in time."""
        if self._compaction.has_come():
            lake.compact(self._vacuum_after_h)
            self._expire_ingested()
        elif sum(self._tally.commits.values()) >= self._join_at:
            lake.join()
        else:
            return
        self._join_at = sum(self._tally.commits.values()) + self._join_every

    def _expire(self, lake: Lake) -> None:
        if not self._expiry.has_come():
            return
        deleted = lake.expire(self._retention())
        if any(deleted.values()):
            self._tally.expired += sum(deleted.values())
            _log.info("records_expired", **deleted)

    def _expire_ingested(self) -> None:
        """These tables are written by others, and none of them must hold up the others or the lake."""
        for name, kept_s in self._ingested_s.items():
            uri = f"{self._uri}/ingested/{name}"
            try:
                gone = expire_ingested(uri, kept_s, self._clock_us(), self._vacuum_after_h)
            except CommitFailed as error:
                _log.warning("ingested_not_expired", table=name, reason=str(error))
                continue
            self._tally.expired += gone
            if gone:
                _log.info("ingested_expired", table=name, rows=gone)

    def _forget(self, units: Sequence[str]) -> Deleted:
        forget = _Forget(list(units), self._clock_us())
        waiting = self._waiting()
        if len(waiting) >= _FORGETS_MAX:
            raise CommitFailed(f"{_FORGETS_MAX} units are being forgotten already; ask again in {_LATE_S:.0f} s")
        # Noted first: whatever ends this half way, the rest follows.
        self._note([*waiting, (self._clock() + _LATE_S, forget)])
        while True:
            if not self._step(flush=True) or self._lake is None:
                raise CommitFailed(self.figures.failure or "the lake cannot be written")
            if not self._lake.is_behind:
                return self._forget_now(self._lake, forget)

    def _forget_now(self, lake: Lake, forget: _Forget) -> Deleted:
        """Predictions are noted before they go: a look at tables of labels, or a caller, may bring labels of them afterwards."""
        gone = lake.requests_of(forget.units, forget.before_unix_us)
        others = [(due_s, one) for due_s, one in self._waiting() if one is not forget]
        noted = msgspec.structs.replace(forget, gone=gone)
        self._note([*others, (self._clock() + _LATE_S, noted)])
        return lake.forget(forget.units, forget.before_unix_us)

    def _forget_late(self, lake: Lake) -> None:
        """Once more: what was received before the call and came by way of mirrors is in the spool by now."""
        waiting, now_s = self._waiting(), self._clock()
        late = [forget for due_s, forget in waiting if now_s >= due_s]
        if not late:
            return
        while lake.is_behind or lake.held_frames:
            if not self._advance(lake, flush=True):
                return
        for forget in late:
            deleted = lake.forget(forget.units, forget.before_unix_us, forget.gone)
            if any(deleted.values()):
                _log.info("forgotten_late", **deleted)
        self._note([(due_s, forget) for due_s, forget in waiting if forget not in late])

    def _waiting(self) -> list[tuple[float, _Forget]]:
        """The units that are to be looked for once more, and when. Raises CommitFailed where the file that names them cannot be read."""
        if self._forgets is None:
            try:
                left = msgspec.json.decode(self._forgets_file.read_bytes(), type=list[_Forget])
                self._forgets = [(self._clock() + _LATE_S, forget) for forget in left]
            except FileNotFoundError:
                self._forgets = []
            except msgspec.MsgspecError as error:
                raise CommitFailed(
                    f"{self._forgets_file}: {error}; delete it, and forget again whom you forgot last"
                ) from error
        return self._forgets

    def _note(self, forgets: list[tuple[float, _Forget]]) -> None:
        try:
            if forgets:
                replace_file(self._forgets_file, msgspec.json.encode([forget for _, forget in forgets]), durable=True)
            else:
                self._forgets_file.unlink(missing_ok=True)
        except OSError as error:
            raise CommitFailed(f"{self._forgets_file}: {error}") from error
        self._forgets = forgets

    def _is_due(self, lake: Lake) -> bool:
        since = lake.held_since_s
        return lake.held_frames >= self._frames_max or (since is not None and self._clock() - since >= self._commit_s)

    def _show(self, lake: Lake | None, failure: str | None, stalled_s: float | None) -> None:
        """A lake that cannot even be opened holds nothing: then its lag counts from when that began."""
        tally = self._tally
        held_s = None if lake is None else lake.held_since_s
        since_s = min((since for since in (held_s, stalled_s) if since is not None), default=None)
        self.figures = SinkFigures(
            lag_s=0.0 if since_s is None else max(self._clock() - since_s, tally.lag_us / 1e6),
            rows=dict(tally.rows),
            commits=dict(tally.commits),
            held_frames=0 if lake is None else lake.held_frames,
            held_bytes=0 if lake is None else lake.held_bytes,
            dead_letters=self._letters.count,
            expired=tally.expired,
            missing=tally.missing,
            torn_bytes=tally.torn_bytes,
            failure=failure,
        )

    def _close(self) -> None:
        if self._lake is not None:
            self._lake.close()
            self._lake = None
