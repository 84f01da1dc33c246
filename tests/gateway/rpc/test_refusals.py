import logging

from gateway.errors import Overloaded
from gateway.rpc.refusals import trailing_metadata, wire_of


def test_trailing_metadata_say_code_reason_and_when_to_come_back():
    error = Overloaded("full", "concurrency", 2)
    error.prediction_id = "id-1"
    assert dict(trailing_metadata(wire_of(error), error)) == {
        "x-runoff-code": "overloaded",
        "x-prediction-id": "id-1",
        "retry-after": "2",
        "x-runoff-reason": "concurrency",
    }


def test_what_nobody_expected_is_logged_and_not_told(caplog):
    with caplog.at_level(logging.ERROR):
        wire = wire_of(LookupError("a secret"))
    assert (wire.grpc, wire.message) == ("INTERNAL", "internal error")
    assert "a secret" in caplog.text
