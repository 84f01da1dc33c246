"""How predictions of stored models are read, by artifact digest, from the manifests that staging left."""

from pathlib import Path
from typing import Final

from models.errors import ArtifactInvalid
from models.signature import Answer
from models.staged import StagedModel

_KNOWN_MAX: Final = 1024


class StagedAnswers:
    """Reads a manifest once. A digest whose folder is missing or broken is None, and is looked for again the next time."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts = artifacts
        self._known: dict[str, Answer] = {}

    def __call__(self, digest: str) -> Answer | None:
        answer = self._known.get(digest)
        if answer is None and digest.isalnum():
            try:
                answer = StagedModel.read(self._artifacts / digest).answer
            except ArtifactInvalid:
                return None
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[digest] = answer
        return answer
