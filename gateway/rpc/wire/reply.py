"""ModelInferResponse by hand: a whole answer, from HEADERS to trailers, filled into a template that was made once for its kind.

Kinds: one arm at one revision, the outputs asked for, the number of rows. What varies inside a kind has a fixed length: the stream's
number, the prediction id, the outputs' bytes. Everything else (ids, fallbacks, free dimensions, strings) is built piece by piece.
https://protobuf.dev/programming-guides/encoding, open_inference.proto.
"""

from collections.abc import Sequence
from math import prod
from typing import Final

import numpy as np

from gateway.dataplane import Dataplane
from gateway.live import Arm
from gateway.rest.headers import header_text
from gateway.rest.raw_tensors import write_raw
from gateway.rpc.wire import frames
from gateway.rpc.wire.headers import write_fields
from gateway.rpc.wire.status import OK_TRAILERS, OPENING
from gateway.ticket import Batch, Ticket
from models.signature import TensorSpec
from models.tensors import NUMPY_OF, Array

TEMPLATES_MAX: Final = 512
"""Templates that a worker keeps; beyond, all are made anew."""
_ID_BYTES: Final = 36
_WHOLE_BYTES_MAX: Final = frames.FRAME_BYTES_DEFAULT

Raw = bytes | memoryview


class Template:
    """`frames % (stream, prediction id, stream, prediction id, *raws, stream)` is the answer; `data_bytes` counts against windows, `length` is the answer's."""

    __slots__ = ("data_bytes", "frames", "length")

    def __init__(self, frames_: bytes, data_bytes: int, length: int) -> None:
        self.frames = frames_
        self.data_bytes = data_bytes
        self.length = length


class Pieces:
    """An answer that no template holds: the opening section, and the message in parts, prefix included."""

    __slots__ = ("block", "parts")

    def __init__(self, block: bytes, parts: tuple[Raw, ...]) -> None:
        self.block = block
        self.parts = parts


class ReplyWriter:
    """Writes the answers of one worker."""

    def __init__(self, plane: Dataplane) -> None:
        self._plane = plane
        self._table = plane.table
        self._templates: dict[tuple[Arm, tuple[str, ...] | None, int], Template | None] = {}
        self._batch: Batch | None = None
        self._rows: list[tuple[Raw, int]] = []

    def whole(self, ticket: Ticket, stream_id: int, wanted: tuple[str, ...] | None) -> tuple[bytes, int] | None:
        """The answer as frames, and the bytes of its DATA; None when it has to be written in pieces."""
        if self._plane.table is not self._table:
            self._templates.clear()
            self._table = self._plane.table
        arm = ticket.answered
        key = (arm, wanted, ticket.rows)
        template = self._templates.get(key)
        if template is None:
            if key in self._templates:
                return None
            template = self._keep(key, ticket)
            if template is None:
                return None
        if arm is not ticket.arm:
            return None
        prediction_id = ticket.prediction_id.encode()
        stream = stream_id.to_bytes(4, "big")
        raws = self._raws(ticket, wanted)
        answer = template.frames % (stream, prediction_id, stream, prediction_id, *raws, stream)
        if len(answer) != template.length:
            return None  # the model's outputs are not as its signature says
        return answer, template.data_bytes

    def pieces(self, ticket: Ticket, wanted: tuple[str, ...] | None, wire_id: str | None) -> Pieces:
        """Any answer."""
        arm = ticket.answered
        outputs = _chosen(arm, ticket.outputs(), wanted)
        raws = self._raws(ticket, wanted)
        assigned = ticket.arm.name if arm is not ticket.arm else None
        head, tail = _message(ticket, wire_id, assigned, [(spec, array.shape) for spec, array in outputs])
        prediction_id = ticket.prediction_id.encode()
        parts: list[Raw] = [head + prediction_id + tail]
        for raw in raws:
            parts += (_RAW_TAG + _varint(len(raw)), raw)
        size = sum(map(len, parts))
        parts.insert(0, b"\0" + size.to_bytes(4, "big"))
        return Pieces(_opening(ticket, assigned) + prediction_id, tuple(parts))

    def forget_batch(self) -> None:
        """Lets go of the last batch's outputs; called when a turn's answers are written."""
        self._batch = None
        self._rows = []

    def _raws(self, ticket: Ticket, wanted: tuple[str, ...] | None) -> list[Raw]:
        """The raw contents of a ticket's outputs: made bytes once a batch, then cut."""
        batch = ticket.batch
        assert batch is not None
        if batch is not self._batch:
            assert batch.outputs is not None
            self._batch = batch
            rows = (
                batch.rows if batch.rows != ticket.rows else 1
            )  # alone, a ticket gets all, whatever its first dimension
            self._rows = [_raw_rows(output, rows) for output in batch.outputs]
        first, last = (ticket.offset, ticket.offset + ticket.rows) if batch.rows != ticket.rows else (0, 1)
        if wanted is None:
            return [
                rows[first * size : last * size] if size else _texts(ticket, i)
                for i, (rows, size) in enumerate(self._rows)
            ]
        names = {spec.name: i for i, spec in enumerate(ticket.answered.model.staged.signature.outputs)}
        chosen = [(i, *self._rows[i]) for name in wanted if (i := names.get(name)) is not None]
        return [rows[first * size : last * size] if size else _texts(ticket, i) for i, rows, size in chosen]

    def _keep(self, key: tuple[Arm, tuple[str, ...] | None, int], ticket: Ticket) -> Template | None:
        if len(self._templates) >= TEMPLATES_MAX:
            self._templates.clear()
        template = self._templates[key] = _template(ticket, key[1])
        return template


def _raw_rows(output: Array, rows: int) -> tuple[Raw, int]:
    """An output's bytes and the size of a row in them; size 0 for strings, whose rows differ."""
    if output.dtype == object:
        return b"", 0
    array = np.ascontiguousarray(output.astype(output.dtype.newbyteorder("<"), copy=False))
    raw: Raw = array.tobytes() if array.nbytes <= _WHOLE_BYTES_MAX else array.reshape(-1).view(np.uint8).data
    return raw, array.nbytes // rows


def _texts(ticket: Ticket, place: int) -> bytes:
    """A BYTES output of one ticket; also an output without any element."""
    return write_raw(ticket.outputs()[place])


def _chosen(arm: Arm, outputs: Sequence[Array], wanted: tuple[str, ...] | None) -> list[tuple[TensorSpec, Array]]:
    specs = arm.model.staged.signature.outputs
    if wanted is None:
        return list(zip(specs, outputs, strict=True))
    by_name = {spec.name: (spec, output) for spec, output in zip(specs, outputs, strict=True)}
    return [by_name[name] for name in wanted if name in by_name]


# ── the message ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


_RAW_TAG: Final = b"\x32"


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _field(number: int, content: bytes | str) -> bytes:
    """A length-delimited field with a number below 16."""
    content = content.encode() if isinstance(content, str) else content
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _parameter(name: str, value: bytes) -> bytes:
    """An entry of `parameters`; `value` is an InferParameter's one field."""
    return _field(4, _field(1, name) + _field(2, value))


def _message(
    ticket: Ticket, wire_id: str | None, assigned: str | None, outputs: Sequence[tuple[TensorSpec, tuple[int, ...]]]
) -> tuple[bytes, bytes]:
    """The message up to its raw contents, as what stands before the prediction id and what stands after it."""
    staged = ticket.answered.model.staged
    head = _field(1, ticket.endpoint.name) + _field(2, staged.key.version)
    if wire_id:
        head += _field(3, wire_id)
    id_parameter = _parameter("prediction_id", _field(3, bytes(_ID_BYTES)))
    head += id_parameter[:-_ID_BYTES]
    tail = _parameter("variant", _field(3, ticket.answered.name))
    tail += _parameter("revision", b"\x10" + _varint(ticket.endpoint.revision))
    if assigned is not None:
        tail += _parameter("assigned", _field(3, assigned))
    for spec, shape in outputs:
        dims = b"".join(map(_varint, shape))
        tail += _field(5, _field(1, spec.name) + _field(2, spec.datatype) + (_field(3, dims) if shape else b""))
    return head, tail


def _opening(ticket: Ticket, assigned: str | None) -> bytes:
    """The opening field section up to the prediction id, which is its last value."""
    key = ticket.answered.model.staged.key
    pairs = [
        (b"x-runoff-variant", ticket.answered.name.encode()),
        (b"x-runoff-model", header_text(str(key)).encode()),
        (b"x-runoff-revision", b"%d" % ticket.endpoint.revision),
    ]
    if assigned is not None:
        pairs.append((b"x-runoff-assigned", assigned.encode()))
    id_field = write_fields([(b"x-prediction-id", bytes(_ID_BYTES))])
    return OPENING + write_fields(pairs) + id_field[:-_ID_BYTES]


def _template(ticket: Ticket, wanted: tuple[str, ...] | None) -> Template | None:
    """None for kinds whose answers differ in length, or do not fit one DATA frame that every caller takes."""
    arm = ticket.answered
    signature = arm.model.staged.signature
    chosen = _chosen(arm, ticket.outputs(), wanted)
    if not signature.is_batched or arm.has_free_tails or any(spec.datatype == "BYTES" for spec, _ in chosen):
        return None
    shapes = [(spec, (ticket.rows, *spec.shape[1:])) for spec, _ in chosen]
    sizes = tuple(prod(shape) * NUMPY_OF[spec.datatype].itemsize for spec, shape in shapes)
    head, tail = _message(ticket, None, None, shapes)
    raw_bytes = sum(len(_RAW_TAG + _varint(size)) + size for size in sizes)
    message_bytes = len(head) + _ID_BYTES + len(tail) + raw_bytes
    data_bytes = message_bytes + 5
    if data_bytes > _WHOLE_BYTES_MAX or not all(sizes):
        return None
    opening = _opening(ticket, None)
    texts = [
        _frame_start(len(opening) + _ID_BYTES, frames.HEADERS, frames.END_HEADERS),
        opening,
        _frame_start(data_bytes, frames.DATA, 0),
        b"\0" + message_bytes.to_bytes(4, "big") + head,
        tail,
    ]
    for size in sizes:
        texts[-1] += _RAW_TAG + _varint(size)
        texts.append(b"")
    texts[-1] += _frame_start(len(OK_TRAILERS), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM)
    texts.append(OK_TRAILERS)
    length = sum(map(len, texts)) + 3 * 4 + 2 * _ID_BYTES + sum(sizes)
    return Template(b"%b".join(text.replace(b"%", b"%%") for text in texts), data_bytes, length)


def _frame_start(length: int, kind: int, flags: int) -> bytes:
    """A frame's head up to its stream."""
    return frames.frame_head(length, kind, flags, 0)[:5]
