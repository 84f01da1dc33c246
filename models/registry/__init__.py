"""Where models come from: an MLflow registry, or folders and files of this machine."""

from pathlib import Path
from typing import Protocol

import msgspec

from models.ref import ModelRef
from models.staged import ModelKey


class ResolvedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference means now. `uri` is its pinned spelling, `source` where the files are, `aliases` all of the version's."""

    key: ModelKey
    uri: str
    source: str
    aliases: tuple[str, ...] = ()


class Registry(Protocol):
    """Blocking by colour. Both sides are real: `registry.mlflow` and `registry.local`."""

    def resolve(self, ref: ModelRef) -> ResolvedVersion:
        """Raises ModelUnknown, RegistryUnavailable or ReferenceInvalid (a kind that this registry does not serve)."""
        ...

    def download(self, resolved: ResolvedVersion, folder: Path) -> None:
        """Copies the files into the empty `folder`. Raises as `resolve` does."""
        ...
