import pytest

from gateway.keys.issue import KeyDesk, KeyEnded, KeyRefused, KeyUnknown, Order
from gateway.keys.key import digest_of
from gateway.state.store import StateStore

WHO = {"author": "local:ann", "reason": "because"}


class Clock:
    now_s = 1_700_000_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def desk(tmp_path, clock):
    store = StateStore(tmp_path / "state.db", clock=clock)
    yield KeyDesk(store.keys, clock_unix_s=clock)
    store.close()


def test_a_key_is_shown_once_and_kept_nowhere(desk, tmp_path):
    made = desk.make(Order(name="app", scopes=("predict:a", "label:a")), **WHO)
    assert desk.find(made.record.id).digest == digest_of(made.key)
    assert made.key not in repr(made)
    for path in tmp_path.iterdir():
        assert made.key[20:].encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"scopes": ()}, "scopes"),
        ({"scopes": ("everything",)}, "unknown scope"),
        ({"expires_s": 0.0}, "expires_s"),
        ({"expires_s": float("inf")}, "expires_s"),
        ({"rate_per_s": 0.0}, "rate_per_s"),
        ({"rate_per_s": float("nan")}, "rate_per_s"),
        ({"burst": 3}, "burst"),
        ({"rate_per_s": 1.0, "burst": 0}, "burst"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_by_name(desk, fields, words):
    with pytest.raises(KeyRefused, match=words):
        desk.make(Order(**{"name": "app", "scopes": ("predict",)} | fields), **WHO)
    assert desk.all() == []


def test_a_rotated_key_goes_on_for_the_overlap_and_its_successor_lives_as_long_as_it_did(desk, clock):
    first = desk.make(Order(name="app", scopes=("predict",), expires_s=1000.0, rate_per_s=5.0), **WHO)
    clock.now_s += 900
    second = desk.rotate(first.record.id, overlap_s=60.0, **WHO)
    assert second.key != first.key
    assert (second.record.scopes, second.record.rate_per_s, second.record.name) == (("predict",), 5.0, "app")
    assert second.record.expires_unix_us == int((clock.now_s + 1000) * 1e6)
    assert second.replaced.expires_unix_us == int((clock.now_s + 60) * 1e6)


def test_the_overlap_never_makes_an_old_key_live_longer(desk, clock):
    first = desk.make(Order(name="app", scopes=("predict",), expires_s=10.0), **WHO)
    second = desk.rotate(first.record.id, overlap_s=3600.0, **WHO)
    assert second.replaced.expires_unix_us == first.record.expires_unix_us


def test_only_a_living_key_without_a_successor_is_rotated(desk):
    first = desk.make(Order(name="app", scopes=("predict",)), **WHO)
    desk.rotate(first.record.id, overlap_s=60.0, **WHO)
    with pytest.raises(KeyEnded, match="successor"):
        desk.rotate(first.record.id, overlap_s=60.0, **WHO)
    desk.revoke(first.record.id, **WHO)
    with pytest.raises(KeyEnded, match="ended"):
        desk.rotate(first.record.id, overlap_s=60.0, **WHO)
    with pytest.raises(KeyUnknown):
        desk.rotate("0" * 12, overlap_s=60.0, **WHO)


def test_revoking_twice_changes_nothing(desk, clock):
    made = desk.make(Order(name="app", scopes=("predict",)), **WHO)
    once = desk.revoke(made.record.id, **WHO)
    clock.now_s += 5
    assert desk.revoke(made.record.id, **WHO) == once
