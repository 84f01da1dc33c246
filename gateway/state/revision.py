"""One attempt to change one endpoint: who wanted what and why, and what became of it."""

from typing import Any, Final, Literal

import msgspec

from gateway.state.compiled import CompiledModel
from routing.errors import Problem

State = Literal["pending", "loading", "warming", "live", "failed", "superseded"]
Action = Literal["put", "weights", "promote", "rollback", "delete", "load", "follow", "override", "steps"]
"""`follow` takes versions that aliases have moved to; `override` does so past the checks that they failed; `load` is the repository extension's."""

UNFINISHED: Final = ("pending", "loading", "warming")


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    """A registry alias that shall follow a promotion, once the promotion is live. `id` is 0 until it is stored.

    `found` is the version that the alias named before it was written for the first time; None: nobody could look yet.
    """

    id: int = 0
    revision: int = 0
    name: str
    alias: str
    version: str
    state: Literal["pending", "done", "failed"] = "pending"
    attempts: int = 0
    problem: str = ""
    found: str | None = None


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A change as somebody asks for it. `document` None deletes the endpoint.

    `resolutions`: variant or mirror → the model version to take instead of asking the registry what the document's reference says,
    and `@<version>` → a version to keep warm for pins.
    `restores`: the revision that a rollback goes back to.
    """

    endpoint: str
    action: Action
    author: str
    reason: str
    document: dict[str, Any] | None
    resolutions: dict[str, CompiledModel] = {}
    restores: int | None = None
    alias_moves: tuple[AliasMove, ...] = ()


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """A stored draft. Numbers are global and never reused. Times are wall clock, microseconds.

    `resolutions` names every arm's model version once control has resolved them, from `warming` on. `replaced` is the revision
    that was live before this one became so; None until then, and for an endpoint's first.
    """

    number: int
    endpoint: str
    state: State
    action: Action
    author: str
    reason: str
    created_unix_us: int
    changed_unix_us: int
    document: dict[str, Any] | None
    resolutions: dict[str, CompiledModel] = {}
    restores: int | None = None
    replaced: int | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED
