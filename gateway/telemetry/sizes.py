"""Size classes, for counters that tell whether it is the large requests that something happens to."""

from bisect import bisect_left
from typing import Final

BOUNDS: Final = (1 << 10, 16 << 10, 256 << 10)
CLASSES: Final = ("1KiB", "16KiB", "256KiB", "larger")


def size_class(size_bytes: int) -> str:
    """The smallest class that holds it: `1KiB` for anything up to that."""
    return CLASSES[bisect_left(BOUNDS, size_bytes)]
