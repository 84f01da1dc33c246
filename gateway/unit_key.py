"""The key under which units are hashed in records: one a state directory, made by whoever needs it first."""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from models.files import sync

KEY_BYTES: Final = 32


def unit_key(state: Path) -> bytes:
    """The 32 bytes of `unit.key`.

    Losing the file makes units of old and new records unlinkable, which is also how one makes them so on purpose.
    """
    path = state / "unit.key"
    key = made_once(path, lambda: secrets.token_bytes(KEY_BYTES))
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"{path}: wanted {KEY_BYTES} bytes, got {len(key)}; restore it, or delete it to begin with a new key"
        )
    return key


def made_once(path: Path, fresh: Callable[[], bytes]) -> bytes:
    """What stands in the file, made if it is not there. Several processes may ask at once: the first link wins, and all read the same."""
    if not path.exists():
        file, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # 0600
        draft = Path(name)
        try:
            os.write(file, fresh())
            os.fsync(file)
        finally:
            os.close(file)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        sync(path.parent)  # a key that power loss took would leave what it has hashed without its like
    return path.read_bytes()
