"""The references of the endpoints, kept in files: the rows that they were made of go with their retention, they stay."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from models.files import replace_file
from routing.traffic import Route

if TYPE_CHECKING:
    from gateway.evidence.drift import Reference, Stability
    from gateway.evidence.evidence import Evidence


class References:
    """For one thread at a time. A file an endpoint and champion's version in `folder`; names of endpoints and digests of versions only."""

    def __init__(self, folder: Path, evidence: Callable[[], "Evidence"]) -> None:
        self._folder = folder
        self._evidence = evidence

    def drift(
        self, route: Route, champion: tuple[str, str], variant: str, version: str, now_unix_s: float
    ) -> "dict[str, Stability]":
        """By feature, how far the newest rows of a variant lie from the reference; empty while either has too few.

        `champion`: model and version. Raises CommitFailed, and OSError where the reference cannot be kept.
        """
        reference = self._reference(route.endpoint, champion, now_unix_s)
        if reference is None:
            return {}
        return self._evidence().drift(reference, route.endpoint, variant, version, now_unix_s)

    def _reference(self, endpoint: str, champion: tuple[str, str], now_unix_s: float) -> "Reference | None":
        from gateway.evidence.drift import Reference

        model, version = champion
        path = self._folder / f"{endpoint}.json"
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=Reference)
        except (OSError, msgspec.MsgspecError):
            kept = None
        source = self._evidence().reference_source(endpoint) or f"{model}/{version}"
        if kept is not None and kept.source == source:
            return kept
        made = self._evidence().reference(endpoint, model, version, now_unix_s)
        if made is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, msgspec.json.encode(made), durable=False)
        return made
