"""Says now and then which keys have been used, so that a list of keys shows which of them nobody would miss."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.keys.ring import KeyRing
from gateway.telemetry.log import EventLog

TELL_S: Final = 10.0

Tell = Callable[[list[str]], Awaitable[bool]]
"""Has the ids of used keys written down; False, or sqlite3.Error: nobody did, and they are told again."""

log = EventLog(__name__)


async def tell_used(ring: KeyRing, tell: Tell, *, every_s: float = TELL_S) -> None:
    """Until it is cancelled. What was used in the last seconds of a process is not told: a last use is good to a minute anyway."""
    while True:
        await asyncio.sleep(every_s)
        ids = ring.take_used()
        if ids and not await _told(tell, ids):
            ring.used_too(ids)


async def _told(tell: Tell, ids: list[str]) -> bool:
    try:
        return await tell(ids)
    except sqlite3.Error as error:  # the disk is full, or somebody holds the state: no reason for control to end
        log.warning("key_use_not_noted", problem=str(error))
        return False
