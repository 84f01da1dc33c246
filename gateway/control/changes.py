"""Everything that changes a route, for whoever asks: the API, the command line, later gates and registry events. One door.

A change is a draft: the document it wants, and the versions to take where the registry is not to be asked again (weights, promotion,
rollback). The reconciler makes it live, or says why not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from gateway.control.preparation import aliased, named_version, pins_of
from gateway.control.reconcile import Reconciler
from gateway.state.compiled import CompiledModel, pin_name
from gateway.state.revision import Action, AliasMove, Draft, Revision
from gateway.state.store import StateStore, readable
from models.ref import parse_ref
from routing import promotion
from routing.errors import Problem, RouteInvalid
from routing.following import offered
from routing.traffic import Route, to_document
from routing.validate import validate

ANY: Final = -1
"""As the expected revision: whatever it is now."""


class EndpointAbsent(Exception):
    """No such endpoint, or nothing there to go back to."""


class NothingToRestore(Exception):
    """A rollback without a revision to go back to; the message says which was asked for."""


class NothingToFollow(Exception):
    """Every alias names what is served, as far as the registry was heard."""


class Author(msgspec.Struct, frozen=True):
    """Who changes something, and why: `principal` is a key's name or `local:<os user>`."""

    principal: str
    reason: str


class Changes:
    """All calls raise RouteInvalid (with every problem), RevisionStale or EndpointAbsent, and change nothing when they do.

    Pins go along from revision to revision; only a load changes which they are, and a rollback takes those of then.
    """

    def __init__(
        self, store: StateStore, reconciler: Reconciler, *, against: Callable[[Route], list[Problem]] = lambda _: []
    ) -> None:
        """`against`: what on this machine stands against a route that is well formed."""
        self._store = store
        self._reconciler = reconciler
        self._against = against

    def put(
        self, endpoint: str, document: object, *, expected: int | None, author: Author, override: bool = False
    ) -> Revision:
        """Takes the document as the endpoint's route. `expected` None: there is no such endpoint yet.

        Aliases are resolved anew, unless weights are all that differs from what is live. With `override` versions go past the checks.
        """
        route = self.read(endpoint, document)
        return self._write(
            "override" if override else "put", endpoint, route, self.taken(route), expected=expected, author=author
        )

    def read(self, endpoint: str, document: object) -> Route:
        """The route that a document means; raises RouteInvalid.

        A document that began a ramp and is applied again means what it has come to: its weights are those that the ramp has set.
        """
        route = self._validated(document)
        if route.endpoint != endpoint:
            text = f"the document is for endpoint '{route.endpoint}', the path for '{endpoint}'"
            raise RouteInvalid([Problem("endpoint", "endpoint_differs", text, "make them the same")], route)
        current, ramp = self._store.current(endpoint), self._store.standings.ramp(endpoint)
        if current is None or ramp is None or ramp.base != dict(route.weights):
            return route
        before = readable(current)
        names = [variant.name for variant in route.variants]
        if before is None or before.steps != route.steps or [variant.name for variant in before.variants] != names:
            return route
        return promotion.set_weights(route, dict(before.weights))

    def _validated(self, document: object) -> Route:
        """Raises RouteInvalid with what is wrong with the document by itself and what stands against it here, all at once."""
        problems: tuple[Problem, ...] = ()
        try:
            route = validate(document)
        except RouteInvalid as error:
            if not isinstance(error.read, Route):
                raise
            route, problems = error.read, error.problems
        misread = {problem.path for problem in problems}
        found = [*problems, *(problem for problem in self._against(route) if problem.path not in misread)]
        if found:
            raise RouteInvalid(found, route)
        return route

    def taken(self, route: Route) -> dict[str, CompiledModel]:
        """The versions to take without asking: those that are live, if the route differs from the live one in weights alone."""
        live = self._store.live(route.endpoint)
        if live is None or self._store.current(route.endpoint) != live:
            return {}
        served = readable(live)
        if (
            served is None
            or served == route
            or [arm.name for arm in served.variants] != [arm.name for arm in route.variants]
        ):
            return {}
        return live.resolutions if promotion.set_weights(served, dict(route.weights)) == route else {}

    def weights(
        self,
        endpoint: str,
        weights: Mapping[str, float],
        *,
        expected: int | None,
        author: Author,
        action: Action = "weights",
    ) -> tuple[Revision, Route]:
        """Sets the weights of the named variants; the others keep theirs. What changes nothing is the current revision, and none is written:
        it would take the place of what a rollback goes back to.
        """
        current = self._current(endpoint)
        before = validate(current.document)
        route = promotion.set_weights(before, weights)
        if route == before and expected in {ANY, current.number}:
            return current, route
        written = self._write(action, endpoint, route, current.resolutions, expected=expected, author=author)
        return written, route

    def promote(self, endpoint: str, arm: str, *, is_mirror: bool, expected: int | None, author: Author) -> Revision:
        """The champion takes the version that the arm serves now, and all traffic; its registry alias moves once that is live.

        Mirrors of this version go, a promoted mirror too: they would compare the champion with itself. A champion that is named by
        version, or whose alias belongs to another registered model, is named by the new version from then on.
        """
        live = self._live(endpoint)
        route = validate(live.document)
        model = live.resolutions.get(arm)
        arms = {mirror.name for mirror in route.mirrors} if is_mirror else {variant.name for variant in route.variants}
        kind = "mirror" if is_mirror else "variant"
        if arm not in arms or arm == route.champion:
            wanted = ", ".join(sorted(arms - {route.champion})) or "none"
            why = "is the champion already" if arm == route.champion else f"is no {kind} of this endpoint"
            raise RouteInvalid([Problem(kind, "arm_unknown", f"'{arm}' {why}", f"{kind}s to promote: {wanted}")])
        if model is None:
            raise RouteInvalid([Problem(kind, "arm_remote", f"mirror '{arm}' is another server; it has no model here")])
        reference = next(variant.model for variant in route.variants if variant.name == route.champion)
        ref = parse_ref(reference)
        moves: tuple[AliasMove, ...] = ()
        if ref.kind == "alias" and ref.name == model.key.name:
            moves = (AliasMove(name=ref.name, alias=ref.detail, version=model.key.version),)
        else:
            reference = model.uri
        changed = promotion.promote(route, arm, reference)
        for mirror in changed.mirrors:
            if mirror.name in live.resolutions and live.resolutions[mirror.name].digest == model.digest:
                changed = promotion.drop_arm(changed, mirror.name)
        champion = CompiledModel(key=model.key, digest=model.digest, uri=model.uri, role="variant")
        taken = {name: found for name, found in live.resolutions.items() if name in changed.models}
        return self._write(
            "promote",
            endpoint,
            changed,
            taken | {route.champion: champion},
            expected=expected,
            author=author,
            moves=moves,
        )

    def rollback(self, endpoint: str, *, to: int | None, move_alias: bool, author: Author) -> Revision:
        """Back to the previous live revision, or to `to`, with the versions it had; the registry is not asked."""
        target = self._store.previous(endpoint) if to is None else self._store.revision(to)
        live = self._store.live(endpoint)
        if target is None and to is None and live is None and self._store.current(endpoint) is None:
            raise EndpointAbsent(f"there is no endpoint '{endpoint}'")
        if target is None or target.endpoint != endpoint or target.document is None or not target.resolutions:
            asked = "no revision was live before this one" if to is None else f"revision {to} never was live here"
            raise NothingToRestore(f"endpoint '{endpoint}': {asked}")
        if live is not None and target.number == live.number and self._store.current(endpoint) == live:
            raise NothingToRestore(f"endpoint '{endpoint}': revision {to} is the live one")
        route = validate(target.document)
        ref, champion = parse_ref(route.models[route.champion]), target.resolutions[route.champion]
        moves: tuple[AliasMove, ...] = ()
        if move_alias and ref.kind == "alias":
            moves = (AliasMove(name=ref.name, alias=ref.detail, version=champion.key.version),)
        draft = Draft(
            endpoint=endpoint,
            action="rollback",
            author=author.principal,
            reason=author.reason,
            document=to_document(route),
            resolutions=target.resolutions,
            restores=target.number,
            alias_moves=moves,
        )
        return self._started(self._store.write(draft, check=False))

    def delete(self, endpoint: str, *, expected: int | None, author: Author) -> Revision:
        """Takes the endpoint away at once; its history stays, and a rollback brings it back."""
        self._current(endpoint)
        return self._write("delete", endpoint, None, {}, expected=expected, author=author)

    def resume(self, endpoint: str, *, author: Author) -> None:
        """Lets the endpoint follow its aliases again, after a rollback paused that."""
        self._live(endpoint)
        self._store.standings.resume(endpoint, author=author.principal, reason=author.reason)

    def offered(self, endpoint: str) -> dict[str, str]:
        """The versions that `follow` takes, by arm: as aliases of this endpoint named them at the newest look."""
        live = self._live(endpoint)
        served = {arm: live.resolutions[arm].key.version for arm in aliased(validate(live.document))}
        return offered(self._store.standings.followed(endpoint).following, served)

    def with_versions(self, revision: Revision, versions: Mapping[str, str]) -> dict[str, CompiledModel]:
        """The resolutions of a revision with other versions for the arms that name an alias; those staged before are known."""
        refs = aliased(validate(revision.document))
        resolutions = dict(revision.resolutions)
        for arm, version in versions.items():
            wanted = named_version(refs[arm].name, version)
            staged = self._store.staged.find(wanted.uri)
            resolutions[arm] = msgspec.structs.replace(wanted, digest=staged[1] if staged else "")
        return resolutions

    def follow(
        self,
        endpoint: str,
        versions: Mapping[str, str],
        *,
        expected: int | None,
        author: Author,
        override: bool = False,
    ) -> Revision:
        """The arms that name aliases take these versions, by number: what was looked at, not what an alias says by then.

        With `override` past the checks that they fail; the endpoint then declares what its champion declares.
        """
        current = self._current(endpoint)
        if not versions:
            raise NothingToFollow(f"endpoint '{endpoint}': every alias names the version that is served")
        action: Action = "override" if override else "follow"
        route, resolutions = validate(current.document), self.with_versions(current, versions)
        return self._write(action, endpoint, route, resolutions, expected=expected, author=author)

    def load(self, endpoint: str, *, pins: Sequence[str] | None, author: Author) -> Revision:
        """Resolves the endpoint's aliases now; `pins` are the versions to keep warm beside the arms' (None: those that are).

        Pins are versions of the champion's registered model.
        """
        current = self._current(endpoint)
        route = validate(current.document)
        moving = aliased(route)
        kept = {name: model for name, model in current.resolutions.items() if name not in moving}
        if pins is not None:
            champion = parse_ref(route.models[route.champion])
            if pins and champion.kind not in {"version", "alias"}:
                text = f"the champion is {champion}, which has no versions in the registry"
                raise RouteInvalid([Problem("", "pins_unregistered", text)])
            kept = {name: model for name, model in kept.items() if model.role != "pin"}
            named = [named_version(champion.name, version, "pin") for version in dict.fromkeys(pins)]
            kept |= {pin_name(pin): pin for pin in named}
        return self._write("load", endpoint, route, kept, expected=ANY, author=author)

    # ----------------------------------------------------------------

    def _current(self, endpoint: str) -> Revision:
        current = self._store.current(endpoint)
        if current is None:
            raise EndpointAbsent(f"there is no endpoint '{endpoint}'")
        return current

    def _live(self, endpoint: str) -> Revision:
        live = self._store.live(endpoint)
        if live is None:
            raise EndpointAbsent(f"there is no live endpoint '{endpoint}'")
        return live

    def _write(
        self,
        action: Action,
        endpoint: str,
        route: Route | None,
        resolutions: Mapping[str, CompiledModel],
        *,
        expected: int | None,
        author: Author,
        moves: tuple[AliasMove, ...] = (),
    ) -> Revision:
        current = self._store.current(endpoint)
        pins = pins_of(current.resolutions) if current and action != "load" else {}
        draft = Draft(
            endpoint=endpoint,
            action=action,
            author=author.principal,
            reason=author.reason,
            document=None if route is None else cast("dict[str, Any]", to_document(route)),
            resolutions=pins | dict(resolutions),
            alias_moves=moves,
        )
        return self._started(self._store.write(draft, expected=expected, check=expected != ANY))

    def _started(self, revision: Revision) -> Revision:
        self._reconciler.written(revision)
        now = self._store.revision(revision.number)
        assert now is not None, "a revision is never deleted"
        return now
