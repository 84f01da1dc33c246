import pytest
from starlette.requests import Request

from gateway.errors import MediaTypeUnsupported, NotAllowed, RequestMalformed
from gateway.keys.doorkeeper import Visitor
from gateway.rest.entrance import Entrance, infer_reply, json_reply, only_json, whole_number
from tests.gateway.rest.test_open_inference import reply


def request(client=("192.0.2.1", 5), **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": pairs, "method": "POST", "path": "/", "client": client})


class Seen:
    """A doorkeeper that lets in whoever shows the right key, and remembers who came."""

    def __init__(self):
        self.visits = []

    def admit(self, visitor, scope, endpoint):
        self.visits.append((visitor, scope, endpoint))
        if visitor.credential != "k":
            raise NotAllowed("not you")
        return True


def test_the_doorkeeper_sees_credential_address_scope_and_endpoint(settings):
    keeper = Seen()
    entrance = Entrance(settings, keeper)
    assert entrance.admit(request(authorization="Bearer k"), "label", "e")
    assert entrance.admit(request(x_api_key="k", client=None), "predict")
    with pytest.raises(NotAllowed):
        entrance.admit(request(), "predict")
    assert keeper.visits[0] == (Visitor(credential="k", peer="192.0.2.1"), "label", "e")
    assert keeper.visits[1][0].is_local


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "٣", "9" * 19, ""])
def test_a_length_is_a_whole_number(text):
    with pytest.raises(RequestMalformed, match="whole number"):
        whole_number(text, "L")


def test_a_length_may_be_absent():
    assert whole_number(None, "L") is None
    assert whole_number("17", "L") == 17


def test_json_may_be_left_unsaid_but_nothing_else_said():
    only_json(request())
    only_json(request(content_type="application/json; charset=utf-8"))
    with pytest.raises(MediaTypeUnsupported):
        only_json(request(content_type="text/csv"))


def test_only_predictions_are_compressed():
    asking = request(accept_encoding="gzip")
    assert b"content-encoding" in dict(infer_reply(asking, reply(), [], b"a" * 1000).raw_headers)
    assert b"content-encoding" not in dict(json_reply({"a": "a" * 1000}).raw_headers)
