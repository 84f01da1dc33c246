"""Who is a candidate now: the mirrors of all live routes, as control wrote them, and how production's answers are to be read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from gateway.shadow.lane import Lane
from gateway.state.compiled import CompiledModel, CompiledRoute, RouteState
from gateway.state.reader import StateReader
from gateway.telemetry.log import EventLog
from models.errors import ArtifactInvalid
from models.runtime.target import RemoteRefused
from models.signature import Answer
from models.staged import MANIFEST, ModelKey, StagedModel
from routing.errors import RouteInvalid
from routing.traffic import Mirror
from routing.validate import validate

_log: Final = EventLog(__name__)
_ANSWERS_MAX: Final = 1024

Name = tuple[str, str]
"""Endpoint and mirror."""
OpenLane = Callable[[str, Mirror], Lane]
"""Opens the lane of an endpoint's remote mirror; raises RemoteRefused."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One mirror of a live route: `local` what control resolved, or a `lane` to a remote. Neither: it cannot be called at all."""

    endpoint: str
    mirror: Mirror
    is_batched: bool
    local: CompiledModel | None = None
    lane: Lane | None = None

    @property
    def rank(self) -> tuple[int, str, str]:
        """The order in which candidates run; the reverse of that in which they are shed."""
        return self.mirror.priority, self.endpoint, self.mirror.name


class Roster:
    """Follows the state database. Belongs to the loop."""

    def __init__(self, reader: StateReader, artifacts: Path, open_lane: OpenLane) -> None:
        self._reader = reader
        self._artifacts = artifacts
        self._open_lane = open_lane
        self._version = -1
        self._answers: dict[ModelKey, Answer | None] = {}
        self._digests: dict[ModelKey, str] = {}
        self._retired: list[Lane] = []
        self.candidates: dict[Name, Candidate] = {}
        self.wanted: list[str] = []
        """Digests of local candidates, of live and of warming revisions, the most important first."""

    def refresh(self) -> bool:
        """Reads the routes if anything was committed since; says whether they were read."""
        version = self._reader.data_version()
        if version == self._version:
            return False
        states = self._reader.routes()
        self._version = version
        self._take(states)
        return True

    @property
    def live_digests(self) -> list[str]:
        """Digests of the local candidates of live revisions."""
        return [candidate.local.digest for candidate in self.candidates.values() if candidate.local is not None]

    def answer_of(self, model: str, version: str) -> Answer | None:
        """How the outputs of a version that serves are read; None when its manifest is nowhere to be found."""
        key = ModelKey(model, version)
        if key not in self._answers:
            if len(self._answers) >= _ANSWERS_MAX:
                self._answers.clear()
            staged = self._staged(key)
            self._answers[key] = None if staged is None else staged.answer
            if staged is None:
                _log.warning("live_manifest_missing", model=str(key))
        return self._answers[key]

    def lanes(self) -> Iterator[Lane]:
        """All lanes that may still hold rows."""
        yield from (candidate.lane for candidate in self.candidates.values() if candidate.lane is not None)
        yield from self._retired

    async def sweep(self) -> None:
        """Closes the lanes of removed mirrors once they are idle."""
        idle = [lane for lane in self._retired if lane.is_idle]
        self._retired = [lane for lane in self._retired if not lane.is_idle]
        for lane in idle:
            await lane.close()

    async def close(self) -> None:
        for lane in self.lanes():
            await lane.close()
        self._reader.close()

    def _take(self, states: list[RouteState]) -> None:
        before, self.candidates = self.candidates, {}
        wanted: list[tuple[tuple[int, str, str], str]] = []
        self._digests = {}
        for state in states:
            for compiled in (state.previous, state.pending, state.live):
                if compiled is not None:
                    self._digests |= {model.key: model.digest for model in (*compiled.models.values(), *compiled.pins)}
            for compiled in (state.live, state.pending):
                if compiled is None:
                    continue
                for candidate in self._candidates(compiled, before if compiled is state.live else None):
                    if compiled is state.live:
                        self.candidates[candidate.endpoint, candidate.mirror.name] = candidate
                    if candidate.local is not None:
                        wanted.append((candidate.rank, candidate.local.digest))
        self.wanted = [digest for _, digest in sorted(wanted)]
        self._answers = {key: answer for key, answer in self._answers.items() if answer is not None}
        kept = {id(candidate.lane) for candidate in self.candidates.values()}
        for candidate in before.values():
            if candidate.lane is not None and id(candidate.lane) not in kept:
                candidate.lane.remove()
                self._retired.append(candidate.lane)

    def _candidates(self, compiled: CompiledRoute, before: dict[Name, Candidate] | None) -> Iterator[Candidate]:
        """The mirrors of a revision; lanes only where `before` is given, an unchanged one is kept."""
        try:
            route = validate(compiled.document)
        except RouteInvalid as error:
            _log.error(
                "route_unreadable", endpoint=compiled.endpoint, revision=compiled.revision, problem=str(error)[:300]
            )
            return
        for mirror in route.mirrors:
            lane = None
            if mirror.remote is not None and before is not None:
                lane = self._lane(compiled.endpoint, mirror, before.get((compiled.endpoint, mirror.name)))
            yield Candidate(
                endpoint=compiled.endpoint,
                mirror=mirror,
                is_batched=compiled.signature.is_batched,
                local=compiled.models.get(mirror.name) if mirror.remote is None else None,
                lane=lane,
            )

    def _lane(self, endpoint: str, mirror: Mirror, before: Candidate | None) -> Lane | None:
        if before is not None and before.lane is not None:
            then = before.mirror
            if (then.remote, then.body_bytes_max) == (mirror.remote, mirror.body_bytes_max):
                return before.lane
        try:
            return self._open_lane(endpoint, mirror)
        except RemoteRefused as error:
            _log.warning("remote_refused", endpoint=endpoint, mirror=mirror.name, problem=str(error))
            return None

    def _staged(self, key: ModelKey) -> StagedModel | None:
        """The manifest of a version that some route names, else of any artifact with this key."""
        digest = self._digests.get(key)
        folders = (
            [self._artifacts / digest] if digest else [path.parent for path in self._artifacts.glob(f"*/{MANIFEST}")]
        )
        for folder in folders:
            try:
                staged = StagedModel.read(folder)
            except ArtifactInvalid:
                continue
            if staged.key == key:
                return staged
        return None
