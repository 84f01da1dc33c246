import asyncio
import sqlite3
import time
from contextlib import closing, suppress

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


async def test_while_the_state_cannot_be_read_keys_hold_as_before(watch, store, settings, caplog):
    desk = KeyDesk(store.keys)
    made = desk.make(Order(name="app", scopes=("predict",)), author="a", reason="r")
    watch.look()
    following = asyncio.create_task(watch.run())
    with closing(sqlite3.connect(settings.state_file)) as connection:
        connection.execute("UPDATE keys SET scopes = 'no JSON'")
        connection.commit()
        await until(lambda: "look_failed" in caplog.text)
        assert not following.done()
        assert watch.ring.principal(made.key)
        connection.execute("UPDATE keys SET scopes = '[\"predict\"]'")
        connection.commit()
    desk.revoke(made.record.id, author="a", reason="r")
    await until(lambda: watch.ring.is_empty or not opens(watch, made.key))
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


def test_a_process_starts_also_while_keys_cannot_be_read_and_lets_nobody_in(settings, store):
    made = KeyDesk(store.keys).make(Order(name="app", scopes=("predict",)), author="a", reason="r")
    with closing(sqlite3.connect(settings.state_file)) as connection:
        connection.execute("UPDATE keys SET scopes = 'no JSON'")
        connection.commit()
        watch = KeyWatch(settings)
        assert not opens(watch, made.key)
        connection.execute("UPDATE keys SET scopes = '[\"predict\"]'")
        connection.commit()
    watch.look()
    assert opens(watch, made.key)
    watch.close()


def opens(watch: KeyWatch, key: str) -> bool:
    try:
        watch.ring.principal(key)
    except Unauthenticated:
        return False
    return True


async def until(claim) -> None:
    async with asyncio.timeout(30):
        while not claim():  # noqa: ASYNC110 - looks are what is waited for
            await asyncio.sleep(0.001)
