"""The state as control writes it: every change of routes is a revision, every step of a revision one transaction."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.state.alias_moves import AliasMoves
from gateway.state.audit import SYSTEM, AuditRow
from gateway.state.compiled import CompiledModel, CompiledRoute, pin_name
from gateway.state.database import Database, StateError
from gateway.state.difference import differences
from gateway.state.keys import KeyTable
from gateway.state.revision import UNFINISHED, Draft, Revision, State
from gateway.state.staged import StagedNames
from gateway.state.standing import Standings
from gateway.telemetry.log import EventLog
from routing.errors import Problem, RouteInvalid
from routing.traffic import Route
from routing.validate import validate

_COLUMNS: Final = (
    "number, endpoint, state, action, author, reason, created_unix_us, changed_unix_us, document, resolutions, restores, "
    "replaced, problems"
)
_UNFINISHED: Final = "('" + "', '".join(UNFINISHED) + "')"
_COMPILED_KEPT: Final = 32
"""Compiled forms kept for one endpoint (64 kB each); older ones are compiled again from their resolutions when needed."""
_PROBLEMS = msgspec.json.Decoder(tuple[Problem, ...])
_RESOLUTIONS = msgspec.json.Decoder(dict[str, CompiledModel])

log = EventLog(__name__)


class RevisionStale(StateError):
    """The endpoint has another current revision than the writer had seen. `current` is it; None: there is no such endpoint."""

    def __init__(self, endpoint: str, expected: int | None, current: int | None) -> None:
        wanted = "no such endpoint" if expected is None else f"revision {expected}"
        got = "there is none" if current is None else f"it is at revision {current}"
        super().__init__(f"endpoint {endpoint!r}: wanted {wanted}, {got}")
        self.current = current


class StateStore:
    """`state.db`, read and written. Raises what `Database` does; which process, which thread: see there."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database = Database(path, clock=clock)
        self._connection = database.connection
        self._live: dict[int, tuple[Revision, Route | None]] = {}
        """What `live_routes` has read: a revision does not change while it is live."""
        self.staged = StagedNames(database)
        self.alias_moves = AliasMoves(database)
        self.standings = Standings(database)
        self.keys = KeyTable(database)
        self.audit_broken_at = database.audit.broken_at()
        """The row at which the audit's chain did not hold when this was opened; None: it did."""
        self.audit_newest = database.audit.newest()
        """Sequence and hash of its last row at that time."""

    def close(self) -> None:
        self._database.close()

    # ---------------------------------------------------------------- what there is

    def endpoints(self) -> list[str]:
        """Names of all endpoints that are live or on their way, in order."""
        rows = self._connection.execute(
            "SELECT DISTINCT revisions.endpoint FROM revisions LEFT JOIN routes ON routes.endpoint = revisions.endpoint "  # noqa: S608
            f"WHERE (routes.live IS NOT NULL OR revisions.state IN {_UNFINISHED}) ORDER BY 1"
        )
        return [name for name in (row[0] for row in rows) if self.current(name) is not None]

    def current(self, endpoint: str) -> Revision | None:
        """What a writer changes: the revision on its way, else the live one. None: no such endpoint (or it is deleted)."""
        newest = self._one(f"endpoint = ? AND state IN {_UNFINISHED} ORDER BY number DESC", endpoint)
        newest = newest or self.live(endpoint)
        return newest if newest is not None and newest.document is not None else None

    def routes(self) -> dict[str, Route]:
        """What a writer would change, of every endpoint whose document this release reads."""
        routes = {endpoint: readable(self.current(endpoint)) for endpoint in self.endpoints()}
        return {endpoint: route for endpoint, route in routes.items() if route is not None}

    def live_routes(self) -> list[tuple[Revision, Route]]:
        """Every live revision with its route, by endpoint.

        One whose document this release refuses (an older one has stored it) is left out and logged once: what control does by itself
        must not end with it. Workers and callers are told where they meet it.
        """
        numbers = self._connection.execute("SELECT live FROM routes WHERE live IS NOT NULL ORDER BY endpoint")
        live = {number: self._live.get(number) or self._read(number) for (number,) in numbers}
        self._live = live
        return [(revision, route) for revision, route in live.values() if route is not None]

    def live(self, endpoint: str) -> Revision | None:
        """The revision that workers serve; None when there is none."""
        return self._one("number = (SELECT live FROM routes WHERE endpoint = ?)", endpoint)

    def previous(self, endpoint: str) -> Revision | None:
        """The revision that a rollback goes back to."""
        return self._one("number = (SELECT previous FROM routes WHERE endpoint = ?)", endpoint)

    def revision(self, number: int) -> Revision | None:
        return self._one("number = ?", number)

    def revisions(
        self, *, limit: int, before: int | None = None, endpoint: str | None = None, states: Iterable[State] = ()
    ) -> list[Revision]:
        """Newest first; `before` is a number to page on from."""
        wanted = tuple(states)
        marks = ", ".join("?" * len(wanted))
        return self._many(
            "(?1 IS NULL OR number < ?1) AND (?2 IS NULL OR endpoint = ?2) "
            + (f"AND state IN ({marks}) " if wanted else "")
            + f"ORDER BY number DESC LIMIT {int(limit)}",
            before,
            endpoint,
            *wanted,
        )

    def unfinished(self) -> list[Revision]:
        """The revisions that control has to take further, oldest first; at most one an endpoint."""
        return self._many(f"state IN {_UNFINISHED} ORDER BY number")

    def was_live(self, number: int) -> bool:
        """Whether the revision is, or once was, the live one."""
        found = self._one("number = ?1 AND state = 'live' OR replaced = ?1", number)
        return found is not None

    def compiled(self, number: int | None) -> CompiledRoute | None:
        """The resolved form of a revision; None before it was compiled, and for deletions."""
        row = self._connection.execute("SELECT compiled FROM revisions WHERE number = ?", (number,)).fetchone()
        return msgspec.msgpack.decode(row[0], type=CompiledRoute) if row and row[0] is not None else None

    def audit(self, *, limit: int, before: int | None = None, endpoint: str | None = None) -> list[AuditRow]:
        return self._database.audit.rows(limit=limit, before=before, endpoint=endpoint)

    def changes(self, number: int) -> list[str]:
        """What the revision changed of what its author saw, a line each, as the audit has it."""
        written = self.written(number)
        changes: list[str] = written.detail.get("changes", []) if written else []
        return changes

    def written(self, number: int) -> AuditRow | None:
        """The line of the audit that tells of the writing of a revision: who, what and why, in the chain of hashes."""
        return self._database.audit.first(number)

    # ---------------------------------------------------------------- a revision's way

    def write(self, draft: Draft, *, expected: int | None = None, check: bool = True) -> Revision:
        """Stores a draft as the next revision, `pending`; whatever was on its way for this endpoint is superseded.

        `expected` is the current revision that the writer saw, None that there is no such endpoint; `check` False writes anyway.
        Raises RevisionStale.
        """
        now = self.now_unix_us()
        with self._database.transaction():
            current = self.current(draft.endpoint)
            seen = current.number if current else None
            if check and seen != expected:
                raise RevisionStale(draft.endpoint, expected, seen)
            self._connection.execute(
                f"UPDATE revisions SET state = 'superseded', changed_unix_us = ? WHERE endpoint = ? AND state IN {_UNFINISHED}",  # noqa: S608
                (now, draft.endpoint),
            )
            self._connection.execute("INSERT OR IGNORE INTO routes (endpoint) VALUES (?)", (draft.endpoint,))
            cursor = self._connection.execute(
                "INSERT INTO revisions (endpoint, state, action, author, reason, created_unix_us, changed_unix_us, document, "
                "resolutions, restores) VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    draft.endpoint,
                    draft.action,
                    draft.author,
                    draft.reason,
                    now,
                    now,
                    None if draft.document is None else _json(draft.document),
                    _json(draft.resolutions),
                    draft.restores,
                ),
            )
            number = cursor.lastrowid
            assert number is not None
            for move in draft.alias_moves:
                self.alias_moves.add(number, move)
            self._database.audit.append(
                draft.author,
                draft.action,
                endpoint=draft.endpoint,
                revision=number,
                reason=draft.reason,
                detail={"from": seen, "changes": differences(current.document if current else None, draft.document)},
            )
        written = self.revision(number)
        assert written is not None
        return written

    def advance(self, number: int, state: State, compiled: CompiledRoute | None = None) -> bool:
        """Takes an unfinished revision a step on. False: it was superseded or finished meanwhile, and nothing changed."""
        cursor = self._connection.execute(
            f"UPDATE revisions SET state = ?, changed_unix_us = ?, compiled = coalesce(?, compiled), "  # noqa: S608
            f"resolutions = coalesce(?, resolutions) WHERE number = ? AND state IN {_UNFINISHED}",
            (
                state,
                self.now_unix_us(),
                None if compiled is None else msgspec.msgpack.encode(compiled),
                None if compiled is None else _json(compiled.models | {pin_name(pin): pin for pin in compiled.pins}),
                number,
            ),
        )
        return cursor.rowcount == 1

    def activate(self, number: int, compiled: CompiledRoute | None) -> bool:
        """Makes an unfinished revision the live one; `compiled` None deletes the endpoint. False: it was superseded meanwhile."""
        with self._database.transaction():
            if not self.advance(number, "live", compiled):
                return False
            revision = self.revision(number)
            assert revision is not None
            before = self.live(revision.endpoint)
            replaced = before.number if before else None
            self._connection.execute(
                "UPDATE revisions SET state = 'superseded', changed_unix_us = ? "
                "WHERE endpoint = ? AND state = 'live' AND number != ?",
                (self.now_unix_us(), revision.endpoint, number),
            )
            self._connection.execute("UPDATE revisions SET replaced = ? WHERE number = ?", (replaced, number))
            self._connection.execute(
                "UPDATE routes SET live = ?2, previous = coalesce(?3, previous) WHERE endpoint = ?1",
                # Going back to what is live takes away what was on its way, and leaves the way back where it was.
                (revision.endpoint, number if compiled else None, None if revision.restores == replaced else replaced),
            )
            self.standings.activated(revision, before)
            self._connection.execute(
                "UPDATE revisions SET compiled = NULL WHERE endpoint = ?1 AND compiled IS NOT NULL AND number NOT IN "
                "(SELECT number FROM revisions WHERE endpoint = ?1 AND compiled IS NOT NULL ORDER BY number DESC LIMIT ?2) "
                "AND number NOT IN (SELECT previous FROM routes WHERE endpoint = ?1 AND previous IS NOT NULL)",
                (revision.endpoint, _COMPILED_KEPT),
            )
            self._database.audit.append(
                SYSTEM,
                "live",
                endpoint=revision.endpoint,
                revision=number,
                detail={
                    "replaced": replaced,
                    "models": {name: str(model.key) for name, model in compiled.models.items()} if compiled else {},
                    "split_sha256": compiled.split_sha256 if compiled else None,
                },
            )
        return True

    def fail(self, number: int, problems: Iterable[Problem]) -> bool:
        """Ends an unfinished revision; what was live stays live. False: it was superseded or finished meanwhile."""
        listed = tuple(problems)
        with self._database.transaction():
            if not self.advance(number, "failed"):
                return False
            self._connection.execute("UPDATE revisions SET problems = ? WHERE number = ?", (_json(listed), number))
            revision = self.revision(number)
            assert revision is not None
            self._database.audit.append(
                SYSTEM,
                "failed",
                endpoint=revision.endpoint,
                revision=number,
                detail={"problems": msgspec.to_builtins(listed)},
            )
        return True

    def note(self, action: str, *, author: str, reason: str, detail: dict[str, Any]) -> None:
        """A line in the audit about something that is kept elsewhere."""
        with self._database.transaction():
            self._database.audit.append(author, action, reason=reason, detail=detail)

    # ----------------------------------------------------------------

    def now_unix_us(self) -> int:
        """The store's own wall clock, by which all of its times are."""
        return self._database.now_unix_us()

    def _read(self, number: int) -> tuple[Revision, Route | None]:
        revision = self.revision(number)
        assert revision is not None, "a revision is never deleted"
        try:
            return revision, validate(revision.document)
        except RouteInvalid as error:
            log.error("route_unreadable", endpoint=revision.endpoint, revision=number, problem=str(error))
            return revision, None

    def _one(self, where: str, *values: object) -> Revision | None:
        found = self._many(where + " LIMIT 1", *values)
        return found[0] if found else None

    def _many(self, where: str, *values: object) -> list[Revision]:
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM revisions WHERE {where}", values)  # noqa: S608
        return [_revision(row) for row in rows]


def readable(revision: Revision | None) -> Route | None:
    """Its route; None where there is none, or where this release refuses what an older one has stored."""
    try:
        return validate(revision.document) if revision is not None and revision.document is not None else None
    except RouteInvalid:
        return None


def _revision(row: tuple[Any, ...]) -> Revision:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    fields["document"] = None if fields["document"] is None else msgspec.json.decode(fields["document"])
    fields["resolutions"] = _RESOLUTIONS.decode(fields["resolutions"])
    fields["problems"] = _PROBLEMS.decode(fields["problems"])
    return Revision(**fields)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
