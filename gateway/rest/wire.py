"""The hot form of the Open Inference Protocol: the common JSON body read straight to flat lists, the reply filled into a template.

Whatever is unusual (other datatypes, nested data, parameters of tensors, requested outputs, anything wrong) is not handled here:
`decode` answers None and the request takes the ordinary path, which has the words for every mistake. So this file holds no messages.
"""

import http
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final

import msgspec
import numpy as np
import orjson
import simdjson

from gateway.live import Arm, ServedEndpoint
from gateway.rest.json_tensors import UNREADABLE
from gateway.ticket import Ticket
from models.batching import FlatRows, Part
from models.signature import Signature, TensorSpec
from models.tensors import NUMPY_OF, Array


class _FloatTensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[float | None]
    parameters: dict[str, object] | None = None


class _FloatBody(msgspec.Struct, gc=False):
    inputs: list[_FloatTensor]
    id: str | None = None
    parameters: dict[str, object] | None = None
    outputs: list[object] | None = None


_decode_floats: Final = msgspec.json.Decoder(_FloatBody).decode
_simd: Final = simdjson.Parser()
LARGE_BYTES: Final = 800
"""From this size on (some hundred floats) simdjson is faster, a batch's packing included; below, the typed decoder."""
HUGE_BYTES: Final = 2 << 20
"""Larger bodies take the ordinary path, which reads them on a thread: 3 ms is what one may hold the loop up. It also bounds the parser's memory."""
_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus} | {499: "Client Closed Request"}
_dumps: Final[Callable[[object], bytes]] = orjson.dumps

Decoded = tuple[list[Part], int, str | None]
"""Inputs in the endpoint's order, rows, the request's own id."""


class HotSignature:
    """What the decoder needs of a signature whose inputs are all 32 or 64 bit floats with fixed inner dimensions."""

    __slots__ = ("count", "places", "single", "specs")

    def __init__(self, signature: Signature) -> None:
        self.specs = [_HotSpec(spec) for spec in signature.inputs]
        self.count = len(self.specs)
        self.places = {spec.name: place for place, spec in enumerate(signature.inputs)}
        self.single: _HotSpec | None = self.specs[0] if self.count == 1 else None

    @staticmethod
    def of(signature: Signature) -> "HotSignature | None":
        """None when the signature has anything that the hot form does not read, or outputs without a row for each of the inputs'."""
        if not signature.is_batched:
            return None
        for spec in signature.inputs:
            fixed = spec.shape[1:]
            if spec.datatype not in ("FP32", "FP64") or any(dim < 0 for dim in fixed):
                return None
        return HotSignature(signature)


class _HotSpec:
    """One input: name, datatype, the inner dimensions as they stand in JSON, and how many values a row has."""

    __slots__ = ("datatype", "name", "one_row", "tail", "width")

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.datatype = spec.datatype
        self.tail = list(spec.shape[1:])
        self.one_row = [1, *self.tail]
        self.width = prod(self.tail)


def decode(body: bytes | bytearray, hot: HotSignature) -> Decoded | None:
    """The inputs of a plain V2 JSON body, values checked for type and counted against shape; None when it is not that plain."""
    if len(body) > LARGE_BYTES:
        if len(body) > HUGE_BYTES:
            return None
        large = _decode_large(body, hot)
        if large is not None:
            return large
    try:
        request = _decode_floats(body)
    except UNREADABLE:
        return None
    tensors = request.inputs
    if len(tensors) != hot.count or request.parameters or request.outputs:
        return None
    if hot.single is not None:
        tensor = tensors[0]
        rows = _rows(tensor, hot.single)
        return ([tensor.data], rows, request.id) if rows else None
    inputs: list[FlatRows | None] = [None] * hot.count
    rows_of_all = 0
    for tensor in tensors:
        place = hot.places.get(tensor.name)
        if place is None or inputs[place] is not None:
            return None
        rows = _rows(tensor, hot.specs[place])
        if not rows or (rows_of_all and rows != rows_of_all):
            return None
        rows_of_all = rows
        inputs[place] = tensor.data
    return inputs, rows_of_all, request.id  # type: ignore[return-value]  # every place was filled: counts equal, no name twice


def _decode_large(body: bytes | bytearray, hot: HotSignature) -> Decoded | None:
    """`decode` by simdjson, straight into arrays: of 512 floats in 8 µs instead of 20, of 150,528 in 1.6 ms instead of 11.

    None for whatever is not plainly right, `null` among it: the typed decoder, which reads it next, is the one that judges.
    """
    if body.count(b"[") != 1 + 2 * hot.count:
        return None  # nested data, which `as_buffer` would flatten whatever its form
    inputs: list[Array | None] = [None] * hot.count
    rows = 0
    try:
        document: Any = _simd.parse(body)
        wire_id = document.get("id")
        if len(document) != 1 + (wire_id is not None) or not (wire_id is None or type(wire_id) is str):
            return None
        tensors = document["inputs"]
        if len(tensors) != hot.count:
            return None
        for tensor in tensors:
            place = hot.places[tensor["name"]]
            spec = hot.specs[place]
            shape = tensor["shape"].as_list()
            if len(tensor) != 4 or tensor["datatype"] != spec.datatype or inputs[place] is not None:
                return None
            flat = np.frombuffer(tensor["data"].as_buffer(of_type="d"), np.float64)
            if shape[1:] != spec.tail or type(shape[0]) is not int or shape[0] * spec.width != len(flat):
                return None
            if not shape[0] or (rows and shape[0] != rows):
                return None
            rows = shape[0]
            with np.errstate(over="ignore"):  # beyond a float is infinite, as in a small body
                inputs[place] = flat.astype(NUMPY_OF[spec.datatype], copy=False).reshape(shape)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError):
        return None
    return inputs, rows, wire_id  # type: ignore[return-value]  # every place was filled: counts equal, no name twice


def _rows(tensor: _FloatTensor, spec: _HotSpec) -> int:
    """The rows of a tensor that fits its spec exactly, else 0."""
    if tensor.name != spec.name or tensor.datatype != spec.datatype or tensor.parameters:
        return 0
    shape = tensor.shape
    if shape == spec.one_row:
        return 1 if len(tensor.data) == spec.width else 0
    if shape and shape[0] > 0 and shape[1:] == spec.tail and shape[0] * spec.width == len(tensor.data):
        return shape[0]
    return 0


class ReplyTemplate:
    """All of a reply that does not change from request to request, for one arm at one revision, as `%` formats.

    `head` takes the body's length, the prediction id and further header lines. `row` is the whole reply for one row (no `id`, the arm that
    was drawn): length, prediction id twice, each output's data; `row_bytes` is what of its body is always there.
    """

    __slots__ = ("body_end", "body_start", "head", "outputs", "row", "row_bytes")

    def __init__(self, endpoint: ServedEndpoint, arm: Arm, tails: Sequence[tuple[int, ...]]) -> None:
        staged = arm.model.staged
        self.head = _formatted(
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-runoff-variant: {arm.name}\r\nx-runoff-model: {staged.key}\r\n"
            f"x-runoff-revision: {endpoint.revision}\r\ncontent-length: \0d\r\nx-prediction-id: \0b\r\n\0b\r\n"
        )
        self.body_start = b'{"model_name":%b,"model_version":%b,"parameters":{"prediction_id":"' % (
            _dumps(endpoint.name),
            _dumps(staged.key.version),
        )
        self.body_end = b'","variant":%b,"revision":%d},"outputs":[' % (_dumps(arm.name), endpoint.revision)
        self.outputs = [
            b'{"name":%b,"datatype":"%b","shape":' % (_dumps(spec.name), spec.datatype.encode())
            for spec in staged.signature.outputs
        ]
        parts = [self.body_start, b"\0b", self.body_end]
        for place, (start, tail) in enumerate(zip(self.outputs, tails, strict=True)):
            parts += (b"," if place else b"", start, _dumps((1, *tail)), b',"data":[\0b]}')
        parts.append(b"]}")
        row = b"".join(parts)
        self.row = self.head.replace(b"%b\r\n%b\r\n", b"%b\r\n\r\n") + row.replace(b"%", b"%%").replace(b"\0b", b"%b")
        self.row_bytes = len(row.replace(b"\0b", b"")) + 36  # an id's canonical text has 36 characters


def encode(ticket: Ticket) -> bytes:
    """The whole reply of a successful hot ticket, head and body."""
    arm = ticket.answered
    batch = ticket.batch
    assert batch is not None
    outputs = batch.outputs
    assert outputs is not None
    template = arm.template
    if type(template) is not ReplyTemplate:
        template = arm.template = ReplyTemplate(ticket.endpoint, arm, [output.shape[1:] for output in outputs])
    chunks = batch.chunks
    if chunks is None:
        chunks = batch.chunks = _chunks(outputs)
    prediction_id = ticket.prediction_id.encode()
    is_drawn = arm is ticket.arm
    if ticket.rows == 1 and is_drawn and ticket.wire_id is None and not arm.has_free_tails:
        offset = ticket.offset
        data = [chunk[offset] for chunk in chunks]
        return template.row % (template.row_bytes + sum(map(len, data)), prediction_id, prediction_id, *data)
    body = _encode_rows(ticket, template, chunks, outputs, prediction_id)
    assigned = b"" if is_drawn else b"x-runoff-assigned: %b\r\n" % ticket.arm.name.encode()
    return template.head % (len(body), prediction_id, assigned) + body


def encode_error(status: int, body: bytes, headers: tuple[tuple[str, str], ...]) -> bytes:
    """An error reply of the hot path."""
    return encode_whole(status, [("content-type", "application/json"), *headers], body)


def encode_whole(status: int, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """Any reply, head and body."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1", "replace") + body


def _chunks(outputs: Sequence[Array]) -> list[list[bytes]]:
    """Every row of every output as JSON without its brackets: one serialisation a batch, cut at the row ends.

    Numbers go straight from the array (32 bit floats as short as they are exact, non-finite ones as null); strings row by row,
    since text may hold what looks like a row's end.
    """
    chunks = []
    for output in outputs:
        rows = output.reshape(len(output), -1)
        if rows.dtype == object:
            chunks.append([_dumps(row)[1:-1] for row in rows.tolist()])
        else:
            if rows.dtype == np.float16:
                rows = rows.astype(np.float32)
            text = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)
            chunks.append(text[2:-2].split(b"],["))
    return chunks


def _encode_rows(
    ticket: Ticket, template: ReplyTemplate, chunks: list[list[bytes]], outputs: Sequence[Array], prediction_id: bytes
) -> bytes:
    """The body of a reply with several rows, with the caller's `id`, or with outputs whose inner dimensions vary."""
    offset, rows = ticket.offset, ticket.rows
    parts = [template.body_start, prediction_id, template.body_end]
    for place, start in enumerate(template.outputs):
        data = b",".join(chunks[place][offset : offset + rows])
        shape = _dumps((rows, *outputs[place].shape[1:]))
        parts += (b"," if place else b"", start, shape, b',"data":[', data, b"]}")
    parts.append(b"]")
    if ticket.wire_id is not None:
        parts += (b',"id":', _dumps(ticket.wire_id))
    parts.append(b"}")
    return b"".join(parts)


def _formatted(text: str) -> bytes:
    """A `%` format out of text in which NUL stands for the percent sign, so that names may hold one."""
    return text.encode().replace(b"%", b"%%").replace(b"\0", b"%")
