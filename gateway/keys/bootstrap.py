"""The first key, from a file that the operator provides (a mounted secret): it may do everything for as long as the file is there.

It is kept nowhere else: every process reads the file, keeps the digest, and looks again when the file changes.
"""

from pathlib import Path
from typing import Final

from gateway.keys.key import digest_of
from gateway.telemetry.log import EventLog

log = EventLog(__name__)

LENGTH_MIN: Final = 32
_LENGTH_MAX: Final = 1024


class BootstrapInvalid(Exception):
    """The file holds no key that one could trust."""


class BootstrapFile:
    """`path` None: there is none, and never will be."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._digest: bytes | None = None

    def check(self) -> None:
        """For a start: a file that is there must hold a key. Raises BootstrapInvalid. An absent one is no fault: keys may exist."""
        if self._path is None:
            return
        try:
            self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise BootstrapInvalid(f"bootstrap_key_file: {self._path} cannot be read: {error.strerror}") from None
        _digest(self._path)

    def digest(self) -> bytes | None:
        """The digest of its key now; None without the file, or while it holds none. One `stat` where nothing has changed."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            self._seen = self._digest = None
            return None
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            self._seen = seen
            try:
                self._digest = _digest(self._path)
            except BootstrapInvalid as error:
                log.error("bootstrap_key_refused", problem=str(error))
                self._digest = None
        return self._digest


def _digest(path: Path) -> bytes:
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BootstrapInvalid(f"bootstrap_key_file: {path} cannot be read: {type(error).__name__}") from None
    if not LENGTH_MIN <= len(key) <= _LENGTH_MAX or not key.isascii() or not key.isprintable() or " " in key:
        raise BootstrapInvalid(
            f"bootstrap_key_file: {path}: wanted one line of {LENGTH_MIN} to {_LENGTH_MAX} ASCII characters without blanks, "
            "such as `openssl rand -hex 32` writes"
        )
    return digest_of(key)
