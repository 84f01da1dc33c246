import pytest

from gateway.errors import NotAllowed
from gateway.rest.doorkeeper import OpenDoor, Visitor, credential_of


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
