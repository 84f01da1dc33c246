"""Following: what an endpoint does about registry aliases that moved. One look at a time, each a function of the look before. Pure.

A look compares what every alias names now with what it named at the look before (has it *moved*?) and with what is served (does it
*differ*?). Only a move starts something. So a rollback is not undone by the alias that it left behind, a promotion not by the alias that
has yet to follow it, and a version that was refused is not tried again until its alias moves.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from routing.traffic import Route

State = Literal["current", "ignored", "proposed", "trying", "refused", "paused"]
Versions = Mapping[str, str]
"""Model versions by arm (variant or mirror)."""


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """Where an endpoint stands with the aliases that its arms name.

    `seen`: the version that each arm's alias named at the newest look. `wanted`: named, not served, and so ignored, proposed or tried,
    by `state`. `refused`: tried, and found unfit to take its arm's place.
    """

    state: State = "current"
    seen: dict[str, str] = {}
    wanted: dict[str, str] = {}
    refused: dict[str, str] = {}


_ANSWERS: Mapping[str, State] = {"auto": "trying", "propose": "proposed", "ignore": "ignored"}


def look(before: Following, *, follow: str, served: Versions, named: Versions) -> Following:
    """What follows from `named`, the versions that the aliases of the arms in `served` name now; an alias that is gone is absent there.

    `follow` is the route's. `trying` asks for a revision that takes all of `wanted` at once.
    """
    seen = before.seen | dict(named)
    refused = {arm: version for arm, version in before.refused.items() if _is_still(arm, version, served, named)}
    wanted = {arm: version for arm, version in named.items() if version != served[arm] and refused.get(arm) != version}
    if not wanted:
        return Following(state="refused" if refused else "current", seen=seen, refused=refused)
    if any(before.seen.get(arm, served[arm]) != version for arm, version in named.items()):
        return Following(state=_ANSWERS[follow], seen=seen, wanted=wanted, refused=refused)
    if before.state in {"current", "refused"}:  # served by the decision of a person, and nothing has moved since
        return Following(state="refused" if refused else "current", seen=seen, refused=refused)
    return Following(state=before.state, seen=seen, wanted=wanted, refused=refused)


def refuse(following: Following, arms: set[str]) -> Following:
    """The versions of `arms` (all that are wanted, where none of those is among them) did not pass; the others are still wanted."""
    unfit = {arm: version for arm, version in following.wanted.items() if arm in arms} or following.wanted
    wanted = {arm: version for arm, version in following.wanted.items() if arm not in unfit}
    return msgspec.structs.replace(
        following,
        state=following.state if wanted else "refused",
        wanted=wanted,
        refused=following.refused | unfit,
    )


def activated(before: Following, *, served: Versions, earlier: Versions, is_rollback: bool) -> Following:
    """A revision went live: `served` now, `earlier` before it. A rollback pauses; what anything else brought counts as seen.

    What is served is neither wanted nor refused any more, whoever took it.
    """
    wanted, refused = _but(before.wanted, served), _but(before.refused, served)
    if is_rollback:
        return msgspec.structs.replace(before, state="paused", wanted=wanted, refused=refused)
    state: State = before.state if wanted or before.state == "paused" else "refused" if refused else "current"
    return Following(state=state, seen=before.seen | _but(served, earlier), wanted=wanted, refused=refused)


def resumed() -> Following:
    """Nothing seen and nothing refused: the next look takes every alias that differs for one that has moved."""
    return Following()


def arm_of(route: Route, path: str) -> str | None:
    """The arm that a problem's path leads to (`variants[1].model`); None for anything else."""
    kind, _, rest = path.partition("[")
    index, _, _ = rest.partition("]")
    arms: dict[str, list[str]] = {
        "variants": [variant.name for variant in route.variants],
        "mirrors": [mirror.name for mirror in route.mirrors],
    }
    names = arms.get(kind, [])
    return names[int(index)] if index.isdigit() and int(index) < len(names) else None


def _but(versions: Versions, others: Versions) -> dict[str, str]:
    """Those that the same arm has not in `others`."""
    return {arm: version for arm, version in versions.items() if others.get(arm) != version}


def _is_still(arm: str, version: str, served: Versions, named: Versions) -> bool:
    """Whether an alias goes on naming a version that was refused."""
    return arm in served and served[arm] != version and named.get(arm, version) == version
