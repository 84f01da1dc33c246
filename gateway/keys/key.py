"""A key: `runoff_<id>_<secret>`. The id is public and names the key in lists and audits; of the secret only a digest is kept."""

import re
import secrets
from hashlib import sha256
from typing import Final

ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
"""256 bits: so much chance needs no slow hash, a plain SHA-256 cannot be searched."""
_FORM: Final = re.compile(r"runoff_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


def mint() -> tuple[str, str]:
    """A new key and its id."""
    key_id = secrets.token_hex(ID_BYTES)
    return f"runoff_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}", key_id


def id_of(credential: str) -> str | None:
    """The id in a key; None for anything else."""
    found = _FORM.fullmatch(credential)
    return found[1] if found else None


def digest_of(credential: str) -> bytes:
    """What is kept of a key, 32 bytes."""
    return sha256(credential.encode()).digest()
