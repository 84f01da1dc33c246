"""The keys that open something now, and who has shown which: one look-up of a digest for whoever was here before."""

import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from gateway.errors import Unauthenticated
from gateway.keys.bucket import TokenBucket
from gateway.keys.key import digest_of, id_of
from gateway.keys.scopes import EVERYTHING, Grants
from gateway.keys.tokens import TokenReader
from gateway.state.keys import KeyRecord

CREDENTIAL_BYTES_MAX: Final = 8192
"""Longer ones are not looked at: no key and no sensible token is."""
_VERIFIED_MAX: Final = 4096
"""Principals remembered by digest; forgotten all at once when there are more (tokens are many, keys are few)."""


class Principal:
    """Somebody who has shown a good key or token. `name` stands in audits; `ends_unix_s` None: without end."""

    __slots__ = ("_predicts", "bucket", "ends_unix_s", "grants", "key_id", "name", "was_used")

    def __init__(
        self,
        name: str,
        grants: Grants,
        *,
        key_id: str | None = None,
        ends_unix_s: float | None = None,
        bucket: TokenBucket | None = None,
    ) -> None:
        """`key_id` None: a token, or the bootstrap key."""
        self.name = name
        self.grants = grants
        self.ends_unix_s = ends_unix_s
        self.bucket = bucket
        self.key_id = key_id
        self.was_used = True  # it was just shown
        self._predicts: dict[str, bool] = {}

    def take(self) -> bool:
        """Takes a request off the quota; False: it is used up."""
        return self.bucket is None or self.bucket.take()

    def predicts(self, endpoint: str) -> bool:
        """As `grants.allow("predict", endpoint)`, remembered. Only for names of the live table: there are few of these."""
        allowed = self._predicts.get(endpoint)
        if allowed is None:
            allowed = self._predicts[endpoint] = self.grants.allow("predict", endpoint)
        return allowed


class KeyRing:
    """Belongs to one thread. Empty until `replace` is called, and then nobody is let in."""

    def __init__(
        self,
        tokens: TokenReader | None = None,
        *,
        clock_unix_s: Callable[[], float] = time.time,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tokens` None: no issuer is trusted."""
        self._clock_s = clock_s
        self._clock_unix_s = clock_unix_s
        self._tokens = tokens
        self._keys: dict[str, KeyRecord] = {}
        self._bootstrap: bytes | None = None
        self._buckets: dict[str, TokenBucket] = {}
        self._verified: dict[bytes, Principal] = {}
        self._used: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no key at all opens anything."""
        return not self._keys and self._bootstrap is None

    def replace(self, records: Iterable[KeyRecord], bootstrap: bytes | None) -> None:
        """From now on these keys hold, and nothing that was verified before is believed. Buckets stay as full as they are."""
        now_unix_us = int(self._clock_unix_s() * 1e6)
        self._keys = {key.id: key for key in records if key.is_good(now_unix_us)}
        self._bootstrap = bootstrap
        self._buckets = {key.id: self._bucket(key) for key in self._keys.values() if key.rate_per_s is not None}
        self._used |= self._marked()
        self._verified = {}

    def take_used(self) -> list[str]:
        """The ids of the keys that were shown since the last call."""
        used, self._used = self._used | self._marked(), set()
        return sorted(used)

    def used_too(self, ids: Iterable[str]) -> None:
        """Gives back what was taken and could not be told."""
        self._used |= set(ids)

    def seen(self, credential: bytes) -> Principal | None:
        """For the hot path: who has shown this before, or shows it now; None where nobody should be let in by it."""
        principal = self._verified.get(sha256(credential).digest())
        if principal is None or not self._is_now(principal):
            try:
                return self.principal(credential.decode("latin-1"))
            except Unauthenticated:
                return None
        principal.was_used = True
        return principal

    def principal(self, credential: str) -> Principal:
        """Whose key or token this is. Raises Unauthenticated, with a message that helps its owner and tells others nothing."""
        if len(credential) > CREDENTIAL_BYTES_MAX or not credential.isascii():
            raise Unauthenticated("the key is unknown")
        digest = digest_of(credential)
        principal = self._verified.get(digest)
        if principal is None:
            principal = self._first_sight(credential, digest)
            if len(self._verified) >= _VERIFIED_MAX:
                self._used |= self._marked()
                self._verified.clear()
            self._verified[digest] = principal
        if not self._is_now(principal):
            del self._verified[digest]
            raise Unauthenticated("the key or token has expired")
        principal.was_used = True
        return principal

    def _marked(self) -> set[str]:
        """The keys among the verified that were shown since their marks were last taken."""
        shown = [one for one in self._verified.values() if one.was_used]
        for one in shown:
            one.was_used = False
        return {one.key_id for one in shown if one.key_id is not None}

    def _first_sight(self, credential: str, digest: bytes) -> Principal:
        key_id = id_of(credential)
        key = None if key_id is None else self._keys.get(key_id)
        if key is not None and compare_digest(key.digest, digest):
            ends_us = key.expires_unix_us
            return Principal(
                f"key:{key.name}/{key.id}",
                Grants.parse(key.scopes),
                key_id=key.id,
                ends_unix_s=None if ends_us is None else ends_us / 1e6,
                bucket=self._buckets.get(key.id),
            )
        if self._bootstrap is not None and compare_digest(self._bootstrap, digest):
            return Principal("key:bootstrap", EVERYTHING)
        if self._tokens is not None and credential.count(".") == 2:
            claims = self._tokens.read(credential)
            return Principal(f"oidc:{claims.subject}", claims.grants, ends_unix_s=claims.ends_unix_s)
        raise Unauthenticated("the key is unknown, expired or revoked")

    def _is_now(self, principal: Principal) -> bool:
        return principal.ends_unix_s is None or self._clock_unix_s() < principal.ends_unix_s

    def _bucket(self, key: KeyRecord) -> TokenBucket:
        assert key.rate_per_s is not None
        burst = key.burst or max(1, round(key.rate_per_s))
        bucket = self._buckets.get(key.id)
        if bucket is not None and (bucket.rate_per_s, bucket.burst) == (key.rate_per_s, burst):
            return bucket
        return TokenBucket(key.rate_per_s, burst, self._clock_s)
