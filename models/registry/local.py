"""Models that are folders (with an `MLmodel` file) or single ONNX files of this machine."""

import re
import shutil
from pathlib import Path
from typing import Final

from models.artifacts import digest_of, file_digest
from models.errors import ModelUnknown, ReferenceInvalid
from models.ref import ModelRef
from models.registry import ResolvedVersion
from models.staged import ModelKey

VERSION: Final = "1"
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_MARK_LENGTH: Final = 8


class LocalRegistry:
    """Paths as references write them; relative ones start at `root`. A model that was edited is another model."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path.cwd()

    def resolve(self, ref: ModelRef) -> ResolvedVersion:
        """The key is the file's name and a mark of its content: files of the same name in two folders are two models."""
        path = self._path(ref)
        mark = (digest_of(path) if path.is_dir() else file_digest(path))[:_MARK_LENGTH]
        name = _UNFIT.sub("-", path.name.removesuffix(".onnx")) or "model"
        return ResolvedVersion(key=ModelKey(f"{name}-{mark}", VERSION), uri=str(ref), source=f"{path}#{mark}")

    def download(self, resolved: ResolvedVersion, folder: Path) -> None:
        """Copies; links are copied as links, so that verification sees and refuses them."""
        path = Path(resolved.source.rpartition("#")[0])
        try:
            if path.is_dir():
                shutil.copytree(path, folder, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, folder / path.name, follow_symlinks=False)
        except OSError as error:
            raise ModelUnknown(f"model '{resolved.uri}' cannot be read: {error.strerror}") from error

    def _path(self, ref: ModelRef) -> Path:
        if ref.kind != "file":
            raise ReferenceInvalid(f"model '{ref}': wanted a folder or file of this machine")
        path = self._root / ref.name
        if path.is_dir() or (path.is_file() and path.suffix == ".onnx"):
            return path
        raise ModelUnknown(f"model '{ref}': wanted a folder with an MLmodel file or an .onnx file, found neither")
