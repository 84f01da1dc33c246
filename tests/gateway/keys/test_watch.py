import time

import pytest

from gateway.errors import Unauthenticated
from gateway.keys.issue import KeyDesk, Order
from gateway.keys.watch import KeyWatch
from gateway.settings import Auth, Settings
from gateway.state.store import StateStore
from tests.kit.issuer import ISSUER, Issuer, oidc


@pytest.fixture
def settings(tmp_path):
    return Settings(
        state_dir=str(tmp_path), auth=Auth(data="keys", oidc=oidc()), bootstrap_key_file=str(tmp_path / "first")
    )


@pytest.fixture
def watch(settings):
    made = KeyWatch(settings)
    yield made
    made.close()


@pytest.fixture
def store(settings):
    made = StateStore(settings.state_file)
    yield made
    made.close()


def test_before_there_is_a_state_nobody_comes_in(watch):
    watch.look()
    assert watch.ring.is_empty


def test_a_key_holds_from_the_look_after_it_was_made_until_the_look_after_it_was_revoked(watch, store):
    desk = KeyDesk(store.keys)
    made = desk.make(Order(name="app", scopes=("predict",)), author="local:ann", reason="new")
    watch.look()
    assert watch.ring.principal(made.key).name == f"key:app/{made.record.id}"
    desk.revoke(made.record.id, author="local:ann", reason="leaked")
    watch.look()
    with pytest.raises(Unauthenticated):
        watch.ring.principal(made.key)


def test_the_bootstrap_key_holds_while_its_file_is_there(watch, tmp_path):
    (tmp_path / "first").write_text("f" * 64)
    watch.look()
    assert watch.ring.principal("f" * 64)
    (tmp_path / "first").unlink()
    watch.look()
    with pytest.raises(Unauthenticated):
        watch.ring.principal("f" * 64)


def test_tokens_are_taken_once_control_has_fetched_the_keys(watch, store):
    issuer = Issuer()
    with pytest.raises(Unauthenticated):
        watch.ring.principal(issuer.token())
    store.keys.keep_key_set(ISSUER, issuer.key_set())
    watch.look()
    principal = watch.ring.principal(issuer.token())
    assert (principal.name, principal.predicts("a")) == ("oidc:ann", True)
    assert principal.ends_unix_s > time.time()


def test_a_look_at_what_has_not_changed_forgets_nothing(watch, store):
    made = KeyDesk(store.keys).make(Order(name="app", scopes=("predict",)), author="a", reason="r")
    watch.look()
    principal = watch.ring.principal(made.key)
    watch.look()
    assert watch.ring.seen(made.key.encode()) is principal
