"""A dry run of a change: what `routing.plan` sees in the two documents, and what the registry and the artifacts add to it."""

import asyncio
from typing import Any, Final

import msgspec

from gateway.control.changes import Changes
from gateway.control.checks import misnamed
from gateway.control.features import FeatureServices
from gateway.control.preparation import Preparation, problem_of, references
from gateway.state.compiled import CompiledModel
from gateway.state.difference import differences
from gateway.state.store import StateStore, readable
from models.errors import ModelsError, RegistryUnavailable
from models.ref import parse_ref
from models.staged import StagedModel
from routing import plan as dry_run
from routing.errors import Problem, RouteInvalid
from routing.traffic import Route, to_document

REFUSAL_S: Final = 5.0
"""How long a refused document waits for what the registry has to say about it."""


class ArmPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's model. `version` is None when the registry could not say; `memory_bytes` when it is not staged yet."""

    arm: str
    reference: str
    model: str | None
    was: str | None
    state: str
    memory_bytes: int | None = None


class Planner:
    """Reads the store and asks the registry (on a thread); changes nothing."""

    def __init__(
        self,
        store: StateStore,
        changes: Changes,
        preparation: Preparation,
        features: FeatureServices | None = None,
        *,
        refusal_s: float = REFUSAL_S,
    ) -> None:
        self._store = store
        self._changes = changes
        self._preparation = preparation
        self._features = features or FeatureServices(None)
        self._refusal_s = refusal_s

    async def plan(self, endpoint: str, document: object) -> dict[str, Any]:
        """Problems, differences, models to load and their memory, and which units move. A body of None plans the route as it is."""
        current = self._store.current(endpoint)
        before = readable(current)
        base: dict[str, Any] = {"endpoint": endpoint, "revision": current.number if current else None}
        try:
            route = self._changes.read(endpoint, current.document if document is None and current else document)
        except RouteInvalid as error:
            return base | {"problems": [*error.problems, *await self._unknown(error)], "changes": []}
        planned = dry_run.plan(before, to_document(route))
        arms, problems = await self._arms(route, current.resolutions if current else {})
        # What an older release has stored, and this one refuses, is compared as it stands.
        known = to_document(before) if before else current.document if current else None
        changes = differences(known, to_document(route))
        changes += [
            f"{arm.arm}: {arm.reference} is {arm.model} now (was {arm.was})"
            for arm in arms
            if before and before.models.get(arm.arm) == arm.reference and arm.was and arm.model and arm.was != arm.model
        ]
        return base | {
            "problems": problems + await self._misnamed(endpoint, route),
            "warnings": [*planned.warnings, *self._fails(endpoint, arms), *self._left(endpoint, arms)],
            "changes": changes,
            "models": arms,
            "memory_bytes": sum(arm.memory_bytes or 0 for arm in arms if arm.state != "loaded"),
            "shares": {share.variant: share.share for share in planned.shares},
            "shares_now": self._shares(endpoint),
            "moves": planned.moves,
            "moved": planned.moved,
        }

    async def refusal(self, wrong: RouteInvalid) -> RouteInvalid:
        """The same refusal with the models that the registry does not have, so that its reader mends all at once.

        A registry that is away, or does not answer soon, adds nothing: the document is refused without it.
        """
        try:
            async with asyncio.timeout(self._refusal_s):
                unknown = await self._unknown(wrong)
        except TimeoutError:
            unknown = []
        known = [problem for problem in unknown if problem.code != "registry_unavailable"]
        return RouteInvalid([*wrong.problems, *known], wrong.read)

    async def _unknown(self, wrong: RouteInvalid) -> list[Problem]:
        """The models that a document names in vain, beside all else that is wrong with it."""
        if not isinstance(wrong.read, Route):
            return []
        misread = {problem.path for problem in wrong.problems}
        named = [(arm, path, text) for arm, path, text, _ in references(wrong.read) if path not in misread]
        found = await asyncio.gather(*(self._arm(arm, path, text, {}, {}) for arm, path, text in named))
        return [problem for _, problem in found if problem]

    async def _misnamed(self, endpoint: str, route: Route) -> list[Problem]:
        """What the route looks up, reads or keeps back of inputs that are not there; of a new endpoint, whether there is such a service."""
        live = self._store.live(endpoint)
        compiled = self._store.compiled(live.number) if live else None
        if compiled is None:
            return await self._features.absent(route)
        features, problems = await self._features.compile(route, compiled.signature, compiled)
        return [*problems, *misnamed(route, compiled.signature, features)]

    def _fails(self, endpoint: str, arms: list[ArmPlan]) -> tuple[Problem, ...]:
        """What is known to stand against versions of this plan that were proposed or refused."""
        followed = self._store.standings.followed(endpoint)
        known = (followed.following.wanted | followed.following.refused).items()
        named = {(arm.arm, arm.model.rpartition("/")[2]) for arm in arms if arm.model}
        return followed.problems if known & named else ()

    def _left(self, endpoint: str, arms: list[ArmPlan]) -> list[Problem]:
        """Versions that somebody rolled back from, and that this would take again, as their aliases name them still."""
        left = self._store.standings.followed(endpoint).following.left
        return [
            Problem(
                arm.arm,
                "rolled_back",
                f"takes {arm.model} again, which a rollback left",
                f"move {arm.reference} to the version that is wanted first",
            )
            for arm in arms
            if arm.model and arm.arm in left and arm.model.rpartition("/")[2] == left[arm.arm]
        ]

    def _shares(self, endpoint: str) -> dict[str, float]:
        live = self._store.live(endpoint)
        compiled = self._store.compiled(live.number) if live else None
        return compiled.shares if compiled else {}

    async def _arms(self, route: Route, loaded: dict[str, CompiledModel]) -> tuple[list[ArmPlan], list[Problem]]:
        taken = self._changes.taken(route)
        arms = references(route)
        found = await asyncio.gather(*(self._arm(arm, path, text, taken, loaded) for arm, path, text, _ in arms))
        return [plan for plan, _ in found], [problem for _, problem in found if problem]

    async def _arm(
        self, arm: str, path: str, text: str, taken: dict[str, CompiledModel], loaded: dict[str, CompiledModel]
    ) -> tuple[ArmPlan, Problem | None]:
        was = loaded.get(arm)
        problem, model, manifest = None, None, None
        try:
            model, manifest = await self._found(taken.get(arm), text)
        except ModelsError as error:
            problem = problem_of(path, text, error)
        digests = {known.digest for known in loaded.values()}
        state = "unknown" if model is None else "to_stage" if manifest is None else "staged"
        if manifest and manifest.digest in digests:
            state = "loaded"
        memory = manifest.profile.memory_bytes if manifest and manifest.profile else None
        plan = ArmPlan(
            arm=arm, reference=text, model=model, was=str(was.key) if was else None, state=state, memory_bytes=memory
        )
        return plan, problem

    async def _found(self, taken: CompiledModel | None, text: str) -> tuple[str | None, StagedModel | None]:
        """The version a reference means now, and its manifest if it is staged; raises ModelsError."""
        if taken is not None:
            return str(taken.key), self._preparation.manifest(taken.digest)
        ref = parse_ref(text)
        try:
            exact = await self._preparation.resolve(ref)
        except RegistryUnavailable:
            staged = self._store.staged.find(str(ref)) if ref.is_pinned else None
            if staged is None:
                raise
            return str(staged[0]), self._preparation.manifest(staged[1])
        staged = self._store.staged.find(exact.uri)
        return str(exact.key), self._preparation.manifest(staged[1]) if staged else None
