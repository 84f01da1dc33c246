import json

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.errors import DeadlinePassed, NotReady, Unauthenticated
from gateway.rest.refusals import guarded, no_route, refuse, respond


def test_a_refusal_has_text_code_and_the_prediction_it_concerns():
    error = DeadlinePassed("too late")
    assert json.loads(refuse(error)[2]) == {"error": "too late", "code": "deadline_passed"}
    error.prediction_id = "id-1"
    status, headers, body = refuse(error)
    assert status == 504
    assert ("x-prediction-id", "id-1") in headers
    assert json.loads(body)["prediction_id"] == "id-1"


def test_unavailability_says_when_and_why_and_a_missing_key_how():
    assert {("retry-after", "1"), ("x-runoff-reason", "draining")} <= set(refuse(NotReady("leaving", "draining"))[1])
    assert ("www-authenticate", "Bearer") in refuse(Unauthenticated("no key"))[1]


async def test_a_guarded_handler_answers_every_error():
    async def fails(request: Request) -> Response:
        raise NotReady("leaving", "draining")

    async def is_left(request: Request) -> Response:
        raise ClientDisconnect

    request = Request({"type": "http", "headers": [], "method": "GET", "path": "/"})
    assert (await guarded(fails)(request)).status_code == 503
    assert (await guarded(is_left)(request)).status_code == 400


@pytest.mark.parametrize(
    ("path", "allow", "status", "code"),
    [
        ("/v2/cudasharedmemory/status", None, 404, "not_offered"),
        ("/v1/models/m:regress", "GET", 404, "not_offered"),
        ("/x", None, 404, "not_found"),
        ("/v1/labels", "POST", 405, "method_not_allowed"),
    ],
)
def test_a_path_without_a_route(path, allow, status, code):
    got, headers, body = no_route("GET", path, allow)
    assert (got, json.loads(body)["code"]) == (status, code)
    assert path not in body.decode()
    assert dict(headers).get("allow") == (allow if status == 405 else None)


def test_a_response_has_exactly_the_given_headers_and_its_length():
    response = respond(200, [("x-a", "1")], b"body")
    assert response.raw_headers == [(b"x-a", b"1"), (b"content-length", b"4")]
