"""Tokens of an OpenID Connect issuer (JWT) as the second way in, beside keys. The room of PyJWT, imported only where an issuer is set.

The algorithms are fixed by the settings and never by the token; the issuer, the audience and an end are required; keys come from the
issuer's published set alone, never from the token (`jku`, `x5u`, `jwk` are not read). See RFC 8725, section 3.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.errors import Unauthenticated
from gateway.keys.scopes import Grant, Grants, ScopeInvalid
from gateway.settings import Oidc
from gateway.state.keys import KeySet
from gateway.telemetry.log import EventLog

if TYPE_CHECKING:
    from jwt import PyJWK

log = EventLog(__name__)

_LEEWAY_S: Final = 30
_SUBJECT_MAX: Final = 128


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of a token."""

    subject: str
    grants: Grants
    ends_unix_s: float


class TokenReader:
    """Checks tokens against the issuer's keys. Asks nobody: control fetches the keys, `use` takes them."""

    def __init__(self, settings: Oidc, *, clock_unix_s: Callable[[], float] = time.time) -> None:
        assert settings.issuer is not None, "without an issuer there is no reader"
        self._settings = settings
        self._scopes = scope_map(settings.scopes)
        self._clock_unix_s = clock_unix_s
        self._keys: dict[str, PyJWK] = {}
        self._stale_at_unix_s = 0.0
        self._seen: str | None = None

    def use(self, key_set: KeySet | None) -> None:
        """The issuer's keys as they were last fetched. A set that cannot be read leaves the one before it in use."""
        if key_set is None:
            return
        self._stale_at_unix_s = key_set.fetched_unix_us / 1e6 + self._settings.stale_s
        if key_set.document != self._seen:
            self._seen = key_set.document
            try:
                self._keys = usable_keys(key_set.document, self._settings.algorithms)
            except ValueError as error:
                log.error("key_set_refused", issuer=self._settings.issuer, problem=str(error))

    def read(self, token: str) -> Claims:
        """Raises Unauthenticated."""
        import jwt

        if self._clock_unix_s() > self._stale_at_unix_s:
            raise Unauthenticated("tokens cannot be checked: the issuer's keys are not here, or too old")
        try:
            key = self._key(jwt.get_unverified_header(token))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(self._settings.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            ends_unix_s = float(claims["exp"]) + _LEEWAY_S
        except (jwt.InvalidTokenError, OverflowError) as error:  # OverflowError: an end that no clock will ever show
            raise Unauthenticated(
                f"the token is not accepted: {_WORDS.get(type(error).__name__, 'it is not valid')}"
            ) from None
        return Claims(
            subject=_printable(str(claims["sub"])),
            grants=self._grants(claims.get(self._settings.scope_claim)),
            ends_unix_s=ends_unix_s,
        )

    def _key(self, header: Mapping[str, Any]) -> "PyJWK":
        """By `kid`; a token without one is taken where the issuer has a single key."""
        kid = header.get("kid")
        found = self._keys.get(kid) if isinstance(kid, str) else None
        if kid is None and len(self._keys) == 1:
            (found,) = self._keys.values()
        if found is None:
            raise Unauthenticated("the token is not accepted: its issuer has no such key")
        return found

    def _grants(self, claim: object) -> Grants:
        """Scopes out of a claim, a list or text with blanks; what is none of ours gives nothing."""
        values = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
        grants: list[Grant] = []
        for value in values:
            if not isinstance(value, str):
                continue
            if self._scopes:
                grants += self._scopes.get(value, ())
                continue
            try:
                grants.append(Grant.parse(value))
            except ScopeInvalid:
                continue
        return Grants(grants)


def scope_map(lines: tuple[str, ...]) -> dict[str, list[Grant]]:
    """`value=scope scope`, a line for each value of the claim. Raises ScopeInvalid."""
    found: dict[str, list[Grant]] = {}
    for line in lines:
        value, mark, scopes = line.partition("=")
        if not mark or not value.strip() or not scopes.split():
            raise ScopeInvalid(f"auth.oidc.scopes: wanted '<value of the claim>=<scope> <scope> …', got {line[:200]!r}")
        found.setdefault(value.strip(), []).extend(Grant.parse(scope) for scope in scopes.split())
    return found


def usable_keys(document: str, algorithms: tuple[str, ...]) -> "dict[str, PyJWK]":
    """The keys of a set by their `kid` that sign with one of the algorithms; a single key needs no `kid`. Raises ValueError for none."""
    import jwt

    try:
        listed = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
    except msgspec.DecodeError as error:
        raise ValueError(f"the key set is not JSON: {error}") from None
    found: dict[str, PyJWK] = {}
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
            continue
        try:
            key = jwt.PyJWK(entry)
        except jwt.PyJWTError:
            continue  # a kind that we do not know: issuers publish several
        if key.algorithm_name in algorithms:
            found[str(entry.get("kid", ""))] = key
    if not found:
        raise ValueError(f"the key set has no key for {', '.join(algorithms)}")
    return found


_WORDS: Final = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "it is from another issuer",
    "InvalidSignatureError": "its signature does not fit",
    "MissingRequiredClaimError": "it lacks one of exp, iss, aud, sub",
    "InvalidAlgorithmError": "its algorithm is not one of auth.oidc.algorithms",
}


def _printable(subject: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in subject[:_SUBJECT_MAX])
