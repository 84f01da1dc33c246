"""What callers say and are told beside the body: request headers into fields, a reply into headers. gRPC's metadata reads the same."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

import orjson
from msgspec import Struct

from gateway.errors import RequestMalformed, Wire
from gateway.request import InferReply, InferRequest
from models.tensors import Array
from routing.traffic import SECRET_HEADERS

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Caller(Struct, frozen=True, kw_only=True, gc=False):
    """The fields of a request that stand in its headers. `headers` are all but the secret ones, lower case, for routing."""

    headers: Mapping[str, str]
    request_id: str | None = None
    variant: str | None = None
    endpoint: str | None = None
    timeout_s: float | None = None
    explain: bool = False
    traceparent: str | None = None
    tracestate: str | None = None

    def asks(self, endpoint: str, inputs: Mapping[str, Array], *, protocol: int, received_ns: int) -> InferRequest:
        """The one request type, with what the headers say; a protocol adds what it says elsewhere."""
        return InferRequest(
            endpoint=endpoint,
            inputs=inputs,
            protocol=protocol,
            received_ns=received_ns,
            headers=self.headers,
            request_id=self.request_id,
            timeout_s=self.timeout_s,
            variant=self.variant,
            explain=self.explain,
            traceparent=self.traceparent,
            tracestate=self.tracestate,
        )


def read_headers(pairs: Iterable[tuple[str, str]]) -> Caller:
    """Reads headers with lower-case names; of several with one name the last holds. Raises RequestMalformed for a bad deadline.

    White space around a value is none of it (RFC 9110, 5.5), whatever a server's parser leaves there. A request id that does not fit is dropped, as if none had been sent.
    """
    headers = {name: value.strip(" \t") for name, value in pairs if name not in SECRET_HEADERS}
    get = headers.get
    return Caller(
        headers=headers,
        request_id=request_id_of(get("x-request-id")),
        variant=get("x-runoff-variant"),
        endpoint=get("x-runoff-endpoint"),
        timeout_s=_timeout_s(get("x-runoff-timeout-ms")),
        explain=get("x-runoff-explain") == "1",
        traceparent=get("traceparent"),
        tracestate=get("tracestate"),
    )


def request_id_of(text: str | None) -> str | None:
    """The request id to store, None where there is none or it does not fit."""
    return text if text is not None and _REQUEST_ID.fullmatch(text) else None


def earliest(*timeouts_s: float | None) -> float | None:
    """The shortest of the deadlines that were given."""
    given = [timeout_s for timeout_s in timeouts_s if timeout_s is not None]
    return min(given) if given else None


def reply_headers(reply: InferReply) -> list[tuple[str, str]]:
    """Who answered, for every protocol; lower-case names, as HTTP/2 and ASGI want them."""
    pairs = [
        ("x-prediction-id", reply.prediction_id),
        ("x-runoff-variant", reply.variant),
        ("x-runoff-model", header_text(str(reply.model.key))),
        ("x-runoff-revision", str(reply.revision)),
    ]
    if reply.assigned != reply.variant:
        pairs.append(("x-runoff-assigned", reply.assigned))
    if reply.explain is not None:
        pairs.append(("x-runoff-explain", header_text(orjson.dumps(reply.explain).decode())))
    return pairs


def error_headers(wire: Wire, error: BaseException) -> list[tuple[str, str]]:
    """What a refusal says beside its body."""
    pairs: list[tuple[str, str]] = []
    prediction_id = prediction_id_of(error)
    if prediction_id is not None:
        pairs.append(("x-prediction-id", prediction_id))
    if wire.retry_after_s is not None:
        pairs.append(("retry-after", str(wire.retry_after_s)))
    if wire.reason is not None:
        pairs.append(("x-runoff-reason", wire.reason))
    if wire.status == 401:
        pairs.append(("www-authenticate", "Bearer"))
    return pairs


def prediction_id_of(error: BaseException) -> str | None:
    """The id of a request that was assigned before it failed; the corridor leaves it on the error."""
    prediction_id = getattr(error, "prediction_id", None)
    return prediction_id if isinstance(prediction_id, str) else None


def header_text(text: str) -> str:
    """Text that may stand in a header: printable ASCII; anything else becomes `?`."""
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def _timeout_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = -1.0
    if not (milliseconds > 0 and math.isfinite(milliseconds)):
        raise RequestMalformed("X-Runoff-Timeout-Ms: wanted a positive number of milliseconds")
    return milliseconds / 1e3
