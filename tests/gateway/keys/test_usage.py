import asyncio
import sqlite3

from gateway.keys.usage import tell_used


class Ring:
    def __init__(self, *used):
        self.used = list(used)

    def take_used(self):
        taken, self.used = self.used, []
        return taken

    def used_too(self, ids):
        self.used += ids


async def told(ring, answers):
    """What was told until `answers` had been given."""
    heard, done = [], asyncio.Event()

    async def tell(ids):
        heard.append(ids)
        if len(heard) == len(answers):
            done.set()
        if isinstance(answer := answers[len(heard) - 1], Exception):
            raise answer
        return answer

    telling = asyncio.create_task(tell_used(ring, tell, every_s=0))
    async with asyncio.timeout(30):
        await done.wait()
    telling.cancel()
    return heard


async def test_what_was_used_is_told():
    ring = Ring("a", "b")
    assert await told(ring, [True]) == [["a", "b"]]
    assert ring.used == []


async def test_what_nobody_took_down_is_told_again():
    assert await told(Ring("a"), [False, True]) == [["a"], ["a"]]


async def test_a_state_that_is_full_or_locked_ends_nothing_and_is_told_again():
    locked = sqlite3.OperationalError("database is locked")
    assert await told(Ring("a"), [locked, locked, True]) == [["a"], ["a"], ["a"]]
