"""One mirror frame as it was read, and the jobs that come of it: one for each mirror that drew some of its requests."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final

import msgspec
import numpy as np

from gateway.spool.frame import Frame
from models.tensors import NUMPY_OF, Array, size_bytes
from routing.records import Column, MirrorBlock

RECORDED: Final = "recorded"
REASONS: Final = (
    "expired",  # older than a minute when its turn came
    "not_warm",  # the candidate is not loaded here
    "model_failed",  # the candidate raised, or answered without one row for each row
    "incompatible",  # the row lacks something that the candidate needs, or its answer cannot be read as production's
    "remote_timeout",
    "remote_error",
    "too_large",  # above the mirror's body_bytes_max
    "governor",  # shed here: too far behind, too many waiting, or too much memory
    "mirror_removed",  # the live route has no such mirror any more
    "until_passed",
    "cycle",  # it came from this gateway's own mirrors, over other gateways, and a remote would send it round again
)
"""Why a drawn request has no answer. With `recorded`, and `overflow` which the worker counts, these add up to what was drawn."""

AGE_MAX_S: Final = 60.0
"""How long a mirrored row is kept: older ones are not run."""

_DECODER: Final = msgspec.msgpack.Decoder(MirrorBlock)


class Draw:
    """A mirror frame with its tensors as arrays (views of the frame, read only).

    Request `i` has the rows `starts[i]` to `starts[i + 1]`. `live_labels`, `live_scores` are set by who reads production's answer;
    `open_jobs` counts the jobs that are not in the spool yet.
    """

    __slots__ = (
        "block",
        "inputs",
        "live_labels",
        "live_outputs",
        "live_scores",
        "open_jobs",
        "sequence",
        "size_bytes",
        "starts",
        "writer",
    )

    def __init__(self, writer: str, frame: Frame) -> None:
        """Raises ValueError for a payload that is no mirror block."""
        try:
            block = _DECODER.decode(frame.payload)
        except msgspec.MsgspecError as error:
            raise ValueError(f"mirror frame {frame.sequence} of {writer}: {error}") from error
        self.writer = writer
        self.sequence = frame.sequence
        self.size_bytes = len(frame.payload)
        self.open_jobs = 0
        self.block = block
        self.starts = [0, *accumulate(request.rows for request in block.requests)]
        self.inputs = self._arrays(block.inputs)
        self.live_outputs = self._arrays(block.live_outputs)
        self.live_labels: Sequence[str | None] = [None] * self.rows
        self.live_scores: Sequence[float | None] = [None] * self.rows

    @property
    def rows(self) -> int:
        return self.starts[-1]

    @property
    def is_whole(self) -> bool:
        """Whether all inputs could be read; if not, nobody can answer for this draw."""
        return len(self.inputs) == len(self.block.inputs)

    def chain(self, index: int) -> str | None:
        """The gateways that a request came through as a mirrored row, None for a caller's own."""
        return self.block.chains[index] if self.block.chains else None

    def drawn(self, mirror: int) -> list[int]:
        """The requests that the mirror at this position of `mirror_names` drew."""
        bit = 1 << mirror
        return [index for index, request in enumerate(self.block.requests) if request.mirrors & bit]

    def take(self, array: Array, indexes: Sequence[int]) -> Array:
        """The rows of these requests, end to end; neighbours are one slice. A tensor without a row a row belongs whole to the only request."""
        if len(self.block.requests) == 1:
            return array
        parts, first, previous = [], indexes[0], indexes[0]
        for index in (*indexes[1:], -1):
            if index != previous + 1:
                parts.append(array[self.starts[first] : self.starts[previous + 1]])
                first = index
            previous = index
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def input_bytes(self, index: int) -> int:
        """What one request's inputs weigh; texts by their length."""
        return sum(size_bytes(self.take(array, [index])) for array in self.inputs.values())

    def _arrays(self, columns: Sequence[Column]) -> dict[str, Array]:
        """The columns that can be read, by name."""
        arrays = {}
        for column in columns:
            with suppress(ValueError, KeyError):  # values that do not fit their shape, an unknown datatype
                array = array_of(column)
                if len(array) == self.rows or len(self.block.requests) == 1:
                    arrays[column.name] = array
        return arrays


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave for some requests of a job: their rows end to end, in the order of `indexes`.

    A run may answer for several jobs; the first of them `leads_run`, so that runs can be counted.
    """

    indexes: list[int]
    names: Sequence[str]
    outputs: list[Array]
    labels: Sequence[str | None]
    scores: Sequence[float | None]
    compute_us: int
    batch_rows: int
    done_unix_us: int
    leads_run: bool = True


class Job:
    """Requests of one draw for one mirror. It is done when each has an outcome, which then is written once.

    Belongs to whoever runs it: the loop, the compute thread during its run, or a remote lane.
    """

    __slots__ = ("answers", "draw", "indexes", "mirror", "model", "open", "reasons", "version")

    def __init__(self, draw: Draw, mirror: str, indexes: Iterable[int]) -> None:
        self.draw = draw
        self.mirror = mirror
        self.indexes = list(indexes)
        self.model = ""
        self.version = ""
        self.open = len(self.indexes)
        self.answers: list[Answered] = []
        self.reasons: dict[int, str] = {}

    @property
    def is_done(self) -> bool:
        return self.open == 0

    def answer(self, answered: Answered) -> None:
        self.answers.append(answered)
        self.open -= len(answered.indexes)

    def fail(self, indexes: Iterable[int], reason: str) -> None:
        """Gives the requests an outcome other than an answer; `reason` is one of REASONS."""
        for index in indexes:
            self.reasons[index] = reason
            self.open -= 1

    def waiting(self) -> list[int]:
        """The requests that have no outcome yet."""
        answered = {index for answer in self.answers for index in answer.indexes}
        return [index for index in self.indexes if index not in self.reasons and index not in answered]


def array_of(column: Column) -> Array:
    """A column's values as an array of shape (rows, *tail); raises ValueError where bytes and shape do not fit."""
    data = column.data
    if data is None:
        raise ValueError(f"column '{column.name}' has no values")
    if isinstance(data, list):
        flat: Array = np.array(data, dtype=object)
    else:
        flat = np.frombuffer(data, dtype=NUMPY_OF[column.datatype].newbyteorder("<"))
    if 0 in column.tail:
        return flat.reshape(0, *column.tail)
    return flat.reshape(-1, *column.tail)


def column_of(name: str, datatype: str, array: Array) -> Column:
    """The reverse of `array_of`."""
    data = array.ravel().tolist() if array.dtype == object else np.ascontiguousarray(array).tobytes()
    return Column(name, datatype, array.shape[1:], data)
