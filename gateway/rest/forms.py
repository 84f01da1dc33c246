"""The forms of a request that the wire door takes beside the plain one: binary tensors, MLflow's scoring, TensorFlow's predict, unusual V2.

They are read and answered by the very functions that the ASGI app has for them, without its scope, task, future and routing: a fifth of
the processor time (`loadtests/bench.py`, scene `forms`). Whatever is refused here, and whatever would hold the loop up, is left to the app.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gateway.corridor import reply_of, ticket_of
from gateway.errors import INTERNAL, translate
from gateway.live import ServedEndpoint
from gateway.request import InferReply, InferRequest
from gateway.rest import invocations, open_inference, refusals, scoring, tensorflow, v2, wire
from gateway.rest.bodies import OFF_LOOP_BYTES, compress
from gateway.rest.entrance import JSON
from gateway.rest.headers import Caller, reply_headers, request_id_of
from gateway.rest.heads import Head
from gateway.ticket import Door, Ticket
from models.signature import Signature
from routing.records import PROTOCOLS

Body = bytes | bytearray
Headers = list[tuple[str, str]]
_V2_REST: Final = PROTOCOLS.index("v2-rest")
_LOG: Final = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What a form reads a body with. `name` is the endpoint's."""

    body: Body
    head: Head
    name: str
    signature: Signature
    caller: Caller
    received_ns: int


class Form(NamedTuple):
    """`read` answers the request and what the reply needs to know of it, or raises; `write` the reply's own headers and body."""

    read: Callable[[Asked], tuple[InferRequest, Any]]
    write: Callable[[InferReply, Any], tuple[Headers, bytes]]
    refuse: Callable[[BaseException], refusals.Refusal]


def is_light(endpoint: ServedEndpoint, length: int, json_length: int | None) -> bool:
    """Whether a body may be read on the loop. Binary tensors cost nothing to read but for strings, whatever their size."""
    if length <= OFF_LOOP_BYTES:
        return True
    if json_length is None or json_length > OFF_LOOP_BYTES:
        return False
    return all(spec.datatype != "BYTES" for spec in endpoint.signature.inputs)


def admit(door: Door, endpoint: ServedEndpoint, form: Form, body: Body, head: Head, received_ns: int) -> Ticket | None:
    """The ticket of a request; None: the ordinary path reads it again, and has the words for what is wrong with it."""
    request_id = None if head.request_id is None else request_id_of(head.request_id.decode("latin-1"))
    traceparent = None if head.traceparent is None else head.traceparent.decode("latin-1")
    tracestate = None if head.tracestate is None else head.tracestate.decode("latin-1")
    caller = Caller(headers=head.headers, request_id=request_id, traceparent=traceparent, tracestate=tracestate)
    try:
        request, wishes = form.read(Asked(body, head, endpoint.name, endpoint.signature, caller, received_ns))
        ticket = ticket_of(door, endpoint, request)
    except Exception:  # noqa: BLE001  # whatever it is, the ordinary path meets it as well, and tells it
        return None
    ticket.slot = (form, wishes, head.encodings)
    return ticket


def replied(ticket: Ticket) -> bytes:
    """The whole reply of a completed ticket that `admit` made."""
    form, wishes, encodings = ticket.slot
    try:
        reply = reply_of(ticket)
        headers, body = form.write(reply, wishes)
        more, body = compress(body, encodings)
        return wire.encode_whole(200, [*headers, *reply_headers(reply), *more], body)
    except Exception as error:  # noqa: BLE001  # the last line before the wire: what is unknown becomes a bare 500
        if translate(error) is INTERNAL:
            _LOG.exception("request_failed")
        status, headers, body = form.refuse(error)
        return wire.encode_whole(status, headers, body)


def _read_v2(asked: Asked) -> tuple[InferRequest, open_inference.Decoded]:
    decoded = open_inference.decode(asked.body, asked.head.json_length, asked.signature)
    request = v2.request_of(asked.name, decoded, asked.caller, protocol=_V2_REST, received_ns=asked.received_ns)
    return request, decoded


def _read_scoring(asked: Asked) -> tuple[InferRequest, None]:
    scored = scoring.decode(bytes(asked.body), asked.head.content_type, asked.signature)
    return invocations.request_of(asked.name, scored, asked.caller, received_ns=asked.received_ns), None


def _read_tensorflow(asked: Asked) -> tuple[InferRequest, bool]:
    inputs, by_row = tensorflow.decode(bytes(asked.body), asked.signature)
    request = asked.caller.asks(asked.name, inputs, protocol=tensorflow.TF, received_ns=asked.received_ns)
    return request, by_row


V2: Final = Form(_read_v2, open_inference.encode, refusals.refuse)
SCORING: Final = Form(_read_scoring, lambda reply, _: ([JSON], scoring.encode(reply)), scoring.refuse)
TENSORFLOW: Final = Form(
    _read_tensorflow, lambda reply, by_row: ([JSON], tensorflow.encode(reply, by_row=by_row)), refusals.refuse
)
