"""What one worker holds of every endpoint, version by version: the repository index, worked out from the routes and what is loaded."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from gateway.live import ServedEndpoint
from gateway.repository import State, VersionState
from gateway.state.compiled import CompiledModel, CompiledRoute, RouteState

Place = tuple[str, str]
"""An endpoint and a version."""

_RANK: Final[Mapping[State, int]] = {"READY": 3, "LOADING": 2, "UNLOADING": 1, "UNAVAILABLE": 0}

_KEPT: Final = "kept warm for a rollback"
_UNFIT: Final = "kept warm for a rollback; it does not fit what the endpoint declares now"


def inventory(
    states: Iterable[RouteState],
    served: Mapping[str, ServedEndpoint],
    *,
    is_loaded: Callable[[str], bool],
    problem_of: Callable[[CompiledRoute], str | None],
    leaving: Iterable[Place],
) -> list[VersionState]:
    """By endpoint and version. READY is what requests can reach, what is kept for a rollback too; where that does not fit the endpoint, it is UNAVAILABLE.

    `is_loaded` asks by digest; `problem_of` says why a revision cannot be served here; `leaving` is loaded still, and nobody's any more.
    """
    found: dict[Place, VersionState] = {}

    def note(endpoint: str, version: str, state: State, reason: str = "") -> None:
        have = found.get((endpoint, version))
        if have is None or _RANK[state] > _RANK[have.state]:
            found[endpoint, version] = VersionState(endpoint=endpoint, version=version, state=state, reason=reason)

    for endpoint, version in leaving:
        note(endpoint, version, "UNLOADING", "requests in flight hold it open")
    for route_state in states:
        name = route_state.endpoint
        at_work = served.get(name)
        if at_work is not None:
            for version in at_work.pins:
                note(name, version, "READY")
        for route in (route_state.live, route_state.pending):
            if route is None or (at_work is not None and at_work.revision == route.revision):
                continue
            problem = problem_of(route)
            for model in loadable(route):
                if problem is None:
                    note(name, model.key.version, "LOADING", f"for revision {route.revision}")
                else:
                    note(name, model.key.version, "UNAVAILABLE", problem)
        for model in loadable(route_state.previous) if route_state.previous else ():
            if is_loaded(model.digest):
                note(
                    name, model.key.version, "UNAVAILABLE", _KEPT if at_work is None or model.role == "pin" else _UNFIT
                )
    return [found[place] for place in sorted(found, key=lambda place: (place[0], len(place[1]), place[1]))]


def loadable(route: CompiledRoute) -> list[CompiledModel]:
    """What a worker loads of a route: mirrors live in the shadow process."""
    return [model for model in (*route.models.values(), *route.pins) if model.role != "mirror"]
