"""Following: what an endpoint does about registry aliases that moved. One look at a time, each a function of the look before. Pure.

A look compares what every alias names now with what it named at the look before (has it *moved*?) and with what is served (does it
*differ*?). Only a move starts something. So a rollback is not undone by the aliases that it left behind, also when another one moves, a
promotion not by the alias that has yet to follow it, and a version that was refused is not tried again until its alias moves.
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
    by `state`. `refused`: tried, and found unfit to take its arm's place. `left`: named, and left by a rollback.
    """

    state: State = "current"
    seen: dict[str, str] = {}
    wanted: dict[str, str] = {}
    refused: dict[str, str] = {}
    left: dict[str, str] = {}


_ANSWERS: Mapping[str, State] = {"auto": "trying", "propose": "proposed", "ignore": "ignored"}


def look(before: Following, *, follow: str, served: Versions, named: Versions) -> Following:
    """What follows from `named`, the versions that the aliases of the arms in `served` name now; an alias that is gone is absent there.

    `follow` is the route's. `trying` asks for a revision that takes all of `wanted` at once.
    """
    differs = {arm: version for arm, version in named.items() if version != served[arm]}
    refused = {arm: version for arm, version in before.refused.items() if _is_still(arm, version, served, named)}
    left = {arm: version for arm, version in before.left.items() if _is_still(arm, version, served, named)}
    if before.state == "paused":  # also arms that the rollback brought back: where their aliases are by now is no move
        left |= {
            arm: version for arm, version in _but(differs, refused).items() if before.seen.get(arm, version) == version
        }
    kept = Following(state=_rest(refused, left), seen=before.seen | dict(named), refused=refused, left=left)
    wanted = _but(_but(differs, refused), left)
    if not wanted:
        return kept
    if any(before.seen.get(arm, served[arm]) != version for arm, version in named.items() if arm not in left):
        return msgspec.structs.replace(kept, state=_ANSWERS[follow], wanted=wanted)
    if before.state in _ANSWERS.values():
        return msgspec.structs.replace(kept, state=before.state, wanted=wanted)
    return kept  # served by the decision of a person, and nothing has moved since


def refuse(following: Following, arms: set[str]) -> Following:
    """The versions of `arms` (all that are wanted, where none of those is among them) did not pass; the others are still wanted."""
    unfit = {arm: version for arm, version in following.wanted.items() if arm in arms} or following.wanted
    wanted = {arm: version for arm, version in following.wanted.items() if arm not in unfit}
    return msgspec.structs.replace(
        following,
        state=following.state if wanted else _rest(unfit, following.left),
        wanted=wanted,
        refused=following.refused | unfit,
    )


def activated(before: Following, *, served: Versions, earlier: Versions, is_rollback: bool) -> Following:
    """A revision went live: `served` now, `earlier` before it by the arms that named their model alike. What it brought counts as seen.

    A rollback pauses instead: the versions that aliases go on naming are left. What is served is neither wanted, refused nor left any more,
    whoever took it.
    """
    wanted, refused, left = (_but(versions, served) for versions in (before.wanted, before.refused, before.left))
    if is_rollback:
        seen = {arm: before.seen.get(arm, version) for arm, version in earlier.items() if arm in served}
        return Following(state="paused", seen=seen, refused=refused, left=_but(_but(seen, served), refused))
    state = before.state if wanted or before.state == "paused" else _rest(refused, left)
    seen = before.seen | _but(served, earlier)
    return Following(state=state, seen=seen, wanted=wanted, refused=refused, left=left)


def offered(following: Following, served: Versions) -> dict[str, str]:
    """What a person takes who says `follow`: what aliases name and is not served; what a rollback left only where nothing else is."""
    named = {arm: version for arm, version in following.seen.items() if arm in served and served[arm] != version}
    return _but(named, following.left) or named


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


def _rest(refused: Versions, left: Versions) -> State:
    """What an endpoint is that wants nothing."""
    return "paused" if left else "refused" if refused else "current"


def _but(versions: Versions, others: Versions) -> dict[str, str]:
    """Those that the same arm has not in `others`."""
    return {arm: version for arm, version in versions.items() if others.get(arm) != version}


def _is_still(arm: str, version: str, served: Versions, named: Versions) -> bool:
    """Whether an alias goes on naming a version that was refused."""
    return arm in served and served[arm] != version and named.get(arm, version) == version
