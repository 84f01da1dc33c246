"""Scopes: what a key may do, and to which endpoints. `predict`, `predict:phishing`, `label:fraud-*`, `records:read:phishing`."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

Scope = Literal[
    "predict",
    "label",
    "read",
    "records:read",
    "sensitive:read",
    "route:write",
    "model:write",
    "gate:override",
    "keys:write",
]
"""`predict` covers metadata too: it tells what a caller needs to know to ask."""
Declared = Scope | Literal["public"]
"""What a route asks for. `public`: nothing, because it shows no more than that somebody is there, or checks its callers itself."""

MEANINGS: Final[Mapping[Scope, str]] = {
    "predict": "ask for predictions and metadata",
    "label": "report the truth about predictions",
    "read": "look at routes, models, evidence and history",
    "records:read": "look at single predictions with their inputs",
    "sensitive:read": "look at evidence by sensitive attributes",
    "route:write": "change routes, experiments and rollouts",
    "model:write": "load, unload and profile models",
    "gate:override": "let a rollout pass a gate that it failed",
    "keys:write": "make, rotate and revoke keys that may do no more than the maker",
}
SCOPES: Final[tuple[Scope, ...]] = tuple(MEANINGS)
_ENDPOINTS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\*?|\*")


class ScopeInvalid(ValueError):
    """Text that is no scope; the message says what is wanted."""


class Grant(msgspec.Struct, frozen=True):
    """One scope. `endpoints`: an endpoint, a prefix that ends in `*`, or None for all of them, and for what is about none."""

    scope: Scope
    endpoints: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Grant":
        """Raises ScopeInvalid."""
        for scope in SCOPES:
            if text == scope:
                return cls(scope)
            if text.startswith(f"{scope}:"):
                endpoints = text[len(scope) + 1 :]
                if _ENDPOINTS.fullmatch(endpoints) is None:
                    raise ScopeInvalid(f"scope '{text[:200]}': wanted an endpoint or a prefix* after '{scope}:'")
                if scope == "keys:write":
                    raise ScopeInvalid("keys:write is about no endpoint: a key may only give what it has itself")
                return cls(scope, None if endpoints == "*" else endpoints)
        raise ScopeInvalid(
            f"unknown scope '{text[:200]}': wanted one of {', '.join(SCOPES)}, each with an optional :endpoint"
        )

    def is_for(self, endpoint: str) -> bool:
        """Whether it reaches this endpoint."""
        if self.endpoints is None or self.endpoints == endpoint:
            return True
        return self.endpoints.endswith("*") and endpoint.startswith(self.endpoints[:-1])

    def covers(self, other: "Grant") -> bool:
        """Whether whoever has this has the other as well."""
        if self.scope != other.scope:
            return False
        if self.endpoints is None or other.endpoints is None:
            return self.endpoints is None
        return self.is_for(other.endpoints.removesuffix("*")) and (
            self.endpoints.endswith("*") or not other.endpoints.endswith("*")
        )

    def __str__(self) -> str:
        return self.scope if self.endpoints is None else f"{self.scope}:{self.endpoints}"


class Grants:
    """All that somebody may do. What is not granted is denied."""

    __slots__ = ("_by_scope", "grants")

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = tuple(sorted(set(grants), key=str))
        self._by_scope: dict[str, list[Grant]] = {}
        for grant in self.grants:
            self._by_scope.setdefault(grant.scope, []).append(grant)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Grants":
        """Raises ScopeInvalid."""
        return cls(Grant.parse(text) for text in texts)

    def allow(self, scope: Scope, endpoint: str) -> bool:
        """Whether it is granted for this endpoint."""
        return any(grant.is_for(endpoint) for grant in self._by_scope.get(scope, ()))

    def allow_some(self, scope: Scope) -> bool:
        """Whether it is granted for any endpoint at all."""
        return scope in self._by_scope

    def allow_all(self, scope: Scope) -> bool:
        """Whether it is granted for every endpoint, those to come included."""
        return any(grant.endpoints is None for grant in self._by_scope.get(scope, ()))

    def missing(self, wanted: Iterable[Grant]) -> list[Grant]:
        """Those of `wanted` that are not covered."""
        return [one for one in wanted if not any(grant.covers(one) for grant in self.grants)]

    def __str__(self) -> str:
        return " ".join(map(str, self.grants))


EVERYTHING: Final = Grants(Grant(scope) for scope in SCOPES)
