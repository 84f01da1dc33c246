"""A small file that is replaced whole: whoever reads it finds the old one or the new one, also after a kill or a power loss."""

import os
import uuid
from pathlib import Path
from typing import Final

import msgspec

UNREADABLE: Final = (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading such a file may raise where it is not there, damaged, or of another release."""


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Puts `data` in the place of the file, readable for its owner alone; safe for several threads and processes at once. Raises OSError.

    `durable`: it outlives power loss once this returns. Otherwise a power loss may also leave the file empty (the name can reach the
    disk before the content), so its reader must know how to begin anew.
    """
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Makes a file, or the entries of a folder, durable. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
