"""A dry run: what a route document would change, from the two compiled splits, before anything is stored."""

from collections.abc import Iterator

import msgspec
import numpy as np

from routing.errors import Problem, RouteInvalid
from routing.split import BUCKETS, Split, compile_split
from routing.traffic import RETAINED, Retention, Route, duration
from routing.validate import validate


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """This share of all units goes from one variant to another."""

    source: str
    target: str
    share: float


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant asks for and what it gets: the exact share of the compiled table."""

    variant: str
    weight: float
    share: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen. With `problems` nothing would, and all else is empty; `warnings` would not stop it.

    `load` and `unload` are model references that only the new, only the old route names; what they resolve to is staging's question.
    """

    endpoint: str
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    shares: tuple[Share, ...] = ()
    moves: tuple[Move, ...] = ()
    load: tuple[str, ...] = ()
    unload: tuple[str, ...] = ()

    @property
    def moved(self) -> float:
        """The share of all units that change their variant."""
        return sum(move.share for move in self.moves)


def plan(before: Route | None, document: object) -> Plan:
    """What this document would change against the live route (None: the endpoint is new). Never raises for a bad document."""
    try:
        after = validate(document)
    except RouteInvalid as error:
        return Plan(endpoint="" if before is None else before.endpoint, problems=error.problems)
    split = compile_split(after.salt, after.weights)
    old, new = set() if before is None else set(before.models.values()), set(after.models.values())
    return Plan(
        endpoint=after.endpoint,
        warnings=_warnings(before, after, split),
        shares=tuple(
            Share(variant=name, weight=weight, share=share)
            for (name, weight), share in zip(after.weights, split.shares, strict=True)
        ),
        moves=tuple(_moves(before, after, split)),
        load=tuple(sorted(new - old)),
        unload=tuple(sorted(old - new)),
    )


def _moves(before: Route | None, after: Route, split: Split) -> list[Move]:
    """Nothing moves to a new endpoint."""
    if before is None:
        return []
    return moves(compile_split(before.salt, before.weights), split, is_anew=before.unit != after.unit)


def moves(before: Split, after: Split, *, is_anew: bool = False) -> list[Move]:
    """Every move between different variants, the largest first; exact, by variant name.

    Under another salt, or with units from another source (`is_anew`), every unit is dealt anew, independently of where it was: the moves
    are then products of shares.
    """
    if before.salt == after.salt and not is_anew:
        pairs = np.frombuffer(before.arms, np.uint8).astype(np.intp) * len(after.names)
        pairs += np.frombuffer(after.arms, np.uint8)
        counts = np.bincount(pairs, minlength=len(before.names) * len(after.names))
        shares = counts.reshape(len(before.names), len(after.names)) / BUCKETS
    else:
        shares = np.outer(before.shares, after.shares)
    found = [
        Move(source=source, target=target, share=float(shares[row, column]))
        for row, source in enumerate(before.names)
        for column, target in enumerate(after.names)
        if source != target and shares[row, column] > 0
    ]
    return sorted(found, key=lambda move: (-move.share, move.source, move.target))


def _warnings(before: Route | None, after: Route, split: Split) -> tuple[Problem, ...]:
    warnings = [
        Problem(
            f"variants[{index}].weight",
            "share_zero",
            f"'{variant.name}' has a weight and, being below 1 in {BUCKETS:,}, gets no unit",
            "raise its weight",
        )
        for index, variant in enumerate(after.variants)
        if variant.weight > 0 and split.shares[index] == 0
    ]
    if before is not None and before.salt != after.salt:
        message = "another salt deals every unit anew; running experiments end"
        warnings.append(Problem("salt", "salt_changed", message, f"keep '{before.salt}' unless that is wanted"))
    if before is not None and before.unit != after.unit:
        message = "another source of the unit deals every unit anew; running experiments end"
        warnings.append(Problem("unit", "unit_changed", message))
    if before is not None:
        warnings += _shortened(before.record.retention, after.record.retention)
    return tuple(warnings)


def _shortened(before: Retention, after: Retention) -> Iterator[Problem]:
    """Tables of which rows are deleted that would have stayed; those that nobody names go with their predictions."""
    named = {"predictions", *dict(before.of), *dict(after.of)}
    tables = [table for table in ("predictions", *RETAINED) if table in named]
    shorter = [table for table in tables if after.kept_s(table) < before.kept_s(table)]
    if shorter:
        told = ", ".join(f"{table} older than {duration(after.kept_s(table))}" for table in shorter)
        message = f"rows go within minutes, for good: {told}"
        yield Problem("record.retention", "retention_shorter", message, "copy them first if they are still wanted")
