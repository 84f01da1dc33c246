import pytest

from gateway.errors import Overloaded, RequestMalformed, Unauthenticated, translate
from gateway.rest.headers import earliest, error_headers, header_text, read_headers, reply_headers, request_id_of
from tests.gateway.rest.test_open_inference import reply


def test_the_fields_of_a_caller_are_read_and_its_secrets_left_behind():
    caller = read_headers(
        {
            "x-request-id": "r-1",
            "x-runoff-variant": "b",
            "x-runoff-endpoint": "e",
            "x-runoff-timeout-ms": "250",
            "x-runoff-explain": "1",
            "traceparent": "00-1",
            "tracestate": "a=1",
            "x-cohort": "beta",
            "authorization": "Bearer s",
            "cookie": "c",
            "x-api-key": "k",
        }.items()
    )
    assert (caller.request_id, caller.variant, caller.endpoint, caller.timeout_s) == ("r-1", "b", "e", 0.25)
    assert caller.explain
    assert (caller.traceparent, caller.tracestate) == ("00-1", "a=1")
    assert caller.headers["x-cohort"] == "beta"
    assert not {"authorization", "cookie", "x-api-key"} & set(caller.headers)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_deadline_that_is_none_is_refused(text):
    with pytest.raises(RequestMalformed, match="X-Runoff-Timeout-Ms"):
        read_headers([("x-runoff-timeout-ms", text)])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a.b:C_d-1", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("a b", False),
        ("ä", False),
        ("", False),
        (None, False),
    ],
)
def test_a_request_id_that_does_not_fit_is_dropped(text, kept):
    assert request_id_of(text) == (text if kept else None)


def test_the_earliest_deadline_holds():
    assert earliest(None, 2.0, 0.5) == 0.5
    assert earliest(None, None) is None


def test_a_reply_names_who_answered_and_who_was_drawn():
    headers = dict(reply_headers(reply(assigned="challenger", explain={"bucket": 3})))
    assert headers["x-prediction-id"] == "id-1"
    assert headers["x-runoff-variant"] == "champion"
    assert headers["x-runoff-assigned"] == "challenger"
    assert headers["x-runoff-model"] == "phishing/3"
    assert headers["x-runoff-revision"] == "7"
    assert headers["x-runoff-explain"] == '{"bucket":3}'
    assert "x-runoff-assigned" not in dict(reply_headers(reply()))


def test_refusals_say_when_to_come_back_and_why():
    error = Overloaded("busy", "concurrency", 2)
    assert dict(error_headers(translate(error), error)) == {"retry-after": "2", "x-runoff-reason": "concurrency"}
    error = Unauthenticated("who?")
    assert ("www-authenticate", "Bearer") in error_headers(translate(error), error)


def test_no_line_break_enters_a_header():
    assert header_text("a\r\nb\u2028ä") == "a??b??"


def test_white_space_around_a_value_is_none_of_it():
    caller = read_headers([("x-user-id", "\t x \t"), ("x-request-id", "r-1 ")])
    assert (caller.headers["x-user-id"], caller.request_id) == ("x", "r-1")
