"""What tells this gateway from others: one id a state directory, made by whoever needs it first."""

import re
import secrets
from pathlib import Path
from typing import Final

from gateway.unit_key import made_once

_ID: Final = re.compile(r"[0-9a-f]{16}")


def instance_id(state: Path) -> str:
    """The 16 hex digits of `instance.id`. Raises ValueError where the file holds something else."""
    path = state / "instance.id"
    found = made_once(path, lambda: secrets.token_hex(8).encode()).decode("ascii", "replace").strip()
    if not _ID.fullmatch(found):
        raise ValueError(f"{path}: wanted 16 hex digits, got {found[:32]!r}; delete it to begin with a new id")
    return found
