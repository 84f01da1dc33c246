"""What may go wrong in `routing`, as one tree of plain exceptions; `gateway/errors.py` is the only place that turns them into statuses.

RoutingError
├── RouteInvalid      a route document, or an edit of one, that may not become a revision; carries every problem at once
├── SplitMismatch     the split stored with the revision does not have its digest
├── PinRefused        the caller pins a variant and the route does not allow pins
└── VariantUnknown    the caller pins a variant that the route does not have
"""

from collections.abc import Sequence

import msgspec


class RoutingError(Exception):
    """Root of everything that `routing` raises on purpose."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a document.

    `path` leads to it (`variants[1].weight`; empty: the document itself), `code` is stable, `remedy` says what to write instead.
    """

    path: str
    code: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


class RouteInvalid(RoutingError):
    """A document with at least one problem. `problems` holds all of them: what is misread, then what contradicts itself.

    `read`: the Route that could be read of it all the same, with defaults in place of what could not, for those who look for more
    problems; None: nothing could.
    """

    def __init__(self, problems: Sequence[Problem], read: object = None) -> None:
        assert problems
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.read = read


class SplitMismatch(RoutingError):
    """The stored split does not have its digest: the store is damaged. Serving it would deal units anew."""


class PinRefused(RoutingError):
    """The request names a variant or a version and the route says `allow_pin: false`."""

    def __init__(self, endpoint: str, named: str) -> None:
        super().__init__(
            f"endpoint '{endpoint}' does not allow pins: the request names {named}; leave it out, or set `allow_pin: true` in the route"
        )


class VariantUnknown(RoutingError):
    """The request names a variant that the route does not have."""
