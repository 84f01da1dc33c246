"""Moves a registry alias after a promotion went live, and tries again while the registry is away: the outbox of `alias_moves`."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from gateway.state.revision import AliasMove
from gateway.state.store import StateStore
from gateway.telemetry.log import EventLog
from models.errors import ModelUnknown, RegistryUnavailable

RETRY_S: Final = (1.0, 5.0, 15.0, 60.0)
"""Pauses after failed attempts; the last one repeats, for as long as the registry is away."""
_LOOK_S: Final = 1.0

Move = Callable[[AliasMove], None]
"""Writes one alias to the registry. Blocking; raises RegistryUnavailable (tried again) or ModelUnknown (given up)."""

log = EventLog(__name__)


class AliasMover:
    """One task; one move at a time, in the order of the promotions, so that an alias never goes back to an older one."""

    def __init__(
        self, store: StateStore, move: Move, executor: Executor, *, pauses_s: tuple[float, ...] = RETRY_S
    ) -> None:
        self._store = store
        self._move = move
        self._executor = executor
        self._pauses_s = pauses_s

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            pause_s = await self.step()
            await asyncio.sleep(pause_s)

    async def step(self) -> float:
        """Tries the oldest move, if there is one; answers how long to pause."""
        move = next(iter(self._store.alias_moves()), None)
        if move is None:
            return _LOOK_S
        what = f"{move.name}@{move.alias} to version {move.version}"
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._move, move)
        except RegistryUnavailable as error:
            self._store.alias_moved(move, problem=str(error))
            log.warning("alias_move_postponed", move=what, revision=move.revision, problem=str(error))
            return self._pauses_s[min(move.attempts, len(self._pauses_s) - 1)]
        except ModelUnknown as error:
            self._store.alias_moved(move, problem=str(error), is_final=True)
            log.error("alias_move_refused", move=what, revision=move.revision, problem=str(error))
            return 0.0
        self._store.alias_moved(move)
        log.info("alias_moved", move=what, revision=move.revision)
        return 0.0
