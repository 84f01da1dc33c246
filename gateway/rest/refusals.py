"""How an error leaves over REST: one JSON form for `/v2`, `/v1` and everything that is not MLflow's."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.errors import INTERNAL, translate
from gateway.rest.headers import error_headers, prediction_id_of

Refusal = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""
Handler = Callable[[Request], Awaitable[Response]]
_LOG: Final = logging.getLogger(__name__)


def refuse(error: BaseException) -> Refusal:
    """`{"error": text, "code": stable code, "prediction_id"?}`."""
    wire = translate(error)
    document = {"error": wire.message, "code": wire.code}
    prediction_id = prediction_id_of(error)
    if prediction_id is not None:
        document["prediction_id"] = prediction_id
    headers = [*error_headers(wire, error), ("content-type", "application/json")]
    return wire.status, headers, orjson.dumps(document)


def guarded(handler: Handler, form: Callable[[BaseException], Refusal] = refuse) -> Handler:
    """The handler, with every error turned into a reply: nothing crosses the wire unmapped."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except Exception as error:  # noqa: BLE001  # the last line before the wire: what is unknown becomes a bare 500
            if translate(error) is INTERNAL:
                _LOG.exception("request_failed")
            return respond(*form(error))

    return answer


def respond(status: int, headers: list[tuple[str, str]], body: bytes) -> Response:
    """A Starlette response with exactly these headers and the length."""
    response = Response(status_code=status)
    response.body = body
    response.raw_headers = [
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in headers),
        (b"content-length", str(len(body)).encode()),
    ]
    return response


def no_route(method: str, path: str, allow: str | None) -> Refusal:
    """A path that is none of ours, or one that takes only `allow`; it is not repeated in the reply."""
    for extension, marks in _UNOFFERED.items():
        if any(mark in path for mark in marks):
            return _plain(404, "not_offered", f"this server does not offer {extension}; GET /v2 lists what it offers")
    if allow is None:
        return _plain(404, "not_found", f"no such path for {method[:16]}")
    status, headers, body = _plain(405, "method_not_allowed", f"this path takes {allow}")
    return status, [("allow", allow), *headers], body


def _plain(status: int, code: str, message: str) -> Refusal:
    return status, [("content-type", "application/json")], orjson.dumps({"error": message, "code": code})


_UNOFFERED: Final = {
    "shared memory": ("/v2/systemsharedmemory", "/v2/cudasharedmemory"),
    "trace settings": ("/trace/setting",),
    "log settings": ("/v2/logging",),
    "text generation": ("/generate",),
    "classification and regression of TensorFlow examples": (":classify", ":regress"),
}
"""What clients of Triton and TensorFlow Serving ask for and we do not have, by the paths they ask at."""
