"""Prediction ids: UUIDv7, minted here and nowhere else, unique over workers and restarts and rising in time within a worker."""

import os
import time
from collections.abc import Callable


class Minter:
    """Mints ids as (16 bytes, text). The millisecond's prefix and 74 random bits are drawn once a millisecond, then counted up.

    RFC 9562, section 5.7, with the monotonic counter of section 6.2 in `rand_b`. An id costs 0.4 µs so, against 1.4 µs for
    a fresh one each time (PERFORMANCE.md 8).
    """

    def __init__(
        self, clock_ns: Callable[[], int] = time.time_ns, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._clock_ns = clock_ns
        self._random_bytes = random_bytes
        self._ms = -1
        self._head = b""
        self._head_text = ""
        self._tail = 0

    def mint(self) -> tuple[bytes, str]:
        """The next id: its 16 bytes and its canonical text."""
        ms = self._clock_ns() // 1_000_000
        if ms != self._ms:
            self._turn_over(ms)
        self._tail += 1
        tail = self._tail
        text = f"{tail:016x}"
        return self._head + tail.to_bytes(8, "big"), f"{self._head_text}{text[:4]}-{text[4:]}"

    def _turn_over(self, ms: int) -> None:
        self._ms = ms
        chance = self._random_bytes(10)
        self._head = ms.to_bytes(6, "big") + bytes((0x70 | (chance[0] & 0x0F), chance[1]))
        head = self._head.hex()
        self._head_text = f"{head[:8]}-{head[8:12]}-{head[12:]}-"
        # variant bits 10, one zero bit as room for the counter, 61 random bits
        self._tail = (0b100 << 61) | (int.from_bytes(chance[2:], "big") >> 3)


def text_of(prediction_id: bytes) -> str:
    """The canonical text of an id."""
    head = prediction_id.hex()
    return f"{head[:8]}-{head[8:12]}-{head[12:16]}-{head[16:20]}-{head[20:]}"


def bytes_of(text: str) -> bytes | None:
    """The 16 bytes of a canonical text, None if it is not one."""
    if len(text) != 36 or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        return None
    try:
        return bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
