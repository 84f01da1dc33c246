"""What a segment writer asks of the operating system, in one place: so that a shim can stand there and remember what a disk would hold."""

import os
from contextlib import suppress
from pathlib import Path

from models.files import sync


class Files:
    """The system's own calls, bound as they are: a write through here costs what `os.writev` costs.

    A subclass may override any of them (`tests/kit/power_loss.py` does). All raise OSError.
    """

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    write = staticmethod(os.write)
    writev = staticmethod(os.writev)
    truncate = staticmethod(os.ftruncate)
    datasync = staticmethod(os.fdatasync)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)

    def sync_folder(self, folder: Path) -> None:
        """Makes the entries of a folder durable: a synced file that no folder names is lost all the same."""
        sync(folder)

    def make_folder(self, folder: Path, *, durable: bool) -> None:
        """Makes a folder and those above it that are missing, for the owner alone. Raises FileExistsError where it is there already.

        `durable`: the entry of each is synced, up to the root: whoever made those above may not have done so.
        """
        for parent in reversed(folder.parents):
            with suppress(FileExistsError):
                if not parent.is_dir():
                    self.mkdir(parent, 0o700)
        self.mkdir(folder, 0o700)
        if durable:
            for parent in folder.absolute().parents:
                with suppress(PermissionError):  # what we may not read was not made by us
                    self.sync_folder(parent)
