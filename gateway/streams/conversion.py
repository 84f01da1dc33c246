"""Spool payloads of one table to Arrow rows, a slice at a time: so that few decoded objects live at once, which is what garbage
collection is paid for (holding 16,000 decoded blocks halved the rate).
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import pyarrow as pa

from gateway.streams import labels, minutes, predictions, sensitive, shadows
from gateway.streams.arrow import BlockInvalid
from gateway.streams.predictions import Answers
from gateway.streams.schema import Naming
from routing.records import (
    Block,
    LabelBlock,
    MetricBlock,
    PredictionBlock,
    QualityBlock,
    SensitiveBlock,
    SensitiveLabelBlock,
    ShadowBlock,
)

TABLES_OF: Final = {
    "p": ("predictions",),
    "a": ("sensitive",),
    "s": ("shadows", "metric_parts"),
    "l": ("labels",),
    "b": ("sensitive_labels",),
    "c": ("metric_parts",),
    "q": ("metric_parts",),
}
"""Block tag → the tables that its frames touch."""
_SLICE: Final = 500
_DECODER: Final[msgspec.msgpack.Decoder[Block]] = msgspec.msgpack.Decoder(Block)


class _Tagged(msgspec.Struct, array_like=True, gc=False):
    tag: str


_TAG_DECODER: Final = msgspec.msgpack.Decoder(_Tagged)


class Held(msgspec.Struct, frozen=True, gc=False):
    """A frame that waits for its commit. `unix_us` and `at_s`: when it was read, by the wall and by a monotonic clock."""

    writer: str
    sequence: int
    payload: bytes
    unix_us: int
    at_s: float = 0.0


Refuse = Callable[[Held, str], None]
"""Takes a frame that cannot be converted, and why."""


def tables_of(payload: bytes) -> tuple[str, ...]:
    """The tables that a frame touches, by its tag; raises BlockInvalid for what is no block of this spool."""
    try:
        return TABLES_OF[_TAG_DECODER.decode(payload).tag]
    except (msgspec.MsgspecError, KeyError) as error:
        raise BlockInvalid(f"no block of this spool: {error}") from error


class Conversion:
    """The rows for one commit of one table, whose columns `naming` knows."""

    def __init__(self, table: str, naming: Naming, answers: Answers) -> None:
        self._table = table
        self._naming = naming
        self._answers = answers

    def rows(self, held: Sequence[Held], refuse: Refuse) -> pa.Table | None:
        """The rows of all frames in order; None when there are none. What breaks a slice is found frame by frame, and refused."""
        found: list[pa.Table] = []
        for start in range(0, len(held), _SLICE):
            part = held[start : start + _SLICE]
            try:
                tables = self._converted(part)
            except Exception:  # noqa: BLE001  # a block comes from another process: whatever it breaks must cost only itself
                tables = self._converted([one for one in part if self._is_convertible(one, refuse)])
            found += tables
        return pa.concat_tables(found, promote_options="default") if found else None

    def _is_convertible(self, one: Held, refuse: Refuse) -> bool:
        try:
            self._converted([one])
        except Exception as error:  # noqa: BLE001  # see rows
            refuse(one, f"{type(error).__name__}: {error}")
            return False
        return True

    def _converted(self, held: Sequence[Held]) -> list[pa.Table]:
        blocks = [_DECODER.decode(one.payload) for one in held]
        match self._table:
            case "predictions":
                asked = [block for block in blocks if isinstance(block, PredictionBlock) and block.requests]
                return predictions.tables(asked, self._naming, self._answers)
            case "shadows":
                return shadows.tables([block for block in blocks if isinstance(block, ShadowBlock)], self._naming)
            case "sensitive":
                return sensitive.tables([one for one in blocks if isinstance(one, SensitiveBlock)], self._naming)
            case "labels":
                rows = labels.rows([block for block in blocks if isinstance(block, LabelBlock)])
            case "sensitive_labels":
                rows = labels.apart([block for block in blocks if isinstance(block, SensitiveLabelBlock)])
            case _:
                told = [
                    minutes.Told(one.writer, block, one.unix_us)
                    for one, block in zip(held, blocks, strict=True)
                    if isinstance(block, MetricBlock | ShadowBlock | QualityBlock)
                ]
                rows = minutes.rows(told)
        return [] if rows is None else [rows]
