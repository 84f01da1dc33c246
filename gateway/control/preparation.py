"""From a route document to what processes can hold: references become staged versions, weights become a table."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.state.compiled import CompiledFeatures, CompiledModel, CompiledRoute
from gateway.state.store import StateStore
from models.errors import (
    ArtifactInvalid,
    ModelsError,
    ModelUnknown,
    ReferenceInvalid,
    RegistryUnavailable,
    StagingRefused,
)
from models.output_range import differences
from models.ref import ModelRef, parse_ref
from models.signature import Signature
from models.staged import ModelKey, StagedModel
from models.tensors import Array
from routing.errors import Problem
from routing.split import compile_split
from routing.traffic import Route, to_document

Rows = dict[str, Array]
"""Rows by input name."""

Stage = Callable[[ModelRef, Callable[[], Rows]], StagedModel]
"""Fetches, verifies, converts and tunes what a reference means now; the rows that the endpoint has seen are asked for when it converts.
Blocking, slow, safe to call from several threads."""

Recorded = Callable[[str, Signature], Rows]
"""The newest rows that an endpoint was asked, as its signature takes them; none where none were recorded whole. Blocking."""


class Exact(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a reference means now, and the reference that always will mean it."""

    key: ModelKey
    uri: str


Resolve = Callable[[ModelRef], Exact]
"""Asks the registry; blocking, and raises the errors of `models.errors`."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Every arm's and pin's version and manifest, or the problems that prevent it (then the others may be incomplete)."""

    models: dict[str, CompiledModel]
    manifests: dict[str, StagedModel]
    problems: tuple[Problem, ...] = ()


class Preparation:
    """Resolves and stages. The store is read on the event loop; registry, lake and converters are met on threads only.

    `askers` runs short questions to the registry, `stagers` the long work, so that neither waits for the other.
    """

    def __init__(
        self,
        store: StateStore,
        stage: Stage,
        resolve: Resolve,
        artifacts: Path,
        askers: Executor,
        stagers: Executor,
        recorded: Recorded,
    ) -> None:
        self._store = store
        self._resolve = resolve
        self._stage = stage
        self._artifacts = artifacts
        self._askers = askers
        self._stagers = stagers
        self._recorded = recorded

    async def prepare(self, route: Route, taken: Mapping[str, CompiledModel]) -> Prepared:
        """Finds or stages the version of every arm, and of the pins in `taken`.

        Arms in `taken` are not asked for again while their artifact is here; one without a digest is staged as the version it names.
        """
        arms = references(route) + [(name, "", pin.uri, "pin") for name, pin in pins_of(taken).items()]
        rows = self._rows(route.endpoint)
        results = await asyncio.gather(
            *(self._arm(path, text, role, taken.get(arm), rows) for arm, path, text, role in arms)
        )
        models, manifests, problems = {}, {}, []
        for (arm, _, _, _), result in zip(arms, results, strict=True):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                models[arm], manifests[arm] = result
        return Prepared(models=models, manifests=manifests, problems=tuple(problems))

    async def compare(self, endpoint: str, serving: StagedModel, candidate: StagedModel) -> list[str]:
        """How the candidate's answers leave the range of the serving version's, on rows that the endpoint has seen."""
        rows = self._rows(endpoint)
        return await asyncio.get_running_loop().run_in_executor(
            self._stagers, lambda: differences(serving, candidate, self._artifacts, rows())
        )

    async def resolve(self, ref: ModelRef) -> Exact:
        """What the registry says a reference means now; raises ModelsError."""
        return await asyncio.get_running_loop().run_in_executor(self._askers, self._resolve, ref)

    def manifest(self, digest: str) -> StagedModel | None:
        """The manifest of a staged artifact; None when it is not here, or not whole."""
        try:
            return StagedModel.read(self._artifacts / digest)
        except ArtifactInvalid:
            return None

    def _rows(self, endpoint: str) -> Callable[[], Rows]:
        """For a thread: the rows that the endpoint has seen, under the signature that it has now; none of a new endpoint."""
        live = self._store.live(endpoint)
        compiled = self._store.compiled(live.number) if live else None
        return dict if compiled is None else partial(self._recorded, endpoint, compiled.signature)

    async def _arm(
        self, path: str, text: str, role: str, known: CompiledModel | None, rows: Callable[[], Rows]
    ) -> tuple[CompiledModel, StagedModel] | Problem:
        try:
            ref = parse_ref(text)
        except ReferenceInvalid as error:
            return problem_of(path, text, error)
        manifest = self.manifest(known.digest) if known else None
        if manifest is None:
            exact = parse_ref(known.uri) if known else ref
            try:
                manifest = await asyncio.get_running_loop().run_in_executor(self._stagers, self._stage, exact, rows)
            except Exception as error:  # noqa: BLE001  # whatever a model brings must end as a problem of its arm, not as our end
                return problem_of(path, text, error)
            self._store.staged.remember(manifest.uri, key=manifest.key, digest=manifest.digest)
        key, uri = (known.key, known.uri) if known else (manifest.key, manifest.uri)
        return CompiledModel(key=key, digest=manifest.digest, uri=uri, role=_ROLES[role]), manifest


_ROLES: Final[Mapping[str, Literal["variant", "mirror", "pin"]]] = {role: role for role in ("variant", "mirror", "pin")}


def compile_route(
    route: Route,
    *,
    revision: int,
    models: Mapping[str, CompiledModel],
    signature: Signature,
    features: CompiledFeatures | None = None,
) -> CompiledRoute:
    """The revision as workers take it; about 3 ms an arm. `models` holds the pins as well."""
    split = compile_split(route.salt, route.weights)
    return CompiledRoute(
        endpoint=route.endpoint,
        revision=revision,
        document=to_document(route),
        models={name: model for name, model in models.items() if model.role != "pin"},
        split=split.arms,
        split_sha256=split.sha256,
        signature=signature,
        pins=list(pins_of(models).values()),
        features=features,
    )


def pins_of(models: Mapping[str, CompiledModel]) -> dict[str, CompiledModel]:
    """The versions that are kept warm beside those of the arms, by the names that resolutions give them (`@3`)."""
    return {name: model for name, model in models.items() if model.role == "pin"}


def needs_warming(wanted: CompiledRoute, live: CompiledRoute | None, previous: CompiledRoute | None) -> bool:
    """Whether workers lack a model of `wanted`: they hold the variants of the live revision and of the one before it."""
    if live is None:
        return True
    held = {model.digest for route in (live, previous) if route for model in _held(route)}
    return any(model.digest not in held for model in _held(wanted))


def _held(route: CompiledRoute) -> list[CompiledModel]:
    """What a worker loads of a route: everything but the mirrors' models."""
    return [model for model in (*route.models.values(), *route.pins) if model.role != "mirror"]


def references(route: Route) -> list[tuple[str, str, str, str]]:
    """(arm, path of its reference in the document, reference, role) of every arm that has a model here."""
    variants = [(arm.name, f"variants[{n}].model", arm.model, "variant") for n, arm in enumerate(route.variants)]
    mirrors = [
        (arm.name, f"mirrors[{n}].model", arm.model, "mirror") for n, arm in enumerate(route.mirrors) if arm.model
    ]
    return variants + mirrors


def aliased(route: Route) -> dict[str, ModelRef]:
    """The arms that name a registry alias, which is what following is about."""
    refs = {arm: parse_ref(text) for arm, text in route.models.items()}
    return {arm: ref for arm, ref in refs.items() if ref.kind == "alias"}


def named_version(name: str, version: str, role: Literal["variant", "mirror", "pin"] = "variant") -> CompiledModel:
    """A version that is asked for by its number; staged when a revision needs it."""
    return CompiledModel(key=ModelKey(name, version), digest="", uri=f"models:/{name}/{version}", role=role)


def problem_of(path: str, text: str, error: Exception) -> Problem:
    """Why the model at this path of a document, written as `text`, cannot be had."""
    if isinstance(error, StagingRefused):
        return Problem(path, error.code, f"model '{text}': {error.message}", error.remedy)
    if isinstance(error, ModelsError):
        code = "".join("_" + letter.lower() if letter.isupper() else letter for letter in type(error).__name__)
        return Problem(path, code.lstrip("_"), str(error), _remedy(text, error))
    return Problem(path, "staging_failed", f"model '{text}': {type(error).__name__}: {error}")


def _remedy(text: str, error: ModelsError) -> str:
    if isinstance(error, RegistryUnavailable):
        return "try again when it is there; weights and rollbacks need no registry"
    if not isinstance(error, ModelUnknown):
        return ""
    ref = parse_ref(text)
    if ref.kind == "file":
        return "give the path as the gateway's machine has it; relative ones start where it was started"
    if ref.kind == "alias":
        return f'is it another registry? (`runoff settings`: registry_uri) else MlflowClient().set_registered_model_alias("{ref.name}", "{ref.detail}", <version>)'
    return "name one that is there; is it another registry? (`runoff settings`: registry_uri)"
