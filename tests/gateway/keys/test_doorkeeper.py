import pytest

from gateway.errors import NotAllowed, Overloaded, Unauthenticated
from gateway.keys.doorkeeper import KeyDoor, OpenDoor, Visitor, credential_of
from gateway.keys.key import digest_of, mint
from gateway.keys.ring import KeyRing
from gateway.state.keys import KeyRecord


@pytest.mark.parametrize(
    ("peer", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        (None, True),
        ("192.0.2.1", False),
        ("::ffff:1", False),
        ("x", False),
    ],
)
def test_who_is_on_this_machine(peer, is_local):
    assert Visitor(credential=None, peer=peer).is_local is is_local


def test_an_open_door_lets_everybody_predict_and_nobody_load():
    stranger, neighbour = Visitor(credential="k", peer="192.0.2.1"), Visitor(credential=None, peer="127.0.0.1")
    assert OpenDoor().admit(stranger, "predict", "e") is False
    assert OpenDoor().admit(neighbour, "label", None) is False
    with pytest.raises(NotAllowed, match="label:<endpoint>"):
        OpenDoor().admit(stranger, "label", None)
    with pytest.raises(NotAllowed, match="model:write"):
        OpenDoor().admit(neighbour, "model:write", "e")


@pytest.mark.parametrize(
    ("authorization", "api_key", "credential"),
    [
        ("Bearer t", "k", "t"),
        ("bearer  t ", None, "t"),
        ("Basic dXNlcg==", "k", "k"),
        ("Bearer ", None, None),
        (None, "k", "k"),
        (None, None, None),
    ],
)
def test_a_credential_is_the_bearer_token_else_the_key(authorization, api_key, credential):
    assert credential_of(authorization, api_key) == credential


def ring_of(**scopes):
    """A ring with a key of this name for each set of scopes, and the keys by name."""
    ring, keys, records = KeyRing(), {}, []
    for name, texts in scopes.items():
        keys[name], key_id = mint()
        digest = digest_of(keys[name])
        records.append(KeyRecord(id=key_id, name=name, digest=digest, scopes=tuple(texts.split())))
    ring.replace(records, None)
    return ring, keys


def by(credential, peer="192.0.2.1"):
    return Visitor(credential=credential, peer=peer)


def test_where_keys_are_needed_only_a_good_one_with_the_scope_comes_in():
    ring, keys = ring_of(app="predict:a label:a")
    refusals = []
    door = KeyDoor(ring, is_open=False, refused=refusals.append)
    assert door.admit(by(keys["app"]), "predict", "a") is True
    assert door.admit(by(keys["app"]), "predict", None) is True
    door.recognise(by(keys["app"]), "predict")
    for credential, scope, endpoint, error in (
        (None, "predict", "a", Unauthenticated),
        ("nope", "predict", "a", Unauthenticated),
        (keys["app"], "predict", "b", NotAllowed),
        (keys["app"], "model:write", "a", NotAllowed),
    ):
        with pytest.raises(error):
            door.admit(by(credential, "127.0.0.1"), scope, endpoint)
    assert refusals == ["unauthenticated", "unauthenticated", "not_allowed", "not_allowed"]


def test_an_open_door_still_knows_keys_for_what_needs_one():
    ring, keys = ring_of(app="label:a", ops="model:write")
    door = KeyDoor(ring, is_open=True)
    assert door.admit(by(None), "predict", "a") is False
    assert door.admit(by("nope"), "predict", "a") is False
    assert door.admit(by(keys["app"]), "label", None) is True
    assert door.admit(by(None, "127.0.0.1"), "label", None) is False
    assert door.admit(by(keys["ops"]), "model:write", "a") is True
    for credential, scope in ((None, "label"), (keys["ops"], "label"), (keys["app"], "model:write")):
        with pytest.raises(NotAllowed):
            door.admit(by(credential), scope, "a")


def test_what_a_body_names_is_asked_for_by_itself():
    ring, keys = ring_of(app="label:a predict:a")
    for is_open in (True, False):
        door = KeyDoor(ring, is_open=is_open)
        assert door.may(by(keys["app"]), "label", "a")
        assert not door.may(by(keys["app"]), "label", "b")
    assert KeyDoor(ring, is_open=True).may(by(None), "predict", "b")
    assert not KeyDoor(ring, is_open=False).may(by(keys["app"]), "predict", "b")


def test_a_used_up_quota_is_refused_with_the_time_to_wait():
    key, key_id = mint()
    ring = KeyRing(clock_s=lambda: 1.0)
    record = KeyRecord(id=key_id, name="n", digest=digest_of(key), scopes=("predict",), rate_per_s=0.5, burst=1)
    ring.replace([record], None)
    door = KeyDoor(ring, is_open=False)
    assert door.admit(by(key), "predict", "a")
    with pytest.raises(Overloaded) as refused:
        door.admit(by(key), "predict", "a")
    assert (refused.value.reason, refused.value.retry_after_s) == ("key_quota", 2)


def test_the_wire_door_is_told_who_predicts():
    ring, keys = ring_of(app="predict:a")
    door = KeyDoor(ring, is_open=False)
    assert door.predictor(keys["app"].encode(), "a") is not None
    assert door.predictor(keys["app"].encode(), "b") is None
    assert door.predictor(b"nope", "a") is None
    assert door.predictor(None, "a") is None


def test_a_visitor_never_shows_the_key():
    assert "s3cret" not in repr(by("s3cret"))
