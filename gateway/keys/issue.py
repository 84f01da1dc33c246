"""Making, rotating and revoking keys: for the admin API, and for the command line on the machine itself."""

import math
import re
import time
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.keys.key import digest_of, mint
from gateway.keys.scopes import Grants, ScopeInvalid
from gateway.state.keys import KeyRecord, KeyTable

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_SCOPES_MAX: Final = 64
_EXPIRES_S_MAX: Final = 10 * 365 * 86400


class KeyRefused(Exception):
    """An order that cannot be filled; the message says what is wanted."""


class KeyUnknown(Exception):
    """No key has this id."""


class KeyEnded(Exception):
    """A key that cannot be rotated, because it has ended or has a successor already."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: who the key is for. `expires_s`: seconds from now, None for never. `rate_per_s` requests a second in each worker, with
    room for `burst`; None: no quota.
    """

    name: str
    scopes: tuple[str, ...]
    expires_s: float | None = None
    rate_per_s: float | None = None
    burst: int | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is the text to hand over: it is shown once and kept nowhere. `replaced`: the key before it, with its new end."""

    key: str
    record: KeyRecord
    replaced: KeyRecord | None = None

    def __repr__(self) -> str:
        """Never the key: this may end in a log."""
        return f"Made(record={self.record!r}, replaced={self.replaced!r})"


class KeyDesk:
    """Where keys are made. Whether the author may, is for the caller to know."""

    def __init__(self, table: KeyTable, *, clock_unix_s: Callable[[], float] = time.time) -> None:
        self._table = table
        self._clock_unix_s = clock_unix_s

    def all(self) -> list[KeyRecord]:
        """Every key that there ever was, oldest first."""
        return self._table.all()

    def find(self, key_id: str) -> KeyRecord:
        """Raises KeyUnknown."""
        key = self._table.find(key_id)
        if key is None:
            raise KeyUnknown("there is no key of this id")
        return key

    def make(self, order: Order, *, author: str, reason: str) -> Made:
        """Raises KeyRefused."""
        scopes = checked(order)
        key, key_id = mint()
        draft = KeyRecord(
            id=key_id,
            name=order.name,
            digest=digest_of(key),
            scopes=scopes,
            rate_per_s=order.rate_per_s,
            burst=order.burst,
            expires_unix_us=None if order.expires_s is None else self._in_us(order.expires_s),
        )
        return Made(key=key, record=self._table.add(draft, author=author, reason=reason))

    def rotate(self, key_id: str, *, overlap_s: float, author: str, reason: str) -> Made:
        """A successor with the same name, scopes, quota and length of life; the old key goes on for the overlap, so that callers can
        change over. Raises KeyUnknown or KeyEnded.
        """
        old = self.find(key_id)
        if not old.is_good(self._in_us(0)):
            raise KeyEnded(f"key {old.id} has ended already: make a new one")
        if any(key.replaces == old.id for key in self.all()):
            raise KeyEnded(f"key {old.id} has a successor already: rotate that")
        key, new_id = mint()
        life_us = None if old.expires_unix_us is None else old.expires_unix_us - old.created_unix_us
        draft = msgspec.structs.replace(
            old,
            id=new_id,
            digest=digest_of(key),
            expires_unix_us=None if life_us is None else self._in_us(0) + life_us,
            replaces=old.id,
            last_used_unix_us=None,
        )
        made = self._table.add(draft, author=author, reason=reason, old_ends_unix_us=self._in_us(overlap_s))
        return Made(key=key, record=made, replaced=self.find(old.id))

    def revoke(self, key_id: str, *, author: str, reason: str) -> KeyRecord:
        """Ends a key for good; again is no change. Raises KeyUnknown."""
        self.find(key_id)
        self._table.revoke(key_id, author=author, reason=reason)
        return self.find(key_id)

    def _in_us(self, seconds: float) -> int:
        return int((self._clock_unix_s() + seconds) * 1e6)


def checked(order: Order) -> tuple[str, ...]:
    """The order's scopes in their plain form. Raises KeyRefused."""
    if _NAME.fullmatch(order.name) is None:
        raise KeyRefused("name: wanted 1 to 64 of letters, digits and _.@-, beginning with a letter or a digit")
    if not 0 < len(order.scopes) <= _SCOPES_MAX:
        raise KeyRefused(f"scopes: wanted 1 to {_SCOPES_MAX}, got {len(order.scopes)}")
    try:
        grants = Grants.parse(order.scopes)
    except ScopeInvalid as error:
        raise KeyRefused(f"scopes: {error}") from None
    if order.expires_s is not None and not 0 < order.expires_s <= _EXPIRES_S_MAX:
        raise KeyRefused(f"expires_s: wanted more than 0 and at most {_EXPIRES_S_MAX} seconds, got {order.expires_s:g}")
    if order.rate_per_s is not None and not (order.rate_per_s > 0 and math.isfinite(order.rate_per_s)):
        raise KeyRefused(f"rate_per_s: wanted a positive number, got {order.rate_per_s:g}")
    if order.burst is not None and (order.burst < 1 or order.rate_per_s is None):
        raise KeyRefused("burst: wanted at least 1, and rate_per_s with it")
    return tuple(map(str, grants.grants))
