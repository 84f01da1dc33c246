"""The lock on a state directory: one gateway each, and it is free the moment that its supervisor is gone, however it went."""

import fcntl
import os
from pathlib import Path


class StateTaken(Exception):
    """Another gateway runs on this state directory; the message names both."""


class StateLock:
    """Holds `lock` in the state directory while it is open. Children do not inherit it."""

    def __init__(self, state: Path) -> None:
        """Makes the directory (0700) if need be, and closes one of ours to others; raises StateTaken."""
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = state.stat()
        # One of somebody else was mounted, with rights that are his matter.
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            state.chmod(0o700)
        self._file = os.open(state / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode().strip() or "unknown"
            os.close(self._file)
            raise StateTaken(
                f"another gateway (process {holder}) runs on {state}; stop it, or choose another state_dir (RUNOFF_STATE_DIR)"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._file)
