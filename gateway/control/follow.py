"""Watches the registry's aliases and does about a move what the route says: switch, propose, or nothing.

One question to the registry for all models, every few seconds and whenever a webhook nudges, on a thread. Moving an alias touches no
timestamp in MLflow, so maps are compared: what an alias names now with what it named before (`routing.following`). While the registry does
not answer nothing changes. What a switch does is a revision like any other, authored `system:follow`: it goes live, or the old one stays.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final

import msgspec

from gateway.control.changes import Author, Changes
from gateway.control.preparation import aliased
from gateway.control.reconcile import Reconciler
from gateway.state.revision import Revision
from gateway.state.standing import FOLLOW, Followed
from gateway.state.store import StateStore
from gateway.telemetry.log import EventLog
from models.errors import ModelsError
from routing.following import arm_of, look, refuse
from routing.traffic import Route

Aliases = Mapping[tuple[str, str], str]
"""(registered model, alias) → version."""

AWAY: Final = "registry_unavailable"
RETRIES_S: Final = (5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""When a switch is tried again that only a registry that went away stood against, unless that is heard again before; after the last it
counts as refused."""

log = EventLog(__name__)


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the registry. `at_unix_us` is when it last answered, None: never yet; `problem` why it does not answer now."""

    poll_s: float
    at_unix_us: int | None = None
    problem: str | None = None


class Follower:
    """One task. The store is read and written on the event loop; `ask` blocks and runs on `executor`.

    `poll_s`: seconds between two looks. `on_return` is called when a registry that was away answers again.
    """

    def __init__(
        self,
        store: StateStore,
        changes: Changes,
        reconciler: Reconciler,
        ask: Callable[[], Aliases],
        executor: Executor,
        *,
        poll_s: float,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._changes = changes
        self._reconciler = reconciler
        self._ask = ask
        self._executor = executor
        self._poll_s = poll_s
        self._on_return = on_return
        self._nudged = asyncio.Event()
        self._rehearsals: dict[str, asyncio.Task[None]] = {}
        self.heard = Heard(poll_s=poll_s)

    def nudge(self) -> None:
        """Looks now: somebody says that something moved. Any number of nudges during a look make one more."""
        self._nudged.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                try:
                    await self.step()
                except Exception as error:  # noqa: BLE001  # a state that cannot be written now must not end following, nor control
                    log.error("following_broke", error=error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._nudged.wait()
                self._nudged.clear()
        finally:
            for task in self._rehearsals.values():
                task.cancel()
            await asyncio.gather(*self._rehearsals.values(), return_exceptions=True)

    async def step(self) -> None:
        """One look at the registry, if any live route names an alias."""
        before = {live.endpoint: live.number for live, route in self._store.live_routes() if aliased(route)}
        if not before:
            return
        moving = self._moving()
        try:
            aliases = await asyncio.get_running_loop().run_in_executor(self._executor, self._ask)
        except ModelsError as error:
            self._away(str(error))
            return
        except Exception as error:  # noqa: BLE001  # a registry of another release may raise anything, and following must outlive it
            log.error("registry_look_broke", error=error)
            self._away(f"{type(error).__name__}: {error}")
            return
        is_back = self.heard.problem is not None
        if is_back:
            log.info("registry_back")
            self._on_return()
        self.heard = Heard(poll_s=self._poll_s, at_unix_us=self._store.now_unix_us())
        for live, route in self._store.live_routes():
            # A route that changed while the registry was asked may know more than the answer; a revision on its way is waited for.
            if before.get(live.endpoint) == live.number and self._store.current(live.endpoint) == live:
                self._look(live, route, _without(aliases, moving | self._moving()), is_back)

    # ----------------------------------------------------------------

    def _look(self, live: Revision, route: Route, aliases: Aliases, is_back: bool) -> None:
        refs = aliased(route)
        served = {arm: live.resolutions[arm].key.version for arm in refs}
        names = {arm: (ref.name, ref.detail) for arm, ref in refs.items()}
        named = {arm: aliases[name] for arm, name in names.items() if name in aliases}
        before = self._store.standings.followed(live.endpoint)
        tried = self._outcome(before, route)
        if is_back:
            tried = msgspec.structs.replace(tried, retry_unix_us=0)
        following = look(tried.following, follow=route.follow, served=served, named=named)
        after = msgspec.structs.replace(tried, following=following)
        has_news = (following.state, following.wanted) != (tried.following.state, tried.following.wanted)
        if has_news:
            problems = tried.problems if following.refused else ()
            after = Followed(following=following, since_unix_us=self._store.now_unix_us(), problems=problems)
        if has_news and following.state in {"trying", "proposed"}:
            log.info("alias_moved", endpoint=live.endpoint, state=following.state, wanted=following.wanted)
        if after != before:
            news = _moves(refs, served, following.wanted) if has_news and following.state == "proposed" else ""
            self._store.standings.keep_followed(live.endpoint, after, reason=news)
        if following.state == "trying" and self._is_due(after):
            self._try(live, after, _moves(refs, served, following.wanted))
        elif following.state == "proposed" and not after.is_checked:
            self._rehearse(live, after)

    def _outcome(self, followed: Followed, route: Route) -> Followed:
        """What became of the revision that tried, if there was one: its failure is kept, and not repeated."""
        revision = self._store.revision(followed.revision) if followed.revision else None
        if revision is None or revision.is_unfinished or revision.state == "live":
            return followed
        following = followed.following
        if revision.state == "superseded":  # somebody stepped in between: it is theirs to decide now
            state = "proposed" if following.state == "trying" else following.state
            following = msgspec.structs.replace(following, state=state)
            return msgspec.structs.replace(followed, following=following, revision=None)
        is_away = all(problem.code == AWAY for problem in revision.problems)
        if is_away and followed.attempts < len(RETRIES_S):
            return msgspec.structs.replace(
                followed,
                revision=None,
                attempts=followed.attempts + 1,
                retry_unix_us=self._store.now_unix_us() + int(RETRIES_S[followed.attempts] * 1e6),
                problems=revision.problems,
            )
        unfit = {arm for problem in revision.problems if (arm := arm_of(route, problem.path))}
        refused = Followed(
            following=refuse(following, unfit), since_unix_us=self._store.now_unix_us(), problems=revision.problems
        )
        reason = "; ".join(str(problem) for problem in revision.problems)
        log.warning("alias_refused", endpoint=route.endpoint, revision=revision.number, problem=reason)
        self._store.standings.keep_followed(route.endpoint, refused, reason=reason[:1000])
        return refused

    def _is_due(self, followed: Followed) -> bool:
        """Whether nothing tries it yet, and the pause after a registry that went away is over."""
        return followed.revision is None and self._store.now_unix_us() >= followed.retry_unix_us

    def _try(self, live: Revision, followed: Followed, reason: str) -> None:
        author = Author(FOLLOW, reason)
        revision = self._changes.follow(live.endpoint, followed.following.wanted, expected=live.number, author=author)
        now = self._store.standings.followed(live.endpoint)  # it may be live already, which notes what it brought
        self._store.standings.keep_followed(live.endpoint, msgspec.structs.replace(now, revision=revision.number))

    def _rehearse(self, live: Revision, followed: Followed) -> None:
        """Makes a proposal ready beside everything else, so that who decides sees what stands against it, and waits for nothing."""
        task = self._rehearsals.get(live.endpoint)
        if task is None or task.done():
            self._rehearsals[live.endpoint] = asyncio.create_task(self._rehearsed(live, followed))

    async def _rehearsed(self, live: Revision, followed: Followed) -> None:
        wanted = followed.following.wanted
        try:
            problems = await self._reconciler.rehearse(live.endpoint, self._changes.with_versions(live, wanted))
        except Exception as error:  # noqa: BLE001  # whatever a model brings, it is news about the proposal and not our end
            log.error("rehearsal_broke", error=error, endpoint=live.endpoint)
            return
        now = self._store.standings.followed(live.endpoint)
        if now.following.state == "proposed" and now.following.wanted == wanted:
            is_away = any(problem.code == AWAY for problem in problems)
            self._store.standings.keep_followed(
                live.endpoint, msgspec.structs.replace(now, problems=tuple(problems), is_checked=not is_away)
            )

    def _moving(self) -> set[tuple[str, str]]:
        """Aliases that a promotion is about to move. One that it moved while the registry was asked was asked for too early, or too late."""
        return {(move.name, move.alias) for move in self._store.alias_moves.waiting()}

    def _away(self, problem: str) -> None:
        if self.heard.problem is None:
            log.warning("registry_away", problem=problem)
        self.heard = msgspec.structs.replace(self.heard, problem=problem)


def _without(aliases: Aliases, names: set[tuple[str, str]]) -> Aliases:
    return {name: version for name, version in aliases.items() if name not in names}


def _moves(refs: Mapping[str, object], served: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """`models:/phishing@champion moved from version 1 to 3`, for every arm."""
    return "; ".join(f"{refs[arm]} moved from version {served[arm]} to {version}" for arm, version in wanted.items())


def summary(followed: Followed, served: Mapping[str, str]) -> str | None:
    """Following in one line for people; None where there is nothing to say. `served` is the version of every arm."""
    following = followed.following
    wanted = _arrows(following.wanted, served)
    refused = ", ".join(f"{arm} → {version}" for arm, version in following.refused.items())
    problems = "; ".join(str(problem) for problem in followed.problems)
    paused = f"paused: {left}" if (left := _arrows(following.left, served)) else "paused"
    match following.state:
        case "paused":
            return "; ".join([paused, *([f"refused: {refused} ({problems})"] if refused else [])])
        case "proposed":
            checked = f"does not pass: {problems}" if problems else "passes" if followed.is_checked else "being checked"
            said = f"proposed: {wanted} ({checked})"
        case "trying":
            said = f"switching: {wanted}" + (f" (waits: {problems})" if problems else "")
        case "ignored":
            said = f"ignored: {wanted}"
        case "refused":
            said = f"refused: {refused} ({problems})"
        case _:
            return None
    return f"{said}; {paused}" if left else said


def _arrows(versions: Mapping[str, str], served: Mapping[str, str]) -> str:
    """`champion 1 → 3`, of every arm that serves another version."""
    return ", ".join(
        f"{arm} {served.get(arm)} → {version}" for arm, version in versions.items() if version != served.get(arm)
    )
