"""What other processes are doing, as any kernel tells it."""

import psutil


def is_running(pid: int) -> bool:
    """Whether it is there, and more than an entry that its parent has yet to read."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def children(pid: int) -> list[int]:
    """Those that it started and that are still there; none where it is gone itself."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []
