"""Moves a registry alias after a promotion went live, and tries again while the registry is away: the outbox of `alias_moves`.

An alias is written only while it names what it named at the first try: whoever moves it in between has had the last word, also when a
process died between the registry's yes and our note of it.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Final

from gateway.state.revision import AliasMove
from gateway.state.store import StateStore
from gateway.telemetry.log import EventLog
from models.errors import ModelUnknown, RegistryUnavailable

RETRY_S: Final = (1.0, 2.0, 5.0, 15.0)
"""Pauses after failed attempts; the last one repeats, for as long as the registry is away. `wake` ends any of them."""
_LOOK_S: Final = 1.0

Move = Callable[[AliasMove], None]
"""Writes one alias to the registry. Blocking; raises RegistryUnavailable (tried again) or ModelUnknown (given up)."""
Named = Callable[[AliasMove], str]
"""The version that the alias of a move names now, empty for none. Blocking; raises RegistryUnavailable."""

log = EventLog(__name__)


class AliasMover:
    """One task; one move at a time, in the order of the promotions, so that an alias never goes back to an older one."""

    def __init__(
        self,
        store: StateStore,
        named: Named,
        move: Move,
        executor: Executor,
        *,
        pauses_s: tuple[float, ...] = RETRY_S,
    ) -> None:
        self._store = store
        self._named = named
        self._move = move
        self._executor = executor
        self._pauses_s = pauses_s
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Tries at once: the registry was heard again."""
        self._woken.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                pause_s = await self.step()
            except sqlite3.Error as error:  # the state cannot be written now; the move still stands in it
                log.error("alias_move_not_noted", error=error)
                pause_s = self._pauses_s[-1]
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            self._woken.clear()

    async def step(self) -> float:
        """Tries the oldest move, if there is one; answers how long to pause."""
        move = next(iter(self._store.alias_moves.waiting()), None)
        if move is None:
            return _LOOK_S
        what = f"{move.name}@{move.alias} to version {move.version}"
        try:
            problem = await self._tried(move)
        except ModelUnknown as error:
            problem = str(error)
        except RegistryUnavailable as error:
            return self._postponed(move, what, str(error))
        except Exception as error:  # noqa: BLE001  # a registry of another release may raise anything, and control must outlive it
            log.error("alias_move_broke", error=error, move=what)
            return self._postponed(move, what, f"{type(error).__name__}: {error}")
        self._store.alias_moves.tried(move, problem=problem, is_final=bool(problem))
        if problem:
            log.error("alias_move_refused", move=what, revision=move.revision, problem=problem)
        else:
            log.info("alias_moved", move=what, revision=move.revision)
        return 0.0

    async def _tried(self, move: AliasMove) -> str:
        """Empty once the alias names the version; else why it must stay where it is."""
        named = await self._asked(self._named, move)
        if named == move.version:
            return ""
        if move.found is None:
            self._store.alias_moves.keep_found(move, named)
        elif named != move.found:
            now = f"names version {named}" if named else "is gone"
            return f"alias '{move.alias}' of model '{move.name}' {now} by now; somebody moved it after revision {move.revision}"
        await self._asked(self._move, move)
        return ""

    def _postponed(self, move: AliasMove, what: str, problem: str) -> float:
        self._store.alias_moves.tried(move, problem=problem)
        log.warning("alias_move_postponed", move=what, revision=move.revision, problem=problem)
        return self._pauses_s[min(move.attempts, len(self._pauses_s) - 1)]

    async def _asked(self, ask: Callable[[AliasMove], Any], move: AliasMove) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, ask, move)
