"""Frames that nobody can read: set aside one by one, so that they neither block the stream nor vanish."""

from pathlib import Path
from typing import Final

import msgspec

from gateway.streams.shore import sync

_NAME: Final = "{writer}-{sequence:012d}"


class DeadLetters:
    """A folder with two files a letter: the payload (`.frame`) and why it is here (`.json`).

    Putting the same frame again changes nothing. Above `letters_max` files are no longer kept, only counted, in `dropped`.
    """

    def __init__(self, folder: Path, letters_max: int = 1000) -> None:
        self._folder = folder
        self._letters_max = letters_max
        self._kept = sum(1 for _ in folder.glob("*.frame"))
        self.count = 0
        self.dropped = 0

    def put(self, writer: str, sequence: int, payload: bytes, reason: str) -> None:
        """Keeps one frame. Raises OSError: a frame that can be neither read nor set aside must not be passed over."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / (_NAME.format(writer=writer, sequence=sequence) + ".frame")
        if path.exists():
            return
        self.count += 1
        if self._kept >= self._letters_max:
            self.dropped += 1
            return
        self._kept += 1
        told = {"writer": writer, "sequence": sequence, "reason": reason}
        for file, data in ((path.with_suffix(".json"), msgspec.json.encode(told)), (path, payload)):
            draft = file.with_name(file.name + ".new")
            draft.touch(mode=0o600)
            draft.write_bytes(data)
            sync(draft)
            draft.replace(file)
        sync(self._folder)  # its segment will be deleted
