"""How revisions, routes and models look to a caller: the shapes of the admin API's answers, in one place."""

from typing import Any

import msgspec

from gateway.admin.replies import time_text
from gateway.control.fleet import Answers, Fleet
from gateway.control.follow import summary
from gateway.control.preparation import aliased
from gateway.control.ramp import ALARM
from gateway.state.audit import AuditRow
from gateway.state.revision import AliasMove, Revision
from gateway.state.store import StateStore, readable
from routing.following import offered
from routing.traffic import Route


def etag(revision: Revision) -> str:
    return f'"{revision.number}"'


def written(revision: Revision) -> dict[str, Any]:
    """The answer to a write."""
    return {
        "endpoint": revision.endpoint,
        "revision": revision.number,
        "state": revision.state,
        "problems": revision.problems,
    }


def route(store: StateStore, fleet: Fleet, current: Revision) -> dict[str, Any]:
    """The document as it may be put back, and `status`: what of it is served. A PUT ignores `status`."""
    assert current.document is not None, "a deleted endpoint has no view"
    live = store.live(current.endpoint)
    compiled = store.compiled(live.number) if live else None
    newest = store.revisions(limit=1, endpoint=current.endpoint)[0]
    failed = newest if newest.state == "failed" else None
    answers = fleet.answers(live.number) if live else Answers()
    served = readable(live)
    refused = sorted(problem for worker, problem in answers.failed.items() if worker in fleet.live)
    problem = "; ".join(str(problem) for problem in failed.problems) if failed else next(iter(refused), None)
    if live is not None and served is None and problem is None:
        problem = "this release refuses the stored document: `runoff check` says why, apply another"
    previous = store.previous(current.endpoint)
    status = {
        "revision": current.number,
        "state": current.state,
        "live": live.number if live else None,
        "previous": previous.number if previous else None,
        "failed": failed.number if failed else None,
        "problem": problem,
        "author": current.author,
        "reason": current.reason,
        "changed_at": time_text(current.changed_unix_us),
        "weights": {variant["name"]: variant["weight"] for variant in current.document["variants"]},
        "shares": compiled.shares if compiled else {},
        "versions": {arm: str(model.key) for arm, model in compiled.models.items()} if compiled else {},
        "mirrors": [mirror["name"] for mirror in current.document.get("mirrors", ())],
        "workers": {"live": len(fleet.live), "active": len(answers.active & fleet.live)},
        "following": following(store, live, served) if live and served else None,
        "steps": steps(store, live, served) if live and served else None,
        "alias_moves": alias_moves(store, current.endpoint),
    }
    return {**current.document, "status": status}


def alias_moves(store: StateStore, endpoint: str | None = None) -> list[AliasMove]:
    """Aliases that have yet to follow a promotion (`pending`), and those that could not (`failed`): somebody has to look at these."""
    return [*store.alias_moves.waiting(endpoint), *store.alias_moves.given_up(endpoint)]


def following(store: StateStore, live: Revision, route: Route) -> dict[str, Any]:
    """What the arms' aliases name beside what they serve, and what is done about it. `summary` is the same for people, or null."""
    followed = store.standings.followed(live.endpoint)
    now = followed.following
    served = {arm: model.key.version for arm, model in live.resolutions.items()}
    return {
        "mode": route.follow,
        "state": now.state,
        "since": time_text(followed.since_unix_us) if followed.since_unix_us else None,
        "aliases": {
            arm: {"reference": str(ref), "serves": served[arm], "names": now.seen.get(arm)}
            for arm, ref in aliased(route).items()
        },
        "wanted": now.wanted,
        "refused": now.refused,
        "left": now.left,
        "offered": offered(now, {arm: served[arm] for arm in aliased(route)}),
        "checked": followed.is_checked,
        "revision": followed.revision,
        "problems": followed.problems,
        "summary": summary(followed, served) if aliased(route) else None,
    }


def steps(store: StateStore, live: Revision, route: Route) -> dict[str, Any] | None:
    """How far the steps of the live route have come; None where it has none, or they begin in a moment. Steps count from 1."""
    ramp = store.standings.ramp(live.endpoint)
    if ramp is None or not route.steps:
        return None
    until = time_text(ramp.due_unix_us) if ramp.state == "running" else None
    count = f"step {ramp.step + 1} of {len(route.steps)}"
    summary = {"running": f"{count} until {until}", "paused": f"{count}, paused: {ramp.reason}", "finished": "finished"}
    return {
        "state": ramp.state,
        "step": ramp.step + 1,
        "of": len(route.steps),
        "until": until,
        "left_s": ramp.left_us / 1e6 if ramp.state == "paused" else None,
        "reason": ramp.reason or None,
        "alarm": ramp.reason.removeprefix(ALARM) if ramp.reason.startswith(ALARM) else None,
        "summary": summary[ramp.state],
    }


def weights(wanted: Route) -> dict[str, float]:
    return dict(wanted.weights)


def changes(store: StateStore, revision: Revision) -> list[str]:
    """What a revision changed, a line each: of the document that its author saw, and of the versions that were live before it."""
    replaced = store.revision(revision.replaced) if revision.replaced else None
    before = replaced.resolutions if replaced else {}
    moved = [
        f"{arm}: {before[arm].key} → {model.key}"
        for arm, model in revision.resolutions.items()
        if arm in before and before[arm].key != model.key
    ]
    return [*moved, *store.changes(revision.number)]


def history(store: StateStore, revision: Revision) -> dict[str, Any]:
    """One revision in a list: who, when, why (as the audit has it, whose past cannot be changed unseen), what became of it."""
    written = store.written(revision.number)
    return {
        "revision": revision.number,
        "endpoint": revision.endpoint,
        "state": revision.state,
        "action": written.action if written else revision.action,
        "author": written.author if written else revision.author,
        "reason": written.reason if written else revision.reason,
        "created_at": time_text(written.at_unix_us if written else revision.created_unix_us),
        "changed_at": time_text(revision.changed_unix_us),
        "replaced": revision.replaced,
        "restores": revision.restores,
        "versions": {arm: str(model.key) for arm, model in revision.resolutions.items()},
        "changes": changes(store, revision),
        "problems": revision.problems,
        "problem": "; ".join(str(problem) for problem in revision.problems) or None,
    }


def revision(store: StateStore, found: Revision) -> dict[str, Any]:
    """One revision whole, with its document and the digest of its split."""
    compiled = store.compiled(found.number)
    return {
        **history(store, found),
        "document": found.document,
        "models": found.resolutions,
        "split_sha256": compiled.split_sha256 if compiled else None,
        "shares": compiled.shares if compiled else None,
    }


def verdict(store: StateStore) -> dict[str, Any]:
    """Whether the audit's chain held when control started, and at which row it did not."""
    return {"intact": store.audit_broken_at is None, "broken_at": store.audit_broken_at}


def audit(row: AuditRow) -> dict[str, Any]:
    fields = msgspec.structs.asdict(row)
    return {**fields, "at": time_text(row.at_unix_us)}
