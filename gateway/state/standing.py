"""Where the two things stand that control does to an endpoint by itself: following its aliases, and the steps of its ramp."""

from typing import Any, Final, Literal

import msgspec

from gateway.state.database import Database
from gateway.state.revision import Revision
from routing.errors import Problem
from routing.following import Following, activated, resumed

FOLLOW: Final = "system:follow"
STEPS: Final = "system:steps"
"""Authors of what control does by itself."""


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """Following of one endpoint, and what came of it.

    `revision` is the one that tries what is wanted; `attempts` says how often a registry that went away stood in its way, `retry_unix_us`
    when it is tried again. `problems` stand against what is wanted or was refused. `is_checked`: what is proposed was made ready and
    compared. Times are wall clock, microseconds.
    """

    following: Following = Following()
    since_unix_us: int = 0
    revision: int | None = None
    attempts: int = 0
    retry_unix_us: int = 0
    problems: tuple[Problem, ...] = ()
    is_checked: bool = False


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """How far the steps of a route have come.

    `revision` is the newest one that belongs to it: that of the route, or of the step. `step` counts from 0; its weights hold until
    `due_unix_us`; while it is paused, `left_us` is what was left of it. `reason` says why it is paused. `base` are the weights of the
    document that it began with: while that is applied again, the ramp's own weights stay.
    """

    state: Literal["running", "paused", "finished"]
    revision: int
    base: dict[str, float] = {}
    step: int = 0
    due_unix_us: int = 0
    left_us: int = 0
    reason: str = ""


_FOLLOWED: Final = msgspec.json.Decoder(Followed)
_RAMP: Final = msgspec.json.Decoder(Ramp)


class Standings:
    """Part of the store: what control keeps of both, and what of it the audit tells."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection

    def followed(self, endpoint: str) -> Followed:
        """Where following of this endpoint stands; that of one never looked at is as new."""
        found = self._read("following", endpoint)
        return Followed() if found is None else _FOLLOWED.decode(found)

    def keep_followed(self, endpoint: str, followed: Followed, *, reason: str = "") -> None:
        """Stores it; with a `reason` the audit tells of it."""
        with self._database.transaction():
            self._keep_followed(endpoint, followed)
            if reason:
                following = followed.following
                detail = {"problems": followed.problems, "wanted": following.wanted, "refused": following.refused}
                self._database.audit.append(
                    FOLLOW,
                    following.state,
                    endpoint=endpoint,
                    revision=followed.revision,
                    reason=reason,
                    detail=msgspec.to_builtins(detail),
                )

    def resume(self, endpoint: str, *, author: str, reason: str) -> None:
        """Lets the endpoint follow again, after a rollback or a refusal: the next look takes what differs for what has moved."""
        with self._database.transaction():
            self._keep_followed(endpoint, Followed(following=resumed(), since_unix_us=self._database.now_unix_us()))
            self._database.audit.append(author, "resume", endpoint=endpoint, reason=reason)

    def ramps(self) -> dict[str, Ramp]:
        """Those that there are, by endpoint."""
        rows = self._connection.execute("SELECT endpoint, document FROM ramps")
        return {endpoint: _RAMP.decode(document) for endpoint, document in rows}

    def ramp(self, endpoint: str) -> Ramp | None:
        """How far the steps of the live route have come; None: it has none, or they have not begun."""
        found = self._read("ramps", endpoint)
        return None if found is None else _RAMP.decode(found)

    def keep_ramp(self, endpoint: str, ramp: Ramp | None, *, author: str = "", reason: str = "") -> None:
        """Stores it; with a `reason` the audit tells who did it and why."""
        with self._database.transaction():
            self._keep_ramp(endpoint, ramp)
            if reason and ramp is not None:
                self._database.audit.append(
                    author,
                    f"steps_{ramp.state}",
                    endpoint=endpoint,
                    revision=ramp.revision,
                    reason=reason,
                    detail={"step": ramp.step},
                )

    def activated(self, revision: Revision, before: Revision | None) -> None:
        """Inside the transaction that makes a revision live in place of `before`: what that means for following.

        Of a deleted endpoint nothing is left to follow.
        """
        endpoint = revision.endpoint
        if revision.document is None:
            self._keep_followed(endpoint, Followed())
            self._keep_ramp(endpoint, None)
            return
        standing = self.followed(endpoint)
        following = activated(
            standing.following,
            served={arm: model.key.version for arm, model in revision.resolutions.items()},
            earlier=_named_alike(before, revision) if before else {},
            is_rollback=revision.action == "rollback",
        )
        if following.state != standing.following.state:
            standing = Followed(since_unix_us=self._database.now_unix_us())
        self._keep_followed(endpoint, msgspec.structs.replace(standing, following=following))

    def _keep_followed(self, endpoint: str, followed: Followed) -> None:
        self._write("following", endpoint, msgspec.json.encode(followed))

    def _keep_ramp(self, endpoint: str, ramp: Ramp | None) -> None:
        if ramp is None:
            self._connection.execute("DELETE FROM ramps WHERE endpoint = ?", (endpoint,))
        else:
            self._write("ramps", endpoint, msgspec.json.encode(ramp))

    def _read(self, table: Literal["following", "ramps"], endpoint: str) -> str | None:
        row = self._connection.execute(f"SELECT document FROM {table} WHERE endpoint = ?", (endpoint,)).fetchone()  # noqa: S608  # one of two
        return None if row is None else str(row[0])

    def _write(self, table: Literal["following", "ramps"], endpoint: str, document: bytes) -> None:
        self._connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (endpoint, document.decode()))  # noqa: S608  # one of two


def _named_alike(before: Revision, after: Revision) -> dict[str, str]:
    """The versions that were served, by the arms that name their model by the same reference still."""
    references = _references(after)
    kept = {arm for arm, reference in _references(before).items() if references.get(arm) == reference}
    return {arm: model.key.version for arm, model in before.resolutions.items() if arm in kept}


def _references(revision: Revision) -> dict[str, Any]:
    """By arm; as it stands there, since an older release may have written it."""
    document = revision.document or {}
    arms = [*document.get("variants", ()), *document.get("mirrors", ())]
    return {arm["name"]: arm.get("model") for arm in arms}
