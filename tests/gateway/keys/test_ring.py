import pytest

from gateway.errors import Unauthenticated
from gateway.keys.key import digest_of, mint
from gateway.keys.ring import KeyRing
from gateway.state.keys import KeyRecord


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ring(clock):
    return KeyRing(clock_unix_s=clock, clock_s=clock)


def made(**fields):
    key, key_id = mint()
    return key, KeyRecord(**{"id": key_id, "name": "app", "digest": digest_of(key), "scopes": ("predict:a",)} | fields)


def test_an_empty_ring_lets_nobody_in(ring):
    key, _ = made()
    assert ring.is_empty
    with pytest.raises(Unauthenticated):
        ring.principal(key)


def test_a_key_opens_what_its_scopes_say_and_names_its_owner(ring):
    key, record = made()
    ring.replace([record], None)
    for _ in range(2):  # at first sight, then remembered
        principal = ring.principal(key)
        assert principal.name == f"key:app/{record.id}"
        assert principal.predicts("a")
        assert not principal.predicts("b")
    assert ring.seen(key.encode()) is principal


def test_the_id_alone_is_worth_nothing(ring):
    key, record = made()
    other, _ = made()
    ring.replace([record], None)
    forged = key[:20] + other[20:]
    for bad in (record.id, forged, key[:-1], key + "a", key.upper(), "", "ü" * 63, "x" * 10_000):
        with pytest.raises(Unauthenticated):
            ring.principal(bad)
    assert ring.seen(forged.encode()) is None


def test_a_key_that_is_taken_away_is_not_remembered(ring):
    key, record = made()
    ring.replace([record], None)
    assert ring.seen(key.encode()) is not None
    ring.replace([], None)
    assert ring.seen(key.encode()) is None


def test_a_key_ends_on_time_also_for_who_was_here_before(ring, clock):
    key, record = made(expires_unix_us=int(1060e6))
    ring.replace([record], None)
    assert ring.principal(key)
    clock.now_s = 1060.0
    assert ring.seen(key.encode()) is None
    with pytest.raises(Unauthenticated, match="expired"):
        ring.principal(key)


def test_a_revoked_key_opens_nothing(ring):
    key, record = made(revoked_unix_us=1)
    ring.replace([record], None)
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.principal(key)


def test_the_bootstrap_key_may_do_everything(ring):
    ring.replace([], digest_of("b" * 40))
    principal = ring.principal("b" * 40)
    assert principal.name == "key:bootstrap"
    assert principal.grants.allow_all("keys:write")


def test_a_reload_does_not_fill_a_used_quota(ring):
    key, record = made(rate_per_s=0.001, burst=1)
    ring.replace([record], None)
    assert ring.principal(key).take()
    ring.replace([record, made()[1]], None)
    assert not ring.principal(key).take()


def test_a_changed_quota_begins_anew(ring):
    key, record = made(rate_per_s=0.001, burst=1)
    ring.replace([record], None)
    assert ring.principal(key).take()
    ring.replace([KeyRecord(**{name: getattr(record, name) for name in record.__struct_fields__} | {"burst": 2})], None)
    assert ring.principal(key).take()


def test_what_is_remembered_is_bounded(ring, monkeypatch):
    monkeypatch.setattr("gateway.keys.ring._VERIFIED_MAX", 3)
    keys = [made() for _ in range(10)]
    ring.replace([record for _, record in keys], None)
    for key, _ in keys:
        ring.principal(key)
    assert len(ring._verified) <= 3


def test_which_keys_were_used_is_told_once_also_over_reloads(ring):
    (key, record), (_, other) = made(), made()
    ring.replace([record, other], None)
    ring.principal(key)
    ring.replace([record, other], None)
    assert ring.take_used() == [record.id]
    assert ring.take_used() == []
    ring.seen(key.encode())
    ring.seen(key.encode())
    assert ring.take_used() == [record.id]
    ring.used_too([other.id])
    assert ring.take_used() == [other.id]
    ring.seen(b"runoff_unknown")
    assert ring.take_used() == []
