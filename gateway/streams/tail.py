"""The control process's loop that keeps the lake up to date: all blocking work in one thread named `lake`, and what it did in figures."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gateway.streams.lake import Lake, Tally
from gateway.streams.letters import DeadLetters
from gateway.streams.predictions import Answers
from gateway.streams.table import CommitFailed
from gateway.streams.upkeep import Deleted
from gateway.telemetry.log import EventLog

_log: Final = EventLog(__name__)
_IDLE_S: Final = 0.1
_RETRY_S: Final = 1.0
_ROUNDS_MAX: Final = 100
_COMPACT_US: Final = 3_600_000_000
_EXPIRE_US: Final = 600_000_000
_DELIVER_US: Final = 5_000_000
_FOLD_US: Final = 5_000_000
_FIRST_US: Final = 60_000_000
"""After a start both come soon, so that a process that is restarted every hour does them too."""


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


class LakeStream:
    """Tails every writer's segments under `spool` into the tables at `uri`.

    Commits when `commit_s` have passed since the oldest frame was read, or `frames_max` wait; compacts after `compact_every` commits
    or an hour, and then deletes files that nothing of the last `vacuum_after_h` hours needs. Every ten minutes rows go that are older
    than `retention_s` says, by endpoint; it is called on the thread `lake`. `figures` may be read from any thread.
    """

    def __init__(
        self,
        uri: str,
        spool: Path,
        *,
        answers: Answers,
        letters: Path,
        commit_s: float = 1.0,
        frames_max: int = 5000,
        compact_every: int = 200,
        vacuum_after_h: int = 24,
        retention_s: Callable[[], Mapping[str, int]] = dict,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._uri = uri
        self._spool = spool
        self._answers = answers
        self._letters = DeadLetters(letters, f"{uri}/dead_letters")
        self._commit_us = int(commit_s * 1_000_000)
        self._frames_max = frames_max
        self._compact_every = compact_every
        self._compact_at = compact_every
        self._compacted_us = clock_us() - _COMPACT_US + _FIRST_US
        self._expired_us = clock_us() - _EXPIRE_US + _FIRST_US
        self._delivered_us = self._folded_us = 0
        self._retention_s = retention_s
        self._vacuum_after_h = vacuum_after_h
        self._clock_us = clock_us
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lake")
        self._lake: Lake | None = None
        self._stalled_us: int | None = None
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
        """Deletes all that is about these units, as they are stored; what was recorded before the call is in it. Raises CommitFailed."""
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
                    clock_us=self._clock_us,
                    tally=self._tally,
                )
            done = self._advance(self._lake, flush)
            self._deliver()
            self._fold(self._lake, flush)
            self._compact(self._lake)
            self._expire(self._lake)
            self._show(self._lake, self._lake.failure, None if done else self._stalled_us)
        except Exception as error:  # noqa: BLE001  # a stream that ended would fill the spool: whatever it is, start over from the segments
            is_expected = isinstance(error, CommitFailed | OSError)
            _log.error("lake_failed", reason=str(error), error=None if is_expected else error)
            self._stalled_us = self._stalled_us or self._clock_us()
            self._close()
            self._show(None, f"{type(error).__name__}: {error}", self._stalled_us)
            return False
        if done:
            self._stalled_us = None
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
        if not flush and self._clock_us() - self._folded_us < _FOLD_US:
            return
        self._folded_us = self._clock_us()
        try:
            lake.fold(everything=flush)
        except CommitFailed as error:
            _log.warning("minutes_wait", reason=str(error))

    def _deliver(self) -> None:
        """Letters go by themselves: what keeps them from their table holds no record up."""
        if self._letters.failure is not None and self._clock_us() - self._delivered_us < _DELIVER_US:
            return
        self._delivered_us = self._clock_us()
        failed_before = self._letters.failure is not None
        if not self._letters.deliver() and not failed_before:
            _log.warning("dead_letters_wait", reason=self._letters.failure)

    def _compact(self, lake: Lake) -> None:
        """After enough commits, and each hour, so that also where little is written the files of deleted rows go in time."""
        commits, now_us = sum(self._tally.commits.values()), self._clock_us()
        if commits >= self._compact_at or now_us - self._compacted_us >= _COMPACT_US:
            self._compact_at, self._compacted_us = commits + self._compact_every, now_us
            lake.compact(self._vacuum_after_h)

    def _expire(self, lake: Lake) -> None:
        if self._clock_us() - self._expired_us < _EXPIRE_US:
            return
        self._expired_us = self._clock_us()
        deleted = lake.expire(self._retention_s())
        if any(deleted.values()):
            self._tally.expired += sum(deleted.values())
            _log.info("records_expired", **deleted)

    def _forget(self, units: Sequence[str]) -> Deleted:
        if not self._step(flush=True) or self._lake is None:
            raise CommitFailed(self.figures.failure or "the lake cannot be written")
        return self._lake.forget(units)

    def _is_due(self, lake: Lake) -> bool:
        since = lake.held_since_us
        return lake.held_frames >= self._frames_max or (
            since is not None and self._clock_us() - since >= self._commit_us
        )

    def _show(self, lake: Lake | None, failure: str | None, stalled_us: int | None) -> None:
        """A lake that cannot even be opened holds nothing: then its lag counts from when that began."""
        tally = self._tally
        held_us = None if lake is None else lake.held_since_us
        since_us = min((since for since in (held_us, stalled_us) if since is not None), default=None)
        self.figures = SinkFigures(
            lag_s=0.0 if since_us is None else max(self._clock_us() - since_us, tally.lag_us) / 1e6,
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
