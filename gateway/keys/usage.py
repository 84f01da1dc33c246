"""Says now and then which keys have been used, so that a list of keys shows which of them nobody would miss."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.keys.ring import KeyRing

TELL_S: Final = 10.0

Tell = Callable[[list[str]], Awaitable[bool]]
"""Has the ids of used keys written down; False: nobody did, and they are told again."""


async def tell_used(ring: KeyRing, tell: Tell, *, every_s: float = TELL_S) -> None:
    """Until it is cancelled. What was used in the last seconds of a process is not told: a last use is good to a minute anyway."""
    while True:
        await asyncio.sleep(every_s)
        ids = ring.take_used()
        if ids and not await tell(ids):
            ring.used_too(ids)
