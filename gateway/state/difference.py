"""What changed between two route documents, in lines that a person reads: for the audit, `runoff apply` and the plan."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_NAMED: Final = ("variants", "mirrors", "rules")
_ORDERED: Final = "rules"
_WEIGHT: Final = re.compile(r"variants\.([^:]+)\.weight: (.*)")


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[str]:
    """One line a change, by path; members of a list that have a `name` are matched by it, so that order is no change.

    Of rules it is one, since the first that matches wins; new ones behind all others move none. Of a new endpoint only the arms are named,
    not every default; of a deleted one nothing.

    Weights stand first, on one line: they are what is changed most, and mean something beside each other only.

    >>> differences({"variants": [{"name": "a", "weight": 1}]}, {"variants": [{"name": "a", "weight": 2}]})
    ['weights: a 1 → 2']
    """
    if before is None or after is None:
        named = {name: members for name in _NAMED if after and (members := after.get(name))}
        return ["new endpoint" if after else "endpoint deleted", *_changes("", {name: [] for name in named}, named)]
    empty: dict[str, object] = {name: [] for name in _NAMED if name in before or name in after}
    weights: list[str] = []
    rest: list[str] = []
    for change in _changes("", {**empty, **before}, {**empty, **after}):
        found = _WEIGHT.fullmatch(change)
        (weights if found else rest).append(f"{found[1]} {found[2]}" if found else change)
    return [*([f"weights: {', '.join(weights)}"] if weights else []), *rest]


def _changes(path: str, before: object, after: object) -> Iterator[str]:
    if before == after:
        return
    left, right = _members(before), _members(after)
    if left is None or right is None:
        yield f"{path}: {_text(before)} → {_text(after)}"
        return
    for name in [*left, *(name for name in right if name not in left)]:
        inner = f"{path}.{name}" if path else str(name)
        if name not in right:
            yield f"{inner}: removed ({_text(left[name])})"
        elif name not in left:
            yield f"{inner}: added ({_text(right[name])})"
        else:
            yield from _changes(inner, left[name], right[name])
    stayed = [name for name in left if name in right]
    if path == _ORDERED and list(right)[: len(stayed)] != stayed:
        yield f"{path}: order {', '.join(left)} → {', '.join(right)}"


def _members(value: object) -> Mapping[str, object] | None:
    """A mapping of what is compared one by one, None for what is compared as a whole."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    named = {str(member["name"]): member for member in value if isinstance(member, Mapping) and "name" in member}
    return named if len(named) == len(value) else None


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name} {_text(inner)}" for name, inner in value.items() if name != "name" and inner is not False
        )
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
