"""The steps of a route: which weights hold at which step, and whether a change of the route leaves its ramp undisturbed. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from routing.traffic import Route, Step


def weights_at(steps: Sequence[Step], step: int) -> dict[str, float]:
    """The weights that the steps up to this one have set, counted from 0; arms that none of them names keep theirs."""
    return {name: weight for one in steps[: step + 1] for name, weight in one.weights}


def dead_ends(weights: Iterable[tuple[str, float]], steps: Sequence[Step]) -> list[int]:
    """The steps after which nobody would have a weight."""
    start = dict(weights)
    return [place for place in range(len(steps)) if not any((start | weights_at(steps, place)).values())]


def disturbance(
    before: Route, after: Route, *, versions_before: Mapping[str, str], versions_after: Mapping[str, str]
) -> str | None:
    """Why a ramp must not go on by itself past this change of its route; None: it may. Versions by arm.

    What a step means depends on who stands behind the arms and on what the weights were; everything else may change under it.
    """
    names = [variant.name for variant in after.variants]
    if dict(before.weights) != dict(after.weights):
        return "the weights were changed"
    moved = [name for name in names if versions_before.get(name) != versions_after.get(name)]
    return f"the version of {', '.join(moved)} was changed" if moved else None
