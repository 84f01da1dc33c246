"""The hot form of the Open Inference Protocol: the common JSON body read straight to flat lists, the reply filled into a template.

Whatever is unusual (other datatypes, nested data, parameters of tensors, requested outputs, anything wrong) is not handled here:
`decode` answers None and the request takes the ordinary path, which has the words for every mistake. So this file holds no messages.
"""

from collections.abc import Callable
from typing import Final

import msgspec
import orjson

from gateway.live import Arm, ServedEndpoint
from gateway.ticket import Ticket
from models.batching import FlatRows, Part
from models.signature import Signature, TensorSpec


class _FloatTensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float | None]
    parameters: dict[str, object] | None = None


class _FloatBody(msgspec.Struct):
    inputs: list[_FloatTensor]
    id: str | None = None
    parameters: dict[str, object] | None = None
    outputs: list[object] | None = None


_decode_floats: Final = msgspec.json.Decoder(_FloatBody).decode
_dumps: Final[Callable[[object], bytes]] = orjson.dumps

Decoded = tuple[list[Part], int, str | None]
"""Inputs in the endpoint's order, rows, the request's own id."""


class HotSignature:
    """What the decoder needs of a signature whose inputs are all 32 or 64 bit floats with fixed inner dimensions."""

    __slots__ = ("count", "places", "single", "specs")

    def __init__(self, signature: Signature) -> None:
        self.specs = signature.inputs
        self.count = len(signature.inputs)
        self.places = {spec.name: place for place, spec in enumerate(signature.inputs)}
        self.single: TensorSpec | None = signature.inputs[0] if self.count == 1 else None

    @staticmethod
    def of(signature: Signature) -> "HotSignature | None":
        """None when the signature has anything that the hot form does not read."""
        for spec in signature.inputs:
            fixed = spec.shape[1:]
            if (
                spec.datatype not in ("FP32", "FP64")
                or not spec.shape
                or spec.shape[0] != -1
                or any(d < 0 for d in fixed)
            ):
                return None
        return HotSignature(signature)


def decode(body: bytes | bytearray, hot: HotSignature) -> Decoded | None:
    """The inputs of a plain V2 JSON body, values checked for type and counted against shape; None when it is not that plain."""
    try:
        request = _decode_floats(body)
    except (msgspec.MsgspecError, RecursionError):
        return None
    tensors = request.inputs
    if len(tensors) != hot.count or request.parameters or request.outputs:
        return None
    if hot.single is not None:
        tensor = tensors[0]
        rows = _rows(tensor, hot.single)
        return None if rows is None else ([tensor.data], rows, request.id)
    inputs: list[FlatRows | None] = [None] * hot.count
    rows_of_all: int | None = None
    for tensor in tensors:
        place = hot.places.get(tensor.name)
        if place is None or inputs[place] is not None:
            return None
        rows = _rows(tensor, hot.specs[place])
        if rows is None or (rows_of_all is not None and rows != rows_of_all):
            return None
        rows_of_all = rows
        inputs[place] = tensor.data
    assert rows_of_all is not None
    return inputs, rows_of_all, request.id  # type: ignore[return-value]  # every place was filled: counts equal, no name twice


def _rows(tensor: _FloatTensor, spec: TensorSpec) -> int | None:
    """The rows of a tensor that fits its spec exactly, else None."""
    shape = tensor.shape
    wanted = spec.shape
    if tensor.name != spec.name or tensor.datatype != spec.datatype or len(shape) != len(wanted) or tensor.parameters:
        return None
    size = shape[0]
    if size < 1:
        return None
    for dim, want in zip(shape[1:], wanted[1:], strict=True):
        if dim != want:
            return None
        size *= dim
    return shape[0] if size == len(tensor.data) else None


class ReplyTemplate:
    """All of a reply that does not change from request to request, for one arm at one revision."""

    __slots__ = ("body_end", "body_start", "head_end", "head_start", "names", "outputs", "rows_free")

    def __init__(self, endpoint: ServedEndpoint, arm: Arm) -> None:
        staged = arm.model.staged
        self.head_start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
        self.head_end = (
            f"\r\nx-runoff-variant: {arm.name}\r\nx-runoff-model: {staged.key}"
            f"\r\nx-runoff-revision: {endpoint.revision}\r\nx-prediction-id: "
        ).encode()
        self.body_start = b'{"model_name":%b,"model_version":%b,"parameters":{"prediction_id":"' % (
            _dumps(endpoint.name),
            _dumps(staged.key.version),
        )
        self.body_end = b'","variant":%b,"revision":%d},"outputs":[' % (_dumps(arm.name), endpoint.revision)
        self.outputs = [
            (
                b'{"name":%b,"datatype":"%b","shape":' % (_dumps(spec.name), spec.datatype.encode()),
                len(spec.shape) - 1,
            )
            for spec in staged.signature.outputs
        ]
        self.rows_free = staged.signature.is_batched


def encode(ticket: Ticket) -> bytes:
    """The whole reply of a successful hot ticket, head and body."""
    template = _template(ticket)
    batch = ticket.batch
    assert batch is not None
    if batch.values is None:
        assert batch.outputs is not None
        batch.values = [
            output.reshape(len(output), -1).tolist() if output.ndim else [[output.item()]] for output in batch.outputs
        ]
    offset, rows = ticket.offset, ticket.rows
    parts = [template.body_start, ticket.prediction_id.encode(), template.body_end]
    outputs = batch.outputs
    assert outputs is not None
    for place, (start, _) in enumerate(template.outputs):
        values = batch.values[place]
        tail = outputs[place].shape[1:]
        if rows == 1:
            data = _dumps(values[offset])
        else:
            data = _dumps([value for row in values[offset : offset + rows] for value in row])
        parts += (b"," if place else b"", start, _dumps((rows, *tail)), b',"data":', data, b"}")
    parts.append(b"]")
    slot = ticket.slot
    if slot is not None and slot.wire_id is not None:
        parts += (b',"id":', _dumps(slot.wire_id))
    parts.append(b"}")
    body = b"".join(parts)
    assigned = b""
    if ticket.answered is not ticket.arm:
        assigned = b"\r\nx-runoff-assigned: " + ticket.arm.name.encode()
    return b"".join(
        (
            template.head_start,
            str(len(body)).encode(),
            template.head_end,
            ticket.prediction_id.encode(),
            assigned,
            b"\r\n\r\n",
            body,
        )
    )


def encode_error(status: int, phrase: str, body: bytes, headers: tuple[tuple[str, str], ...]) -> bytes:
    """An error reply of the hot path."""
    lines = "".join(f"\r\n{name}: {value}" for name, value in headers)
    return (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}{lines}\r\n\r\n".encode()
        + body
    )


def _template(ticket: Ticket) -> ReplyTemplate:
    arm = ticket.answered
    template = arm.template
    if template is None:
        template = arm.template = ReplyTemplate(ticket.endpoint, arm)
    return template  # type: ignore[return-value]  # only this module sets it
